"""Conversions, and trials of what they give, in a process of their own with a deadline.

A converter may loop for ever: skl2onnx does on a threshold of infinity. onnxruntime may end its
process: it does for neighbours of a huge number. The process is a fork, so the model needs no form
in which it could be handed over.
"""

import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable
from io import FileIO
from typing import Final, Generic, Self, TypeVar, cast

from threadpoolctl import threadpool_limits

from mlship.domain.bundle import Dtype, Layout
from mlship.training.forms import onnxfile
from mlship.training.frameworks import catboostfile
from mlship.training.original import Original

Result = TypeVar("Result")

SECONDS: Final = 60.0
_PROGRESS_SECONDS: Final = 10.0


def onnx_of(original: Original, layout: Layout, dtype: Dtype) -> bytes:
    """Return a model as ONNX; call it in a fork, because it may never end.

    Raises:
        NoConverterError: a part of it has no converter.
        NotConvertedError: the converter failed; another layout or type may do.
    """
    estimator = original.estimator
    if catboostfile.is_catboost(estimator):
        return catboostfile.to_onnx(estimator)
    return onnxfile.from_estimator(original, layout, dtype)


class Child(Generic[Result]):
    """What a function returns in a fork, which may crash or never end, while this process goes on.

    Used as a context, it ends the fork if nobody waited for it.
    """

    def __init__(self, call: Callable[[], Result], name: str) -> None:
        """Start the fork.

        Args:
            call: returns what can be pickled.
            name: what it does, for people.
        """
        self._call, self._name = call, name
        self._process: int | None = None
        self._pipe: FileIO | None = None
        # A fork of a process that has loaded such libraries is not safe on other systems.
        if sys.platform == "linux":
            self._process, self._pipe = _forked(call)

    def result(self) -> Result:
        """Wait for the result, which can be asked for once; the deadline counts from here.

        Raises:
            NoConverterError: it did not end in time, or raised this.
            NotConvertedError: it raised, or ended its process.
        """
        if self._process is None or self._pipe is None:
            return self._call()
        with self._pipe as pipe:
            data = _read(pipe.fileno(), self._process, self._name)
        _, status = os.waitpid(self._process, 0)
        self._process = None
        if data is None:
            message = f"{self._name} did not end within {SECONDS:g} seconds"
            raise onnxfile.NoConverterError(message)
        if not data:
            code = os.waitstatus_to_exitcode(status)
            message = f"{self._name} ended its process with exit code {code}"
            raise onnxfile.NotConvertedError(message)
        # The bytes come from our own fork, not from a file.
        result = pickle.loads(data)  # noqa: S301
        if isinstance(result, Exception):
            raise result
        return cast("Result", result)

    def __enter__(self) -> Self:
        """Return the child itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the fork, if it is still there."""
        if self._process is not None and self._pipe is not None:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._process = None
            self._pipe.close()


def started(original: Original, layout: Layout, dtype: Dtype) -> Child[bytes]:
    """Start to convert a model to ONNX."""
    return Child(lambda: onnx_of(original, layout, dtype), "its conversion to ONNX")


def in_child(call: Callable[[], Result], name: str) -> Result:
    """Return what a function returns in a fork, as `Child` does."""
    return Child(call, name).result()


def _forked(call: Callable[[], object]) -> tuple[int, FileIO]:
    """Return a fork that calls, and the pipe that takes the result."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(call, writer)
    os.close(writer)
    return child, FileIO(reader)


def _answer(call: Callable[[], object], writer: int) -> None:
    """Call, write the result to a pipe, and end this process."""
    result: object
    try:
        # Threads of OpenMP that the parent had started do not exist in a fork.
        with threadpool_limits(1):
            result = call()
    except onnxfile.NotConvertedError as error:
        result = error
    except Exception as error:  # noqa: BLE001 (it may not be one that can be pickled)
        result = onnxfile.NotConvertedError(onnxfile.first_line(error))
    finally:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(pickle.dumps(result))
            pipe.flush()
        os._exit(0)


def _read(pipe: int, child: int, name: str) -> bytes | None:
    """Return all that a child writes; `None` if it had to be killed at the deadline."""
    data = bytearray()
    started = time.monotonic()
    while (passed := time.monotonic() - started) < SECONDS:
        ready, _, _ = select.select([pipe], [], [], min(_PROGRESS_SECONDS, SECONDS - passed))
        if not ready:
            sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
            continue
        chunk = os.read(pipe, 1 << 20)
        if not chunk:
            return bytes(data)
        data += chunk
    os.kill(child, signal.SIGKILL)
    return None
