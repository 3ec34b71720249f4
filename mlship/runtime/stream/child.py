"""The process of a model: it answers the values of messages that its worker sends.

The model, its libraries and its hooks run apart from the connection to the brokers, and a model of
a new release is loaded beside the old one.
"""

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from mlship.domain import private
from mlship.domain.bundle import CODE, Bundle
from mlship.domain.stream import Settings
from mlship.errors import IntegrityError, MlshipError, NotFoundError
from mlship.runtime import golden
from mlship.runtime.model import Model
from mlship.runtime.sinks import PrivateSink, Sink, open_sink
from mlship.runtime.stream import link
from mlship.runtime.stream.answering import Answering
from mlship.runtime.stream.formats import Codec, Json
from mlship.runtime.stream.link import Failed, Message, Ready, Start
from mlship.runtime.stream.registry import LOGIN, Registry

_END_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_AGAIN = "run `mlship stream stop`, then `mlship stream run`, which fetches it from the store"


def main(handle: int) -> None:
    """Load what the worker says, and answer until it closes the link.

    Args:
        handle: the file descriptor of the link.
    """
    if sys.platform == "linux":
        # A model that computes for ever ends with its worker, too.
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT):
        # The worker ends this process, when its last transaction is committed.
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(handle, False)  # noqa: FBT003 (positional only)
    with socket.socket(fileno=handle) as connection, contextlib.suppress(ConnectionError):
        start = link.receive(connection)
        if not isinstance(start, Start):
            return
        try:
            answering = _load(start)
        except MlshipError as error:
            link.send(connection, _failed(error))
            return
        link.send(connection, Ready())
        while (asked := link.receive(connection)) is not None:
            answer: Message
            try:
                answer = answering.answer(asked)
            except MlshipError as error:
                answer = _failed(error)
            link.send(connection, answer)


def _failed(error: MlshipError) -> Failed:
    return Failed(type(error).__name__, error.message, error.hint)


def _load(start: Start) -> Answering:
    """Load a bundle and its log.

    Raises:
        MlshipError: the bundle or the log cannot be used.
    """
    side, settings = start.side, start.settings
    folder = Path(side.bundle)
    # As for HTTP: a relative path is that of a file of the bundle.
    code = folder / CODE
    if not folder.is_dir():
        message = f"the bundle of {side.name} is no longer in {folder}"
        raise NotFoundError(message, hint=_AGAIN)
    os.chdir(code if code.is_dir() else folder)
    gc.disable()
    model = Model.load(folder, side.digest)
    failure = golden.difference(model, golden.read(folder))
    if failure:
        message = f"{side.name} does not give its golden examples: {failure}"
        raise IntegrityError(message, hint="compare the installed packages with its requirements")
    codec = _codec(settings, model.bundle, side.name)
    sink: Sink | None = None
    if settings.log:
        sink = open_sink(settings.log, side.slot, _now)
        if settings.columns:
            sink = PrivateSink(sink, settings.columns, os.environ.get(private.KEY, ""))
    gc.freeze()
    gc.enable()
    return Answering(model, codec, side, sink, _now)


def _codec(settings: Settings, bundle: Bundle, release: str) -> Codec:
    """Return what reads and writes the values of a stream.

    Raises:
        ConfigError: a library is missing, or the registry refuses the schema of outputs.
        UnavailableError: the registry does not answer.
    """
    if settings.format == "json":
        return Json(release)
    login = os.environ.get(settings.variables.get(LOGIN, ""), "")
    registry = Registry(settings.registry, login)
    if settings.format == "avro":
        from mlship.runtime.stream.avro import Avro

        return Avro(registry, settings.subject, bundle, release)
    from mlship.runtime.stream.protobuf import Protobuf

    return Protobuf(registry, settings.subject, bundle, release)


def _now() -> datetime:
    return datetime.now(UTC)
