"""The real Docker engine for tests: whether it answers, and what tests leave in it."""

import json
import shutil
import subprocess
from pathlib import Path

from tests.harness.services import require


def required() -> None:
    """Skip the test where no engine answers."""
    program = shutil.which("docker")
    answers = bool(program) and (
        subprocess.run([str(program), "info"], capture_output=True, check=False).returncode == 0
    )
    require("docker", answers, "start the Docker engine")


def docker(*arguments: str) -> str:
    """Return what the program `docker` says."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def forget(folder: Path) -> None:
    """Remove from the engine the images that were built by projects under a folder."""
    for built in folder.rglob(".mlship/images/built/*"):
        _, image = json.loads(built.read_bytes())
        for one in image["platforms"]:
            # A test of the same release may hold the same image.
            subprocess.run(["docker", "rmi", one["config"]], capture_output=True, check=False)
