"""What a model answers to the values of messages: outputs as bytes, or why there are none.

The checks are those of a request over HTTP, and so are the outputs.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any, Final

from mlship.domain.bundle import Row
from mlship.domain.columns import Columns
from mlship.domain.prediction import Prediction
from mlship.domain.stream import Side
from mlship.errors import ProjectError, UnavailableError
from mlship.runtime import column_check
from mlship.runtime.faults import Fault, RefusedRequest
from mlship.runtime.model import Model
from mlship.runtime.record import Record
from mlship.runtime.stream.formats import Codec
from mlship.runtime.stream.link import Results, Values

_LOG_SECONDS: Final = 10.0
_EMPTY: Final = Fault(message="the message has no value")


class Answering:
    """Answers batches of messages with one model.

    Args:
        model: a loaded bundle.
        codec: of the values.
        side: the release.
        record: the prediction log; `None` logs nothing.
        clock: returns the current time with a time zone.
    """

    def __init__(
        self,
        model: Model,
        codec: Codec,
        side: Side,
        record: Record | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._model = model
        self._codec = codec
        self._side = side
        self._record = record
        self._clock = clock

    def answer(self, asked: Values) -> Results:
        """Return an output or a fault for each message, when the predictions are durable.

        Raises:
            ProjectError: the model or a hook fails on any row.
            UnavailableError: the log cannot be written.
        """
        started = perf_counter()
        faults: dict[int, Fault] = {}
        rows: dict[int, Any] = {}
        for place, value in enumerate(asked.values):
            row = _EMPTY if value is None else self._codec.decode(value)
            if isinstance(row, Fault):
                faults[place] = row
            else:
                rows[place] = row
        inputs, outputs, refused = self._computed(list(rows.values()))
        places = list(rows)
        faults |= {places[number]: fault for number, fault in refused.items()}
        answered = [place for number, place in enumerate(places) if number not in refused]
        ids = [asked.ids[place] for place in answered]
        values: list[bytes | None] = [None] * len(asked.values)
        for place, data in zip(answered, self._codec.encode(outputs, ids), strict=True):
            values[place] = data
        self._log(ids, inputs, outputs, started, shadow=asked.shadow)
        return Results(
            values, {place: (fault.message, _column(fault)) for place, fault in faults.items()}
        )

    def _computed(self, received: list[Any]) -> tuple[Columns, Columns, dict[int, Fault]]:
        """Return inputs and outputs of the rows that are answered, and the faults of others."""
        if not received:
            return Columns(), Columns(), {}
        try:
            checked = column_check.check(received, self._model.bundle.schema)
            computed = self._model.table(checked)
            if len(computed) == len(checked):
                return checked, computed.outputs(), {}
        except (RefusedRequest, ProjectError):
            pass
        answers = self._model.answers(received)
        faults = {n: each for n, each in enumerate(answers) if isinstance(each, Fault)}
        kept = [row for number, row in enumerate(received) if number not in faults]
        outputs: list[Row] = [each for each in answers if not isinstance(each, Fault)]
        inputs = Columns.of_rows(self._model.check(kept)) if kept else Columns()
        return inputs, Columns.of_rows(outputs) if outputs else Columns(), faults

    def _log(
        self, ids: Sequence[str], inputs: Columns, outputs: Columns, started: float, *, shadow: bool
    ) -> None:
        """Log predictions; an id that is logged again, after a crash, counts once.

        Raises:
            UnavailableError: they cannot be written.
        """
        if self._record is None or not ids:
            return
        time, latency = self._clock(), round((perf_counter() - started) * 1e3, 4)
        predictions = [
            Prediction(
                id=id_,
                release=self._side.release,
                slot=self._side.slot,
                time=time,
                inputs=row,
                outputs=output,
                latency_ms=latency,
                shadow=shadow,
            )
            for id_, row, output in zip(ids, inputs.rows(), outputs.rows(), strict=True)
        ]
        written = self._record.append(predictions)
        try:
            written.result(_LOG_SECONDS)  # type: ignore[attr-defined]  # a Future
        except TimeoutError as error:
            message = f"the prediction log was not written within {_LOG_SECONDS:g} seconds"
            raise UnavailableError(message, hint="check its disk or database") from error


def _column(fault: Fault) -> str:
    """Return the column that a fault names; its row is always the message's only one."""
    return fault.field.partition(".")[2] if fault.field.startswith("rows[") else fault.field
