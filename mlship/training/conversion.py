"""Conversions in a process of their own, which ends at a deadline.

A converter may loop for ever: skl2onnx does on a threshold of infinity. The process is a fork, so
the model needs no form in which it could be handed over.
"""

import os
import pickle
import select
import signal
import sys
import time
from typing import Final

from threadpoolctl import threadpool_limits

from mlship.domain.bundle import Dtype, Layout
from mlship.training import onnxfile
from mlship.training.original import Original

SECONDS: Final = 60.0
_PROGRESS_SECONDS: Final = 10.0


def onnx_of(original: Original, layout: Layout, dtype: Dtype) -> bytes:
    """Return a model as ONNX.

    Raises:
        NoConverterError: a part of it has no converter, or the converter did not end in time.
        NotConvertedError: the converter failed; another layout or type may do.
    """
    if sys.platform != "linux":
        # A fork of a process that has loaded such libraries is not safe there.
        return onnxfile.from_estimator(original, layout, dtype)
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _convert(original, layout, dtype, writer)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        data = _read(pipe.fileno(), child)
    _, status = os.waitpid(child, 0)
    if data is None:
        message = f"its conversion to ONNX did not end within {SECONDS:g} seconds"
        raise onnxfile.NoConverterError(message)
    if not data:
        code = os.waitstatus_to_exitcode(status)
        message = f"its conversion to ONNX ended with exit code {code}"
        raise onnxfile.NotConvertedError(message)
    # The bytes come from our own fork, not from a file.
    result = pickle.loads(data)  # noqa: S301
    if isinstance(result, Exception):
        raise result
    return bytes(result)


def _convert(original: Original, layout: Layout, dtype: Dtype, writer: int) -> None:
    """Convert, write the result to a pipe, and end this process."""
    result: object
    try:
        # Threads of OpenMP that the parent had started do not exist in a fork.
        with threadpool_limits(1):
            result = onnxfile.from_estimator(original, layout, dtype)
    except onnxfile.NotConvertedError as error:
        result = error
    finally:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(pickle.dumps(result))
            pipe.flush()
        os._exit(0)


def _read(pipe: int, child: int) -> bytes | None:
    """Return all that a child writes; `None` if it had to be killed at the deadline."""
    data = bytearray()
    started = time.monotonic()
    while (passed := time.monotonic() - started) < SECONDS:
        ready, _, _ = select.select([pipe], [], [], min(_PROGRESS_SECONDS, SECONDS - passed))
        if not ready:
            sys.stderr.write(f"converting the model to ONNX: {time.monotonic() - started:.0f} s\n")
            continue
        chunk = os.read(pipe, 1 << 20)
        if not chunk:
            return bytes(data)
        data += chunk
    os.kill(child, signal.SIGKILL)
    return None
