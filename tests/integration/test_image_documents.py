"""SBOM and attachments of real images, in a real registry without the Referrers API."""

import json
import os
import shutil
import subprocess
import uuid
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pip
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from mlship.adapters.checkout import lock
from mlship.adapters.images.registry.referrers import RegistryReferrers
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.domain import bundle as bundles
from mlship.domain.facts import Trained
from mlship.domain.image import Reference, reference
from mlship.domain.referrers import CYCLONEDX, Document
from mlship.domain.sbom import Material, sbom
from tests.fakes.store import tiny_release
from tests.harness.bundles import iris_bundle
from tests.harness.images import BASE, Project, oci_images
from tests.harness.places import Notes
from tests.harness.samples import NOON
from tests.harness.services import require

pytestmark = pytest.mark.service("registry")


@pytest.fixture(autouse=True)
def registry() -> None:
    try:
        is_there = httpx.get("http://localhost:5000/v2/", timeout=5).status_code == 200
    except httpx.HTTPError:
        is_there = False
    require("registry at localhost:5000", is_there, "run a registry there, with library/python")


@pytest.fixture
def repository() -> str:
    return f"localhost:5000/test/{uuid.uuid4().hex}"


def document(number: int) -> Document:
    data = f"document {number}".encode()
    return Document(artifact_type=CYCLONEDX, media_type=CYCLONEDX, data=data)


def attach(image: str, numbers: range) -> None:
    """Attach documents one after the other, as a process of its own."""
    registries = Registries(ImageConfig(), {})
    with closing(registries):
        at = reference(image)
        for number in numbers:
            RegistryReferrers(registries.of(at), at).attach(document(number))


def index_of(image: Reference) -> set[str]:
    """Return what other tools find: the digests in the index of the specification."""
    tag = str(image.digest).replace(":", "-")
    url = f"http://{image.registry}/v2/{image.repository}/manifests/{tag}"
    answer = httpx.get(url, headers={"Accept": "application/vnd.oci.image.index.v1+json"})
    return {entry["digest"] for entry in answer.json()["manifests"]}


def test_100_documents_attached_two_at_a_time_are_all_found(
    repository: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, None, repository=repository)
    pushed = project.images.push(
        project.images.build(project.release, project.bundle, base=None)
    ).reference
    with ProcessPoolExecutor(2) as pool:
        for done in [pool.submit(attach, pushed, part) for part in (range(50), range(50, 100))]:
            done.result()
    image = reference(pushed)
    found = project.images.attached(image, CYCLONEDX)
    assert {each.document.data for each in found} == {document(n).data for n in range(100)}
    assert index_of(image) == {each.digest for each in found}


def pip_list(image: str) -> list[str]:
    """Return the command that lists what is installed in an image, which need not have pip."""
    own = Path(pip.__file__).parent
    code = "import runpy, sys; sys.path.append('/tools'); "
    code += (
        "sys.argv[1:] = ['list', '--format', 'json']; runpy.run_module('pip', run_name='__main__')"
    )
    argv = ["docker", "run", "--rm", "--volume", f"{own}:/tools/pip:ro"]
    return [*argv, "--entrypoint", "python3", image, "-c", code]


@pytest.mark.service("docker")
def test_every_line_of_pip_list_is_in_the_bill_of_materials(
    repository: str, tmp_path: Path
) -> None:
    program = shutil.which("docker")
    answers = bool(program) and (
        subprocess.run([str(program), "info"], capture_output=True, check=False).returncode == 0
    )
    require("docker", answers, "start the Docker engine")
    folder = tmp_path / "bundle"
    iris_bundle(folder)
    pins = lock.closure(["msgspec", "numpy", "onnxruntime"])
    draft = msgspec.structs.replace(bundles.read(folder), requirements=pins, files={})
    release = tiny_release(bundles.seal(folder, draft))
    config = ImageConfig(repository=repository, base=BASE)
    images = oci_images(config, tmp_path / "images", Registries(config, dict(os.environ)), Notes())
    image = images.build(release, folder, base=None)
    pushed = images.push(image).reference
    material = Material(
        image=image,
        installed=images.inventory(image),
        release=release,
        bundle=bundles.read(folder),
        trained=Trained(),
        time=NOON,
    )
    try:
        listed = subprocess.run(pip_list(pushed), capture_output=True, check=True, timeout=120)
    finally:
        subprocess.run(["docker", "rmi", "--force", pushed], capture_output=True, check=True)
    lines = {
        (canonicalize_name(each["name"]), each["version"]) for each in json.loads(listed.stdout)
    }
    text = sbom(material).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = json.loads(text)["components"]
    named = {
        (canonicalize_name(each["name"]), each["version"])
        for each in components
        if each["type"] == "library"
    }
    assert {"numpy", "onnxruntime", "msgspec"} <= {name for name, _ in lines}
    assert lines <= named
