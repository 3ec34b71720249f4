"""A container engine in memory: a small honest stand-in for the port, and a server to ask."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from mlship.domain import digests
from mlship.domain.container import Container, Local, Observed
from mlship.domain.digests import Digest
from mlship.errors import NotFoundError
from tests.fakes.images import FakeImages


class FakeEngine:
    """Pulls what the fake registry has, loads what the fake saved; a container is a few flags."""

    def __init__(self, images: FakeImages) -> None:
        self.images = images
        self.size = 200_000_000
        self.running: dict[str, bool] = {}
        self.made: list[tuple[Digest, str]] = []
        self.crashed: Observed | None = None
        self.stopped = Observed(running=False)

    def runs(self) -> bool:
        return self.running["one"]

    def pull(self, reference: str) -> Local:
        digest = digests.parse(reference.rpartition("@")[2])
        if digest not in self.images.registry:
            raise NotFoundError(f"no {reference}", hint="`mlship push-to-registry`")
        return Local(id=digest, size=self.size)

    def load(self, archive: Path) -> Local:
        return Local(id=digests.parse(archive.read_text()), size=self.size)

    @contextmanager
    def run(self, image: Local, *, memory: str) -> Iterator[Container]:
        self.made.append((image.id, memory))
        self.running["one"] = self.crashed is None
        try:
            yield Container(id="one", endpoint="http://container")
        finally:
            del self.running["one"]

    def observe(self, container: Container) -> Observed:
        if self.running[container.id]:
            return Observed(running=True, lines=("loading the model",))
        return self.crashed or Observed(running=False)

    def stop(self, container: Container, seconds: float) -> Observed:
        self.running[container.id] = False
        return self.stopped


class Served(httpx.BaseTransport):
    """Answers as a container does that serves the fakes' predictions; flags make it misbehave."""

    def __init__(self, engine: FakeEngine, release: str) -> None:
        self.engine = engine
        self.release = release
        self.score = 1.0
        self.is_ready = True
        self.accepts_anything = False
        self.drops_in_flight = False
        self.dies_when_asked = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not self.engine.runs():
            raise httpx.ConnectError("connection refused")
        if request.method == "GET":
            return httpx.Response(200 if self.is_ready else 503)
        if self.dies_when_asked:
            self.engine.running["one"] = False
            raise httpx.RemoteProtocolError("the server disconnected")
        body = request.read()
        if self.drops_in_flight and not self.engine.runs():
            raise httpx.RemoteProtocolError("the server disconnected")
        if not self.accepts_anything and (body in (b'{"', b"") or b"[]" in body):
            return httpx.Response(422)
        answer = [{"id": "1", "species": "setosa", "score": self.score}]
        return httpx.Response(200, json={"release": self.release, "predictions": answer})
