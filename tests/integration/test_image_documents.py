"""SBOM and attachments of real images, in a real registry without the Referrers API."""

import base64
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable
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
from mlship.config.attested import keys as attested_keys
from mlship.config.project import ImageConfig
from mlship.domain import attestation, provenance, release_statement, verification
from mlship.domain import bundle as bundles
from mlship.domain.facts import Trained
from mlship.domain.image import Reference, reference
from mlship.domain.public_keys import pem
from mlship.domain.referrers import CYCLONEDX, Damaged, Document, Referrer
from mlship.domain.sbom import Material, sbom
from mlship.domain.signatures import Signatures
from mlship.domain.verification import Wanted
from tests.fakes.store import tiny_release
from tests.harness import asking
from tests.harness.bundles import iris_bundle
from tests.harness.images import BASE, Project, oci_images
from tests.harness.places import Notes
from tests.harness.samples import NOON
from tests.harness.services import installed, require
from tests.harness.signing import key, verified

pytestmark = pytest.mark.service("registry")


@pytest.fixture(autouse=True)
def registry() -> None:
    try:
        is_there = asking.get("http://localhost:5000/v2/", timeout=5).status_code == 200
    except httpx.HTTPError:
        is_there = False
    require("registry at localhost:5000", is_there, "run a registry there, with library/python")


@pytest.fixture
def repository() -> str:
    return f"localhost:5000/test/{uuid.uuid4().hex}"


def readable(found: Iterable[Referrer | Damaged]) -> list[Referrer]:
    return [each for each in found if isinstance(each, Referrer)]


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
    answer = asking.get(url, headers={"Accept": "application/vnd.oci.image.index.v1+json"})
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
    found = readable(project.images.attached(image, CYCLONEDX))
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


KINDS = {
    "cyclonedx": attestation.SBOM,
    "slsaprovenance1": provenance.PREDICATE_TYPE,
    release_statement.KIND: release_statement.KIND,
}
"""The types of statements by the names that cosign has for them."""


def cosign(*arguments: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run cosign, which reaches loopback alone: what it verifies is in no public log."""
    program = installed("cosign")
    hint = "go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3"
    require("cosign", program is not None, hint)
    assert program
    variables = {
        "HOME": str(home),
        "COSIGN_PASSWORD": "",
        "HTTPS_PROXY": "http://localhost:9",
        "PATH": os.environ["PATH"],
    }
    return subprocess.run(
        [program, *arguments],
        env=variables,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_cosign_verifies_what_is_attested_and_refuses_another_key(
    repository: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", None, repository=repository)
    built = project.images.build(project.release, project.bundle, base=None)
    image = reference(project.images.push(built).reference)
    assert image.digest
    ours, other = key(), key()
    for kind in KINDS.values():
        said = attestation.statement(image.name, image.digest, kind, {"kind": kind})
        notes = {attestation.CONTENT: "dsse-envelope", attestation.PREDICATE: kind}
        bundle = Document(
            artifact_type=attestation.BUNDLE,
            media_type=attestation.BUNDLE,
            data=attestation.seal(said, ours),
            annotations=notes,
        )
        project.images.attach(image, bundle)
    for name, signer in {"ours": ours, "other": other}.items():
        (tmp_path / f"{name}.pub").write_text(pem(signer.public))
    for name, kind in KINDS.items():
        ask = ("verify-attestation", "--insecure-ignore-tlog=true", "--type", name, str(image))
        found = cosign(*ask, "--key", "ours.pub", home=tmp_path)
        assert found.returncode == 0, found.stderr
        (line,) = found.stdout.splitlines()
        assert json.loads(base64.b64decode(json.loads(line)["payload"]))["predicateType"] == kind
        assert cosign(*ask, "--key", "other.pub", home=tmp_path).returncode != 0


def test_what_cosign_attests_is_verified(repository: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", None, repository=repository)
    built = project.images.build(project.release, project.bundle, base=None)
    image = reference(project.images.push(built).reference)
    assert image.digest
    kind = "https://cosign.sigstore.dev/attestation/vuln/v1"
    (tmp_path / "found.json").write_text('{"scanner": {"uri": "trivy"}}')
    services = cosign("signing-config", "create", home=tmp_path)
    (tmp_path / "services.json").write_text(services.stdout)
    assert cosign("generate-key-pair", home=tmp_path).returncode == 0
    attested = cosign(
        *("attest", "--key", "cosign.key", "--type", "vuln", "--predicate", "found.json"),
        *("--signing-config", "services.json", str(image)),
        home=tmp_path,
    )
    assert attested.returncode == 0, attested.stderr
    (tmp_path / "other.pub").write_text(pem(key().public))
    for name, expected in {"cosign.pub": True, "other.pub": False}.items():
        keys = attested_keys({kind: name}, tmp_path)
        found = [
            attestation.read(each.document.data)
            for each in readable(project.images.attached(image, attestation.BUNDLE))
        ]
        wanted = Wanted(image=image.digest, project="iris", home="", attested=keys)
        by = Signatures(verify=verified)
        checks = verification.verify(found, (), wanted, by).decision.checks
        assert {check.name: check.holds for check in checks}[kind] is expected
