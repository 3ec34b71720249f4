"""The trial of a form: it must answer the probes as the original does."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import joblib
import numpy as np
import pandas as pd

from mlship.domain.bundle import Field, Model, Row
from mlship.runtime.formats import Computation
from mlship.training import parts
from mlship.training.columns import rows_of
from mlship.training.data import Data
from mlship.training.original import Original
from mlship.training.proof import boundaries, contract, probes
from mlship.training.proof.answers import (
    Answers,
    Outputs,
    UnansweredError,
    alike,
    ask,
    differing,
    outputs_of,
)
from mlship.training.proof.probes import Probes, spread

Prepare = Callable[[pd.DataFrame], pd.DataFrame]

_ALONE: Final = 5


@dataclass(frozen=True)
class Trial:
    """Rows of the data, and what the original answers to them.

    Attributes:
        original: the model.
        prepare: applies `preprocess`; `None` without one.
        fields: the columns of the data as requests may hold them.
        probes: the rows.
        rows: the same as requests carry them.
        answers: the original's.
        of_held_out: its answers to the held-out rows.
    """

    original: Original
    prepare: Prepare | None
    fields: tuple[Field, ...]
    probes: Probes
    rows: Sequence[Row]
    answers: Answers
    of_held_out: Answers

    @functools.cached_property
    def inside(self) -> Any:
        """Which probes the fields accept, a boolean array of shape (n,)."""
        return contract.accepted(self.fields, self.rows)

    def differing(self, model: Model, compute: Computation) -> dict[int, str]:
        """Return probes within the contract to which a form answers otherwise, and how.

        Only a form that passes all others is asked extreme numbers and what the original refuses,
        because finding the rows that are refused takes many predictions.
        """
        accepted = self.answers.accepted & self.inside
        is_extreme = np.array([kind == "extreme" for kind in self.probes.kinds])
        ordinary = np.flatnonzero(accepted & ~is_extreme)
        if len(ordinary):
            try:
                different = self._asked(model, compute, ordinary, must_answer=True)
            except UnansweredError as error:
                return {error.row: f"it refuses ({error.reason})"}
            if different:
                return different
        others = (accepted & is_extreme, self.inside & ~self.answers.accepted)
        return {
            row: what
            for group in others
            for row, what in self._asked(model, compute, np.flatnonzero(group)).items()
        }

    def _asked(
        self, model: Model, compute: Computation, numbers: Any, *, must_answer: bool = False
    ) -> dict[int, str]:
        form = form_of(model, compute, self.prepare)
        rows = self.rows if self.prepare is None else self.probes.frame
        try:
            found = ask(form, rows, numbers, must_answer=must_answer)
        except UnansweredError:
            raise
        except Exception as error:  # noqa: BLE001 (no row at all is answered)
            refused = f"it refuses ({type(error).__name__}: {str(error).strip()[:300]})"
            return {row: refused for row in numbers.tolist() if row not in self.answers.refusals}
        original = self.original
        different = differing(original.task, original.heads, self.answers, found, numbers)
        return {row: what for row, what in different.items() if not self._is_beside(row, found)}

    def _is_beside(self, row: int, found: Answers) -> bool:
        """Tell whether a form answers as the original does on the other side of the same jump."""
        if row in found.refusals or row in self.answers.refusals:
            return False
        others = self.probes.beside(row)
        return any(alike(self.answers.outputs, other, found.outputs, row) for other in others)

    def narrowed(self, different: dict[int, str]) -> "Trial | None":
        """Return the trial with limits for the numbers on which a form differs, if only on such."""
        fields = contract.limited(self.fields, self.probes, different)
        # The same trial knows already which probes its fields accept.
        if fields is None or fields == self.fields:
            return None if fields is None else self
        return replace(self, fields=fields)


def prepared(original: Original, data: Data, prepare: Prepare | None) -> Trial:
    """Make the probes, ask the original, and learn what it refuses.

    Raises:
        ProjectError: it refuses a held-out row.
    """
    of_held_out = original.ask_held_out()

    def predict(frame: pd.DataFrame) -> Outputs:
        return original.predict(frame if prepare is None else prepare(frame))

    def labels_of(frame: pd.DataFrame) -> Any:
        return original.labels_of(frame if prepare is None else prepare(frame))

    known = parts.texts_of(original.estimator, data)
    numbers = parts.numbers_of(original.estimator)
    rows = probes.make(data.train, data.test, data.fields, known, numbers)
    own_rows = None if prepare else original.estimator
    is_exact = parts.has_trees(original.estimator)
    # Threads or processes of the model's own (`n_jobs`) take longer than a few rows do.
    with joblib.parallel_config("sequential"):
        more = boundaries.make(labels_of, own_rows, data.train, data.fields, is_exact=is_exact)
        if more is not None:
            rows += more
        answers = ask(predict, rows.frame)
    fields = contract.learnt(data.fields, rows, answers, known)
    return Trial(
        original=original,
        prepare=prepare,
        fields=fields,
        probes=rows,
        rows=rows_of(rows.frame),
        answers=answers,
        of_held_out=of_held_out,
    )


def held_out(
    trial: Trial, model: Model, compute: Computation, rows: pd.DataFrame, numbers: Any = None
) -> Answers:
    """Return what a form answers to held-out rows, on the path of serving after the contract.

    Args:
        trial: has the hook `preprocess`.
        model: the form's manifest.
        compute: the form.
        rows: all held-out rows.
        numbers: those to ask, default all.
    """
    form = form_of(model, compute, trial.prepare)
    takes_rows = trial.prepare is None
    return ask(lambda frame: form(rows_of(frame) if takes_rows else frame), rows, numbers)


def differing_alone(trial: Trial, rows: pd.DataFrame) -> dict[int, str]:
    """Return held-out rows that the original answers otherwise without others, and how.

    Requests have one row more often than many, and all its other answers are to many.

    Args:
        trial: has the original, the hook `preprocess` and the answers to all held-out rows.
        rows: all held-out rows, of which some are asked.
    """
    original, prepare = trial.original, trial.prepare
    different: dict[int, str] = {}

    def predict(frame: pd.DataFrame) -> Outputs:
        return original.predict(frame if prepare is None else prepare(frame))

    with joblib.parallel_config("sequential"):
        for number in spread(len(rows), _ALONE).tolist():
            numbers = np.array([number])
            try:
                found = ask(predict, rows, numbers)
            except Exception as error:  # noqa: BLE001 (whatever a hook or the model's library raises)
                different[number] = f"it refuses ({type(error).__name__}: {str(error)[:300]})"
                continue
            wanted = trial.of_held_out
            different |= differing(original.task, original.heads, wanted, found, numbers)
    return different


def form_of(
    model: Model, compute: Computation, prepare: Prepare | None
) -> Callable[[Any], Outputs]:
    """Return what a form answers, on the path of serving: to rows, or to those of a hook."""
    names = [field.name for field in model.columns]

    def predict(rows: Any) -> Outputs:
        data = rows if prepare is None else prepare(rows)[names]
        return outputs_of(model, compute(data))

    return predict
