"""Pushes through trouble: what arrives is whole, and a tag names nothing that is incomplete."""

import email.utils
import json
import random
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from mlship.adapters.images.registry.registries import Registries
from mlship.domain.image import Image
from mlship.errors import UnavailableError
from tests.fakes.registry import FakeRegistry
from tests.fakes.timing import patient
from tests.harness.images import Project, base_image, oci_images
from tests.harness.kills import Killed

PUSHES, POINTS = 20, 20
ANSWERS = ("429 seconds", "429 date", "500", "502", "503")
KINDS = (*ANSWERS, "reset", "cut", "lost", "truncated")


class Storm:
    """A registry of which a share of the requests meets trouble by chance.

    `reset` comes before the registry has the request, `cut` when it has half of the body, and
    `lost` after it has acted on it.
    """

    def __init__(self, fake: FakeRegistry, seed: int, share: float = 0.3) -> None:
        self._fake, self._share = fake, share
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.met: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            kind = self._random.choice(KINDS) if self._random.random() < self._share else ""
            self.met.add(kind)
            return self._answer(kind, request)

    def _answer(self, kind: str, request: httpx.Request) -> httpx.Response:
        if kind in ANSWERS:
            until = email.utils.formatdate(time.time() + 2, usegmt=True)
            after = {"429 seconds": {"Retry-After": "1"}, "429 date": {"Retry-After": until}}
            return httpx.Response(int(kind[:3]), headers=after.get(kind, {}), text="<html>")
        if kind == "cut":
            upload = self._fake.uploads.get(request.url.path.rpartition("/")[2])
            if upload is not None:
                body = request.read()
                upload.extend(body[: len(body) // 2])
        if kind in ("cut", "reset"):
            raise httpx.WriteError("the peer closed the connection", request=request)
        response = self._fake(request)
        if kind == "":
            return response
        if kind == "lost" or request.method == "HEAD":
            raise httpx.ReadError("the peer closed the connection", request=request)
        return httpx.Response(
            response.status_code, headers=response.headers, content=_truncated(response)
        )


def _truncated(response: httpx.Response) -> Iterator[bytes]:
    data = b"".join(response.iter_raw()) if not response.is_closed else response.content
    yield data[: len(data) // 2]
    raise httpx.RemoteProtocolError("the peer closed the connection in the middle of the body")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Image, FakeRegistry]:
    """Give an image on this machine, whose base is in a registry."""
    fake = FakeRegistry()
    base_image(fake)
    made = Project(tmp_path_factory.mktemp("storm"), fake)
    return made, made.images.build(made.release, made.bundle, base=None), fake


def push(
    made: tuple[Project, Image, FakeRegistry], fake: FakeRegistry, transport: httpx.MockTransport
) -> str:
    project, image, origin = made
    fake.blobs.setdefault("library/python", origin.blobs["library/python"])
    registries = Registries(project.config, {}, transport=transport, timing=patient([]))
    images = oci_images(project.config, project.folder / "images", registries, project.notes)
    return images.push(image).digest


def incomplete(fake: FakeRegistry) -> list[str]:
    """Return the names of manifests of which a part is missing."""
    blobs, manifests = fake.blobs.get("iris", {}), fake.manifests.get("iris", {})
    wrong = []
    for name, (data, _) in manifests.items():
        document = json.loads(data)
        parts = [document["config"], *document["layers"]]
        wrong += [name] if any(part["digest"] not in blobs for part in parts) else []
    return wrong


@pytest.mark.slow
def test_each_push_arrives_whole_though_three_requests_in_ten_fail(
    project: tuple[Project, Image, FakeRegistry],
) -> None:
    met: set[str] = set()
    for seed in range(PUSHES):
        fake = FakeRegistry()
        storm = Storm(fake, seed)
        assert push(project, fake, httpx.MockTransport(storm)) == project[1].digest
        assert project[1].tag in fake.manifests["iris"]
        assert not incomplete(fake)
        met |= storm.met
    assert met == {"", *KINDS}


def test_a_registry_that_fails_always_is_given_up(
    project: tuple[Project, Image, FakeRegistry],
) -> None:
    """The control: without a request that succeeds, nothing arrives."""
    fake = FakeRegistry()
    with pytest.raises(UnavailableError):
        push(project, fake, httpx.MockTransport(Storm(fake, 1, share=1.0)))
    assert not fake.manifests.get("iris")


class Deadly:
    """A registry at whose given request the process that pushes ends: nothing follows."""

    def __init__(self, fake: FakeRegistry, point: int) -> None:
        self._fake, self._point = fake, point
        self._lock = threading.Lock()
        self.count = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.count += 1
            if self.count > self._point:
                raise Killed
            response = self._fake(request)
            if self.count == self._point:
                raise Killed
            return response


@pytest.mark.slow
def test_a_push_that_is_killed_leaves_no_tag_on_an_incomplete_image(
    project: tuple[Project, Image, FakeRegistry],
) -> None:
    whole = Deadly(FakeRegistry(), 10_000)
    push(project, whole._fake, httpx.MockTransport(whole))
    points = sorted({1 + number * whole.count // POINTS for number in range(POINTS)})
    assert len(points) >= POINTS
    for point in points:
        fake = FakeRegistry()
        deadly = Deadly(fake, point)
        with pytest.raises(Killed):
            push(project, fake, httpx.MockTransport(deadly))
        assert not incomplete(fake), point
        assert push(project, fake, fake.transport) == project[1].digest
        assert not incomplete(fake)
