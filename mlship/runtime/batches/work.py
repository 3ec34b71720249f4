"""A worker of a batch: reads requests from stdin, one a line, and answers each on stdout.

The user's hooks run here. It ends when stdin does, whatever it is doing: what it has not renamed
was not written.
"""

import gc
import os
import queue
import threading
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mlship import __version__
from mlship.domain import batch as batches
from mlship.domain import batch_sides
from mlship.domain.batch import Counts, Scored
from mlship.domain.batch_work import (
    Answer,
    Fault,
    Find,
    Inspect,
    Inspected,
    Request,
    Score,
    Written,
)
from mlship.domain.digests import Digest
from mlship.errors import MlshipError
from mlship.runtime.batches import places, reading, tracing
from mlship.runtime.batches.counts import OutputCounts
from mlship.runtime.batches.inspection import inspect
from mlship.runtime.batches.partition import Answered, Partition, Rejected
from mlship.runtime.batches.reading import Malformed
from mlship.runtime.batches.sides import Sided
from mlship.runtime.batches.writing import Outputs
from mlship.runtime.model import Model

_MOST_REASONS: Final = batches.SHOWN


def work() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what hooks print is no answer
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    worker = Worker()
    while True:
        request = msgspec.json.decode(requests.get(), type=Request)
        answers.write(msgspec.json.encode(worker.answer(request)) + b"\n")
        answers.flush()


def _read(requests: "queue.SimpleQueue[bytes]") -> None:
    # As bytes of a file of its own: the interpreter locks sys.stdin when it ends.
    with os.fdopen(0, "rb", closefd=False) as lines:
        for line in lines:
            requests.put(line)
    # Whoever asked is gone: nobody would take the answer.
    os._exit(0)


class Worker:
    """Answers requests, with the models that they have named."""

    def __init__(self) -> None:
        self._models: dict[Digest, Model] = {}

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request; an error becomes a fault."""
        try:
            match request:
                case Inspect():
                    return Inspected(inspect(request.path, request.format, request.reading))
                case Score():
                    return Written(score(self._model(request.bundle, request.digest), request))
                case Find():
                    return tracing.find(self._model(request.bundle, request.digest), request)
        except MlshipError as error:
            return Fault(error=type(error).__name__, message=error.message, hint=error.hint)

    def _model(self, folder: str, digest: Digest) -> Model:
        if digest not in self._models:
            self._models[digest] = Model.load(Path(folder), digest)
            # What was imported is no garbage: it is not searched while rows are computed.
            gc.freeze()
        return self._models[digest]


def score(model: Model, request: Score) -> Scored:
    """Score a part, and write its outputs.

    Raises:
        IntegrityError: the file was changed since the plan was made.
        ProjectError: the model or a hook fails on any row, or the file is invalid.
        NotFoundError, UnavailableError, ConfigError: the file or the output cannot be used.
    """
    each = request.input
    places.check_same(each.path, each.version)
    prefix = batches.prefix(request.ids or request.release, request.part)
    is_text = each.format == "csv"
    whole = Partition(model, prefix, request.keep, request.reading, is_text=is_text)
    partition = Sided(whole, prefix, request.selection) if request.selection else whole
    metadata = {
        "mlship.version": __version__,
        "mlship.release": request.release,
        "mlship.bundle": request.digest,
        "mlship.part": request.part,
        "mlship.data": each.digest,
    }
    outputs = Outputs(
        request.folder,
        request.part,
        request.format,
        _schema(partition, request),
        metadata,
    )
    try:
        rows, rejected, reasons, counts = _each_batch(model, partition, request, outputs)
        places.check_same(each.path, each.version)
        size, digest, rejected_size = outputs.finish()
    except BaseException:
        outputs.discard()
        raise
    return Scored(
        name=request.part,
        rows=rows,
        rejected=rejected,
        size=size,
        digest=digest,
        rejected_size=rejected_size,
        reasons=tuple(reasons),
        counts=_counted(counts, request),
    )


def _counted(counts: OutputCounts, request: Score) -> dict[str, Counts]:
    """Return the counts by output; those of a split are kept apart by side."""
    if request.selection is None:
        return counts.counts()
    role = request.selection.role
    return {batch_sides.counted(role, name): each for name, each in counts.counts().items()}


def _schema(partition: "Partition | Sided", request: Score) -> Any:
    each = request.input
    if each.format == "jsonl":
        return partition.schema(None)
    if each.format == "csv":
        return partition.schema(pa.schema([(name, pa.string()) for name, _ in each.columns]))
    with places.opened(each.path) as file:
        return partition.schema(pq.read_schema(file))


def _each_batch(
    model: Model, partition: "Partition | Sided", request: Score, outputs: Outputs
) -> tuple[int, int, list[str], OutputCounts]:
    each = request.input
    counts = OutputCounts(model.bundle.schema.outputs)
    malformed: list[Malformed] = []
    reasons: list[str] = []
    place = rows = rejected = 0

    def reject(refused: list[Rejected]) -> int:
        for row in refused:
            if len(reasons) < _MOST_REASONS:
                reasons.append(_shown(each.path, row))
            outputs.reject(row, each.path)
        return len(refused)

    if each.format == "jsonl":
        for received in reading.lines(each, request.block):
            answered, own = _answered(partition.answer_rows(received, place), len(received))
            place += len(received)
            rows += own
            rejected += reject(answered.rejected)
            outputs.write(answered.outputs)
            counts.add(answered.outputs)
        return rows, rejected, reasons, counts
    selection = request.selection
    key = [selection.key] if selection and selection.key else []
    names = list(dict.fromkeys([*model_columns(model), *request.keep, *key]))
    for batch in reading.batches(each, request.block, request.reading, names, malformed):
        answered, own = _answered(partition.answer(batch, place), batch.num_rows)
        place += batch.num_rows
        rows += own
        rejected += reject(answered.rejected)
        outputs.write(answered.outputs)
        counts.add(answered.outputs)
    refused = [
        Rejected(row=None, column="", reason=line.reason, values={"line": line.text})
        for line in malformed
        if selection is None or selection.is_first
    ]
    rejected += reject(refused)
    return rows + len(refused), rejected, reasons, counts


def _answered(answer: Answered | tuple[Answered, int], rows: int) -> tuple[Answered, int]:
    """Return an answer, and how many rows it is about: all, if there are no sides."""
    return answer if isinstance(answer, tuple) else (answer, rows)


def model_columns(model: Model) -> list[str]:
    """Return the columns that a model needs."""
    return [field.name for field in model.bundle.schema.inputs]


def _shown(path: str, row: Rejected) -> str:
    where = path if row.row is None else f"{path}, row {row.row}"
    return f"{where}: {row.reason}"[:300]
