"""Images in a real engine: proven, refused with the reason, and nothing left behind."""

import dataclasses
import gc
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from mlship.adapters.checkout import lock
from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.adapters.images.engine import engine as engines
from mlship.adapters.images.engine.engine import connect
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig, TargetConfig
from mlship.domain import bundle as bundles
from mlship.domain.container import Observed
from mlship.domain.evidence import Evidence
from mlship.domain.release import Release
from mlship.errors import ConfigError, NotFoundError, UnavailableError
from mlship.steps import replay
from mlship.steps.container import check_container
from mlship.steps.containerize import containerize
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from tests.fakes.ports import CONFIG, world
from tests.fakes.store import tiny_release
from tests.harness import asking
from tests.harness.base import compiled
from tests.harness.bundles import iris_bundle
from tests.harness.images import BASE, oci_images
from tests.harness.places import Notes
from tests.harness.services import require


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Require registry and engine; give a label of this test's own, and look that all is gone."""
    try:
        there = asking.get("http://localhost:5000/v2/", timeout=5).status_code == 200
    except httpx.HTTPError:
        there = False
    require("registry at localhost:5000", there, "run a registry there, with library/python")
    program = shutil.which("docker")
    answers = bool(program) and (
        subprocess.run([str(program), "info"], capture_output=True, check=False).returncode == 0
    )
    require("docker", answers, "start the Docker engine")
    label = f"mlship.dev/test-{uuid.uuid4().hex}"
    monkeypatch.setattr(engines, "LABEL", label)
    yield label
    # By their names here: another test may hold the same image under another name.
    for form in ("{{.Repository}}:{{.Tag}}", "{{.Repository}}@{{.Digest}}"):
        for name in docker("images", "--digests", "--format", form, repository(label)):
            if "<none>" not in name:
                docker("rmi", name)
    assert not left(label)


def docker(*arguments: str) -> list[str]:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def left(label: str) -> list[str]:
    return docker("ps", "--all", "--quiet", "--filter", f"label={label}")


def repository(label: str) -> str:
    return f"localhost:5000/test/{label.rpartition('-')[2]}"


def now() -> datetime:
    return datetime.now(UTC)


def project(
    root: Path, label: str, *, golden_error: float = 0.0, memory: str = "512m"
) -> tuple[Pipeline, Release]:
    """Return a pipeline of a real engine, real images and a bundle of iris, and its release."""
    folder = root / "bundle"
    iris_bundle(folder, golden_error=golden_error)
    pins = lock.closure(["msgspec", "numpy", "onnxruntime"])
    draft = msgspec.structs.replace(bundles.read(folder), requirements=pins, files={})
    release = tiny_release(bundles.seal(folder, draft))
    settings = ImageConfig(repository=repository(label), base=compiled(), memory=memory)
    config = msgspec.structs.replace(
        CONFIG, image=settings, targets={"staging": TargetConfig(ready_seconds=60)}
    )
    registries = Registries(settings, dict(os.environ))
    # One machine's images, as releases of one project share them: packages are fetched once.
    images = oci_images(settings, root.parent / "images", registries, Notes())
    pipeline = dataclasses.replace(
        world(root, config).pipeline,
        predictor=ChildPredictor(),
        clock=now,
        images=lambda: images,
        engine=lambda: connect(os.environ, now),
    )
    shutil.copytree(folder, pipeline.bundle_folder(release.bundle))
    return pipeline, release


def reasons(evidence: Evidence) -> str:
    return "\n".join(check["text"] for check in evidence.facts["checks"])


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_an_image_is_proven_from_the_registry_and_from_a_file(
    services: str, tmp_path: Path
) -> None:
    pipeline, release = project(tmp_path, services)
    containerize(pipeline, release)
    loaded = check_container(pipeline, release).evidence
    pushed = push(pipeline, release).evidence.facts["reference"]
    pulled = check_container(pipeline, release).evidence
    for found in (loaded, pulled):
        assert found.verdict == "passed", reasons(found)
        assert found.facts["reference"] == pushed
        assert found.facts["requests"] == 5
        assert found.facts["size"] <= 250_000_000


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_too_little_memory_is_the_reason(services: str, tmp_path: Path) -> None:
    pipeline, release = project(tmp_path, services, memory="24m")
    containerize(pipeline, release)
    found = check_container(pipeline, release).evidence
    assert found.verdict == "failed"
    assert "out of memory" in reasons(found)


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_a_model_that_answers_otherwise_here_is_never_ready(services: str, tmp_path: Path) -> None:
    pipeline, release = project(tmp_path, services, golden_error=0.5)
    quick = {"staging": TargetConfig(ready_seconds=12)}
    config = msgspec.structs.replace(pipeline.config, targets=quick)
    pipeline = dataclasses.replace(pipeline, config=config)
    containerize(pipeline, release)
    found = check_container(pipeline, release).evidence
    assert found.verdict == "failed"
    assert "not ready after 12 s; last output:" in reasons(found)
    assert "golden" in reasons(found)


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_a_container_has_no_rights_and_what_a_killed_run_left_is_swept(services: str) -> None:
    with connect(os.environ, now) as engine:
        image = engine.pull(BASE)
        with engine.run(image, memory="64m") as container:
            told = docker("inspect", "--format", "{{json .HostConfig}}", container.id)
            host = msgspec.json.decode(" ".join(told))
            assert host["ReadonlyRootfs"]
            assert host["CapDrop"] == ["ALL"]
            assert host["SecurityOpt"] == ["no-new-privileges"]
            assert host["Memory"] == host["MemorySwap"] == 64 << 20
            with connect(os.environ, lambda: now() + timedelta(minutes=50)):
                assert left(services), "swept while it may still be in use"
            with connect(os.environ, lambda: now() + timedelta(hours=2)):
                assert not left(services)


SERVER = """
import http.server, os, signal, threading

class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET

server = http.server.ThreadingHTTPServer(("", 8080), Answering)
server.daemon_threads = False
signal.signal(signal.SIGTERM, lambda *_: STOP)
server.serve_forever()
server.server_close()
"""
DRAINS = "threading.Thread(target=server.shutdown).start()"


@pytest.mark.service("docker")
@pytest.mark.service("registry")
@pytest.mark.parametrize(("stop", "status"), [(DRAINS, 200), ("os._exit(0)", 0)])
def test_a_server_that_drops_what_it_has_begun_is_found_out(
    services: str, tmp_path: Path, stop: str, status: int
) -> None:
    (tmp_path / "server.py").write_text(SERVER.replace("STOP", stop))
    (tmp_path / "Dockerfile").write_text(
        f'FROM {BASE}\nCOPY server.py /server.py\nENTRYPOINT ["python3", "/server.py"]\n'
    )
    name = f"mlship-test-{uuid.uuid4().hex}:1"
    docker("build", "--quiet", "--tag", name, str(tmp_path))
    ended: list[Future[Observed]] = []
    try:
        with connect(os.environ, now) as engine:
            image = engine.pull(name)
            with engine.run(image, memory="64m") as container, ThreadPoolExecutor(1) as pool:
                while not replay.is_ready(container.endpoint):
                    assert engine.observe(container).running
                got = replay.in_flight(
                    container.endpoint,
                    {"x": 1.5},
                    lambda: ended.append(pool.submit(engine.stop, container, 5)),
                )
    finally:
        docker("rmi", "--force", name)
    assert got == status
    assert ended[0].result().exit_code == 0


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_a_container_is_removed_when_what_asks_it_fails(services: str) -> None:
    with connect(os.environ, now) as engine:
        image = engine.pull(BASE)

        def interrupted() -> None:
            with engine.run(image, memory="64m"):
                assert left(services)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()


@pytest.mark.service("docker")
@pytest.mark.service("registry")
def test_an_image_that_nobody_has_is_named(services: str) -> None:
    name = f"localhost:5000/test/{uuid.uuid4().hex}@sha256:{'0' * 64}"
    with connect(os.environ, now) as engine, pytest.raises(NotFoundError, match=name) as caught:
        engine.pull(name)
    assert "push-to-registry" in caught.value.hint


# The package leaves the socket that it could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_engine_names_the_socket_and_what_to_do(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/docker.sock"
    begun = time.monotonic()
    with (
        pytest.raises(UnavailableError, match=address) as caught,
        connect({"DOCKER_HOST": address}, now),
    ):
        pass
    assert "DOCKER_HOST" in caught.value.hint
    assert "No such file" in caught.value.message
    assert time.monotonic() - begun < 5
    del caught
    gc.collect()


def test_an_engine_of_another_machine_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="is not on this machine"),
        connect({"DOCKER_HOST": "tcp://docker.example:2376"}, now),
    ):
        pass
