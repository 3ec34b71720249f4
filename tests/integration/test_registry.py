"""Images against a real registry and a real engine: pushed, pulled, run, refused, interrupted."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from mlship.adapters.checkout import lock
from mlship.adapters.images.local import LocalImages
from mlship.adapters.images.registry.registries import Registries
from mlship.adapters.images.registry.removal import RegistryImages
from mlship.config.project import ImageConfig
from mlship.domain import bundle as bundles
from mlship.domain.image import Image, Reference, reference
from mlship.domain.release import Release
from mlship.errors import UnavailableError
from tests.fakes.store import tiny_release
from tests.harness import asking
from tests.harness.bundles import SETOSA, iris_bundle
from tests.harness.images import BASE, Project, Wheels, a_release, oci_images
from tests.harness.places import Notes
from tests.harness.services import require
from tests.stand_ins.private_registry import private_registry

pytestmark = pytest.mark.service("registry")


@pytest.fixture(autouse=True)
def registry() -> None:
    try:
        is_there = asking.get("http://localhost:5000/v2/", timeout=5).status_code == 200
    except httpx.HTTPError:
        is_there = False
    require("registry at localhost:5000", is_there, "run a registry there, with library/python")


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def engine() -> None:
    program = shutil.which("docker")
    answers = bool(program) and (
        subprocess.run([str(program), "info"], capture_output=True, check=False).returncode == 0
    )
    require("docker", answers, "start the Docker engine")


@pytest.fixture
def repository() -> str:
    return f"localhost:5000/test/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Path]:
    """Give a release of a bundle that serves iris, with all that it needs pinned."""
    folder = tmp_path_factory.mktemp("iris") / "bundle"
    iris_bundle(folder)
    draft = bundles.read(folder)
    pins = lock.closure(["msgspec", "numpy", "onnxruntime"])
    digest = bundles.seal(folder, msgspec.structs.replace(draft, requirements=pins, files={}))
    return tiny_release(digest), folder


def images_of(folder: Path, repository: str, base: str = BASE) -> LocalImages:
    config = ImageConfig(repository=repository, base=base)
    return oci_images(config, folder, Registries(config, dict(os.environ)), Notes())


@contextmanager
def running(image: str) -> Iterator[tuple[str, str]]:
    """Run an image as strictly as a cluster would; give the container and its address."""
    started = time.monotonic()
    name = docker(
        *("run", "--detach", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),  # noqa: S108
        *("--security-opt", "no-new-privileges", "--memory", "512m"),
        *("--publish", "127.0.0.1::8080", image),
    )
    try:
        port = docker("port", name, "8080").splitlines()[0].rpartition(":")[2]
        url = f"http://127.0.0.1:{port}"
        while not is_ready(url):
            assert time.monotonic() - started < 20, docker("logs", name)
            time.sleep(0.02)
        yield name, url
    finally:
        docker("rm", "--force", name)


def is_ready(url: str) -> bool:
    try:
        return asking.get(f"{url}/v2/health/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.service("docker")
def test_an_image_runs_read_only_as_nobody_and_drains(
    engine: None, iris: tuple[Release, Path], repository: str, tmp_path: Path
) -> None:
    images = images_of(tmp_path, repository)
    image = images.build(*iris, base=None)
    pushed = images.push(image)
    docker("pull", "--quiet", pushed.reference)
    try:
        told = json.loads(docker("inspect", pushed.reference))[0]
        assert told["Id"] == image.platforms[0].config
        assert told["Size"] <= 250_000_000
        with running(pushed.reference) as (name, url):
            answer = asking.post(f"{url}/predict", json=SETOSA).json()
            assert answer["release"] == str(iris[0])
            assert answer["predictions"][0]["species"] == "setosa"
            assert "uid=65532" in docker("exec", name, "id")
            docker("stop", "--time", "10", name)
            assert docker("inspect", name, "--format", "{{.State.ExitCode}}") == "0"
    finally:
        docker("rmi", "--force", pushed.reference)


@pytest.mark.service("docker")
def test_a_tarball_is_loaded_under_the_digest_of_its_configuration(
    engine: None, repository: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, None, repository=repository)
    image = project.images.build(project.release, project.bundle, base=None)
    project.images.save(image, tmp_path / "image.tar")
    name = f"{repository}:{image.tag}"
    assert name in docker("load", "--input", str(tmp_path / "image.tar"))
    try:
        assert docker("inspect", name, "--format", "{{.Id}}") == image.platforms[0].config
    finally:
        docker("rmi", "--force", name)


def test_a_clean_machine_sends_only_the_new_model(repository: str, tmp_path: Path) -> None:
    first = Project(tmp_path / "first", None, repository=repository)
    sent = first.images.push(first.images.build(first.release, first.bundle, base=None))
    assert sent.mounted == 1, "the base comes from library/python of the same registry"
    clean = Project(tmp_path / "clean", None, repository=repository)
    release, folder = clean.another("another model")
    pushed = clean.images.push(clean.images.build(release, folder, base=None))
    assert clean.wheels.fetched == []
    assert 0 < pushed.sent < 30_000
    stored = pulled(pushed.reference)
    assert stored == pushed.digest


def pulled(name: str) -> str | None:
    """Return the digest of an image's manifest, once each of its blobs was read and checked."""
    where = reference(name)
    registries = Registries(ImageConfig(), {})
    with closing(registries):
        registry = registries.of(where)
        stored = registry.manifest(where)
        assert stored is not None
        manifest = json.loads(stored.data)
        for blob in (manifest["config"], *manifest["layers"]):
            data = registry.small_blob(where.repository, blob["digest"])
            assert len(data) == blob["size"]
    return stored.digest


class Cutting:
    """A way to the registry that breaks off after so many bytes, once for each number."""

    def __init__(self, limits: list[int]) -> None:
        self.limits = limits
        self.broken = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", 5000))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, counted: bool) -> None:
        passed = 0
        try:
            while data := one.recv(65536):
                passed += len(data)
                if counted and self.limits and passed > self.limits[0]:
                    self.limits.pop(0)
                    self.broken += 1
                    break
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        one.close()


def test_a_push_over_a_line_that_breaks_arrives_whole(tmp_path: Path) -> None:
    way = Cutting([300_000, 700_000])
    try:
        base = f"{way.host}/library/python:3.11-slim"
        name = f"{way.host}/test/{uuid.uuid4().hex}"
        project = Project(tmp_path, None, repository=name, base=base)
        image = project.images.build(project.release, project.bundle, base=None)
        pushed = project.images.push(image)
        assert way.broken == 2
        assert pulled(pushed.reference) == image.digest
    finally:
        way.close()


def private(folder: Path, host: str, password: str) -> tuple[LocalImages, Image]:
    config = ImageConfig(repository=f"{host}/iris", base=BASE)
    environment = {"MLSHIP_REGISTRY_USER": "ada", "MLSHIP_REGISTRY_PASSWORD": password}
    registries = Registries(config, environment if password else {})
    images = oci_images(config, folder / "images", registries, Notes(), Wheels())
    release, bundle = a_release(folder / "bundle")
    return images, images.build(release, bundle, base=None)


def test_a_private_registry_takes_who_may_and_tells_who_may_not(tmp_path: Path) -> None:
    with private_registry(tmp_path) as host:
        for number, password in enumerate(("", "wrong")):
            denied = rf"{host} denied the .* iris"
            with pytest.raises(UnavailableError, match=denied) as caught:
                private(tmp_path / str(number), host, password)
            assert f"docker login {host}" in caught.value.hint
        images, image = private(tmp_path / "right", host, "secret")
        pushed = images.push(image)
        # The base's layer came from another registry, past this machine's disk.
        assert (pushed.digest, pushed.mounted) == (image.digest, 0)
        base = [layer for layer in image.platforms[0].layers if layer.role == "base"]
        blobs = tmp_path / "right" / "images" / "blobs" / "sha256"
        assert not (blobs / base[0].digest.removeprefix("sha256:")).exists()


def test_a_registry_that_is_down_is_named_and_a_rerun_succeeds(
    repository: str, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
    project = Project(tmp_path, None, repository=f"{nobody}/iris")
    with pytest.raises(UnavailableError, match=f"registry {nobody} does not answer"):
        project.images.build(project.release, project.bundle, base=None)
    again = Project(tmp_path / "again", None, repository=repository)
    image = again.images.build(again.release, again.bundle, base=None)
    assert again.images.push(image).digest == image.digest


def test_a_reference_that_was_pushed_is_by_digest(repository: str, tmp_path: Path) -> None:
    project = Project(tmp_path, None, repository=repository)
    image = project.images.build(project.release, project.bundle, base=None)
    found = reference(project.images.push(image).reference)
    assert found == Reference(
        registry="localhost:5000",
        repository=repository.partition("/")[2],
        digest=image.digest,
    )


def test_an_image_is_removed_and_the_others_of_its_repository_stay(
    repository: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, None, repository=repository)
    built = []
    for text in ("one", "two"):
        release, bundle = project.another(text)
        built.append(project.images.build(release, bundle, base=None))
        project.images.push(built[-1])
    with closing(Registries(ImageConfig(repository=repository), {})) as registries:
        place = RegistryImages(registries)
        place.remove(built[0].digest, [built[0].tag])
        place.remove(built[0].digest, [built[0].tag])
        assert [place.find(image.digest) is None for image in built] == [True, False]
        assert [image.tag in place.tags() for image in built] == [False, True]
