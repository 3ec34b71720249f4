"""A Service in process, and calls to it."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlship.domain.digests import Digest
from mlship.domain.predicted import Batch
from mlship.domain.prediction import Prediction
from mlship.errors import UnavailableError
from mlship.runtime.groups import Written
from mlship.runtime.http import Request, Response
from mlship.runtime.model import Model
from mlship.runtime.options import Identity
from mlship.runtime.service import Service

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
RELEASE = Digest("sha256:" + "ab" * 32)
VERSION = "abababababab"
FRESH = "00000000-0000-4000-8000-000000000000"

Call = Callable[..., Response]


class Memory:
    """Keeps predictions in a list; fails where it is told to."""

    def __init__(self) -> None:
        self.kept: list[Prediction] = []
        self.is_full = False

    def append(self, predictions: Batch) -> Written:
        written: Written = Future()
        if self.is_full:
            written.set_exception(UnavailableError("the disk is full", hint="make room"))
        else:
            self.kept.extend(predictions)
            written.set_result(None)
        return written


def service_of(folder: Path, memory: Memory) -> Service:
    """Return the service of a bundle, which is not ready yet."""
    model = Model.load(folder, None)
    name = f"{model.bundle.name}@{VERSION}"
    identity = Identity(release=RELEASE, name=name, slot=f"r{VERSION}")
    return Service(model, identity, memory, clock=lambda: NOON, new_id=lambda: FRESH)


def caller(service: Service) -> Call:
    """Return a function that sends a method, a path, a body and headers, and returns the response.

    A body that is not bytes is sent as JSON; underscores in header names become hyphens.
    """

    def call(method: str, path: str, body: Any = b"", **headers: str) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return service.handle(Request(method=method, path=path, headers=named, body=data))

    return call


def error_of(response: Response) -> dict[str, str]:
    """Return the fault of a response; of V1 and V2 it is a text, with field and hint beside it."""
    body = json.loads(response.body)
    error: Any = body["error"]
    return {**body, "message": error} if isinstance(error, str) else {**error}
