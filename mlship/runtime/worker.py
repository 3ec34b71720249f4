"""A worker: a process that loads a bundle and computes what the server sends it.

The model, its libraries and the hooks run here, apart from the server with its log and its probes:
whatever they do to this process, the server is there to tell of it and to start another.
"""

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path

from mlship.domain.columns import Column, Columns
from mlship.domain.digests import Digest
from mlship.errors import MlshipError
from mlship.runtime import golden, link, warmup
from mlship.runtime.golden import Example
from mlship.runtime.jobs import Answer, Computed, Refused
from mlship.runtime.link import Answers, Failed, Loaded, Report, Unfit
from mlship.runtime.model import Model, internal

_SERVER_ERROR = 500
_END_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def work(bundle: Path, expected: Digest | None, handle: int, parent: int) -> None:
    """Load the bundle, report it, and compute until the server closes the link.

    Args:
        bundle: its folder.
        expected: the digest that it must have.
        handle: the file descriptor of the link.
        parent: the process id of the server.
    """
    _end_with(parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        # The server ends this process when its last request is answered.
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(handle, False)  # noqa: FBT003 (positional only)
    with socket.socket(fileno=handle) as connection, contextlib.suppress(ConnectionError):
        model, report, batch, example = _load(bundle, expected)
        connection.sendall(link.of_report(report))
        if model is None:
            return
        own = os.getpid()
        while (jobs := link.receive(connection)) is not None:
            answered = answers(model, jobs, batch)
            failure = failure_after(answered, model, example)
            message = message_of(answered)
            if failure:
                message += link.of_report(Unfit(failure))
            if os.getpid() != own:
                # A fork that a hook or the model made has come back too. Its answers would be
                # taken for those to other requests.
                os._exit(1)
            connection.sendall(message)
            if failure:
                return


def _load(
    bundle: Path, expected: Digest | None
) -> tuple[Model | None, Report, int, Sequence[Example]]:
    """Return the model or `None`, the report, the rows of a batch, and the first golden example."""
    gc.disable()
    try:
        model = Model.load(bundle, expected)
        examples = golden.read(bundle)
        failure = golden.difference(model, examples)
        if failure:
            return None, Unfit(failure), 0, ()
        speed = warmup.measured(model, [example.inputs for example in examples])
    except MlshipError as error:
        return None, Failed(type(error).__name__, error.message, error.hint), 0, ()
    # All that is here lives as long as the process: no request pays for a search for garbage in it.
    gc.freeze()
    gc.enable()
    return model, Loaded(speed.alone, speed.together), speed.batch, examples[:1]


def answers(model: Model, jobs: Sequence[Sequence[Column]], batch: int) -> list[Answer]:
    """Return the answer to each job.

    Args:
        model: computes them.
        jobs: the columns of each request, in the schema's order.
        batch: the number of rows up to which jobs are computed together.
    """
    answered: list[Answer] = []
    group: list[Columns] = []
    size = 0
    for job in map(model.named, jobs):
        if group and size + job.size > batch:
            answered += _together(model, group)
            group, size = [], 0
        group.append(job)
        size += job.size
    return answered + _together(model, group)


def failure_after(answered: Sequence[Answer], model: Model, examples: Sequence[Example]) -> str:
    """Return why the model cannot go on after these answers; empty if it can.

    What fails without being the client's fault may have left the process unable to compute
    anything, such as an error of a device or a module that a hook unloaded. Then the process is
    replaced, which helps, instead of failing each request from now on.

    Args:
        answered: the latest answers.
        model: computes again.
        examples: what it must still reproduce.
    """
    if not any(
        isinstance(answer, Refused) and answer.status >= _SERVER_ERROR for answer in answered
    ):
        return ""
    try:
        return golden.difference(model, examples)
    except Exception as error:  # noqa: BLE001 (whatever the state of the process raises)
        return f"golden example 0: {type(error).__name__}"


def _together(model: Model, jobs: Sequence[Columns]) -> list[Answer]:
    """Compute jobs in one batch; if that fails each alone, so that each gets its own refusal."""
    if len(jobs) > 1:
        with contextlib.suppress(Exception):
            together = model.table(_joined(jobs))
            columns = list(map(list, together.outputs().values))
            ends = list(accumulate([job.size for job in jobs]))
            if len(together) == ends[-1]:
                return [
                    Computed(together.names, [column[start:end] for column in columns])
                    for start, end in zip([0, *ends], ends, strict=False)
                ]
    return [model.answer(job) for job in jobs]


def _joined(jobs: Sequence[Columns]) -> Columns:
    columns = zip(*[job.values for job in jobs], strict=True)
    return Columns(jobs[0].names, [list(chain.from_iterable(parts)) for parts in columns])


def message_of(answered: list[Answer]) -> bytes:
    """Return the message with answers; one that msgpack cannot hold becomes an error."""
    try:
        return link.of_report(Answers(answered))
    except (OverflowError, UnicodeEncodeError):
        for place, answer in enumerate(answered):
            try:
                link.of_report(Answers([answer]))
            except (OverflowError, UnicodeEncodeError) as error:
                answered[place] = internal(error)
        return link.of_report(Answers(answered))


def _end_with(parent: int) -> None:
    """End when the server is killed, also while something is computed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
