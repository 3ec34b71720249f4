"""Images built by a real engine: extended, proven, pushed, pulled; and its faults named."""

import dataclasses
import gc
import json
import os
import shutil
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from mlship.adapters.checkout import lock
from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.adapters.images.build import layers
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.engine.builds import EngineBuild
from mlship.adapters.images.engine.engine import connect
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig, TargetConfig
from mlship.domain import bundle as bundles
from mlship.domain.image import Image, PlatformImage
from mlship.domain.release import Release
from mlship.errors import ConfigError, ProjectError, UnavailableError
from mlship.steps.container import check_container
from mlship.steps.containerize import containerize
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from tests.fakes.ports import CONFIG, world
from tests.fakes.store import tiny_release
from tests.harness import asking, engine
from tests.harness.base import compiled
from tests.harness.bundles import iris_bundle
from tests.harness.engine import docker
from tests.harness.images import Project, docker_images
from tests.harness.places import Notes
from tests.harness.services import require
from tests.integration.test_container import now, reasons
from tests.unit.test_images_docker import HOSTILE

SYSTEM = "system.Dockerfile"
HELLO = """\
RUN echo 'deb http://deb.debian.org/debian bookworm main' > /etc/apt/sources.list \\
 && apt-get update && apt-get install --yes --no-install-recommends hello \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt
"""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """Require engine and registry; give a repository, and remove what was built and pulled."""
    engine.required()
    try:
        there = asking.get("http://localhost:5000/v2/", timeout=5).status_code == 200
    except httpx.HTTPError:
        there = False
    require("registry at localhost:5000", there, "run a registry there, with library/python")
    name = f"localhost:5000/test/{uuid.uuid4().hex}"
    yield name
    for form in ("{{.Repository}}:{{.Tag}}", "{{.Repository}}@{{.Digest}}"):
        for found in docker("images", "--digests", "--format", form, name).split():
            if "<none>" not in found:
                docker("rmi", found)
    engine.forget(tmp_path)


def project(root: Path, repository: str, text: str) -> tuple[Pipeline, Release, Notes]:
    """Return a pipeline whose images the engine builds, a release of iris, and its notes."""
    iris_bundle(root / "bundle")
    pins = lock.closure(["msgspec", "numpy", "onnxruntime"])
    draft = msgspec.structs.replace(bundles.read(root / "bundle"), requirements=pins, files={})
    release = tiny_release(bundles.seal(root / "bundle", draft))
    (root / SYSTEM).write_text(text)
    image = ImageConfig(
        repository=repository, base=compiled(), builder="docker", extend=SYSTEM, source=HOSTILE
    )
    targets = {"staging": TargetConfig(ready_seconds=60)}
    config = msgspec.structs.replace(CONFIG, image=image, targets=targets)
    registries, notes = Registries(image, dict(os.environ)), Notes()
    images = docker_images(image, root, registries, notes, EngineBuild(os.environ, notes))
    pipeline = dataclasses.replace(
        world(root, config).pipeline,
        predictor=ChildPredictor(),
        clock=now,
        images=lambda: images,
        engine=lambda: connect(os.environ, now),
    )
    shutil.copytree(root / "bundle", pipeline.bundle_folder(release.bundle))
    return pipeline, release, notes


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_an_image_with_a_system_package_is_built_once_proven_pushed_and_pulled(
    repository: str, tmp_path: Path
) -> None:
    pipeline, release, notes = project(tmp_path, repository, HELLO)
    made = containerize(pipeline, release)
    assert made.evidence.facts["builder"] == "docker"
    assert any(line.startswith("Step 2/") and "hello" in line for line in notes.lines)
    notes.lines.clear()
    assert containerize(pipeline, release) == made
    assert not [line for line in notes.lines if line.startswith("Step ")]
    loaded = check_container(pipeline, release).evidence
    reference = push(pipeline, release).evidence.facts["reference"]
    docker("rmi", "--force", made.evidence.facts["platforms"][0]["config"])
    pulled = check_container(pipeline, release).evidence
    for found in (loaded, pulled):
        assert found.verdict == "passed", reasons(found)
        assert found.facts["reference"] == reference
    assert reference.endswith(made.evidence.facts["digest"])
    said = docker("run", "--rm", "--entrypoint", "hello", reference)
    assert said == "Hello, world!"
    labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", reference))
    assert labels["org.opencontainers.image.source"] == HOSTILE
    assert not [line for line in notes.lines if line.startswith("Step ")], "built once"


def files(layout: Layout, one: PlatformImage) -> set[tuple[str, int, int, int, bytes]]:
    """Return the files above the base: name, mode, owner, time and bytes of each."""
    found = set()
    for layer in one.layers:
        if layer.role != "base":
            with tarfile.open(layout.path(layer.digest)) as archive:
                for info in archive:
                    data = archive.extractfile(info)
                    if data is not None:
                        kept = (info.mode & 0o7777, info.uid, int(info.mtime), data.read())
                        found.add((info.name, *kept))
    return found


def built(of: Project) -> Image:
    return of.images.build(of.release, of.bundle, base=None)


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_docker_puts_the_same_files_into_an_image_as_mlship(
    repository: str, tmp_path: Path
) -> None:
    build = EngineBuild(os.environ, Notes())
    one = Project(tmp_path / "docker", None, build, repository=repository)
    two = Project(tmp_path / "oci", None, repository=repository)
    by_docker = files(Layout(one.folder / ".mlship/images"), built(one).platforms[0])
    by_mlship = files(Layout(two.folder / "images"), built(two).platforms[0])
    assert by_docker == by_mlship
    assert len(by_docker) > 10


@pytest.mark.service("docker")
@pytest.mark.service("registry")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("RUN echo first && echo why it fails && exit 3\n", "code: 3; last lines of the build:"),
        ("INSTALL gcc\n", "unknown instruction"),
    ],
)
def test_an_instruction_that_fails_is_told_with_its_last_lines(
    repository: str, tmp_path: Path, text: str, told: str
) -> None:
    pipeline, release, _ = project(tmp_path, repository, text)
    with pytest.raises(ProjectError) as caught:
        containerize(pipeline, release)
    assert told.lower() in caught.value.message.lower()
    if "exit" in text:
        assert caught.value.message.endswith("first\nwhy it fails")
    assert "image.extend" in caught.value.hint
    assert not list(pipeline.ledger.records())


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_an_extension_cannot_leave_the_base(repository: str, tmp_path: Path) -> None:
    pipeline, release, _ = project(tmp_path, repository, "FROM scratch\nENV X=1\n")
    with pytest.raises(ConfigError, match=r"not based on image\.base"):
        containerize(pipeline, release)


# The package leaves the socket that it could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_engine_and_no_package_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"unix://{tmp_path}/docker.sock"
    build = EngineBuild({"DOCKER_HOST": address}, Notes())
    with pytest.raises(UnavailableError, match=address) as caught:
        build(tmp_path, "linux/amd64", tmp_path / "image.tar")
    assert "DOCKER_HOST" in caught.value.hint
    del caught
    gc.collect()
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(ConfigError, match="package docker is not installed") as missing:
        build(tmp_path, "linux/amd64", tmp_path / "image.tar")
    assert "[docker]" in missing.value.hint


def test_a_layer_of_docker_is_packed_the_same_each_time(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        (tmp_path / "layer.tar").write_bytes(bytes(range(256)) * 5000)
        folder = tmp_path / str(number)
        folder.mkdir()
        with (tmp_path / "layer.tar").open("rb") as file:
            made.append(layers.pack(file, folder, compressed=True))
    assert made[0] == made[1]
