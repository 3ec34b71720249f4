"""All mistakes with what is not on this machine, and whether that runs here for tests."""

import os
import shutil
import subprocess

import httpx

from tests.harness import asking
from tests.harness.postgres import HINT, programs
from tests.mistakes import bases, clusters, databases, engines, forges, registries
from tests.mistakes.remote import Need, RemoteMistake

REMOTES: tuple[RemoteMistake, ...] = (
    *engines.ENGINES,
    *bases.BASES,
    *registries.PUSHES,
    *clusters.REACHING,
    *clusters.ALLOWING,
    *forges.FORGES,
    *databases.DATABASES,
    *databases.TRACKING,
)


def missing() -> dict[Need, str]:
    """Return what does not run on this machine, each with what to do about it."""
    found: dict[Need, str] = {}
    program = shutil.which("docker-registry") or shutil.which("registry")
    if not program or not _has_registry():
        found["registry"] = "run one at localhost:5000 with library/python; install docker-registry"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        found["docker"] = "start the Docker engine"
    if not os.environ.get("TEST_KUBECONFIG"):
        found["cluster"] = "set TEST_KUBECONFIG to the kubeconfig of one for tests"
    if programs() is None:
        found["postgresql"] = HINT
    return found


def _has_registry() -> bool:
    try:
        return asking.get("http://localhost:5000/v2/", timeout=5).is_success
    except httpx.HTTPError:
        return False
