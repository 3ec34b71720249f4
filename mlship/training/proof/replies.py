"""What a sealed bundle must reply to held-out rows and probes, and the examples kept of it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from mlship.domain.bundle import Field, Row
from mlship.domain.notation import literal
from mlship.domain.prediction import Answer
from mlship.domain.scores import Golden
from mlship.errors import ProjectError
from mlship.training import parts
from mlship.training.original import Original
from mlship.training.proof.answers import ATOL, RTOL, Answers, Outputs, slack_of, sure
from mlship.training.proof.probes import ProbeKind, spread
from mlship.training.proof.trial import Trial

HELD_OUT: Final = 2_000
"""The sealed bundle is asked about so many held-out rows; its form alone is asked all of more."""

_PROBES: Final = 2_000
_REFUSALS: Final = 100
_GOLDEN_ROWS: Final = 10
_GOLDEN_PROBES: Final = 30
_GOLDEN_BYTES: Final = 4_000


@dataclass(frozen=True)
class Reply:
    """What a bundle must reply to a row.

    Attributes:
        name: the row, for people.
        outputs: `None` for a refusal.
        is_sure: whether rounding cannot change the label.
        beside: outputs on the other side of a jump, to which rounding may bring the row.
        slack: by output, how far a number may be from it; others by `RTOL` and `ATOL`.
    """

    name: str
    row: Row
    outputs: Row | None
    kind: ProbeKind | None = None
    is_sure: bool = True
    beside: Sequence[Row] = ()
    slack: Mapping[str, float] = dataclasses.field(default_factory=dict)


def slacks(original: Original, answers: Answers) -> list[dict[str, float]]:
    """Return how far each number of an answer may be from it, by the name of its head."""
    rows: list[dict[str, float]] = [{} for _ in answers.outputs.labels]
    if original.task == "regression" and answers.accepted.any():
        outputs = answers.outputs.of_heads(original.heads)
        for head, own in zip(original.heads, outputs, strict=True):
            values = np.asarray(own.labels, dtype="float64")
            slack = slack_of(values, answers.accepted).tolist()
            for row, value in zip(rows, slack, strict=True):
                row[head.name] = value
    return rows


def held_out(
    rows: Sequence[Row],
    wanted: Sequence[Row],
    answers: Answers,
    numbers: Sequence[int],
    slack: Sequence[Mapping[str, float]],
) -> list[Reply]:
    """Return the replies to some of the held-out rows, which are outputs of the original's.

    Args:
        rows: those that are asked.
        wanted: the outputs for all held-out rows.
        answers: the original's, for all of them.
        numbers: of those that are asked.
        slack: how far numbers may be from those of each held-out row.
    """
    are_sure = sure(answers.outputs).tolist()
    return [
        Reply(
            name=f"held-out row {number + 1}",
            row=row,
            outputs=wanted[number],
            is_sure=are_sure[number],
            slack=slack[number],
        )
        for row, number in zip(rows, numbers, strict=True)
    ]


def asked(frame: pd.DataFrame, fields: Sequence[Field]) -> list[int]:
    """Return the held-out rows that the sealed bundle is asked: few of many, evenly spread.

    With those that the contract would refuse first if it were wrong: the largest and the smallest
    number of each column, a null, and each value of a column that takes known values alone.
    """
    chosen = set(spread(len(frame), HELD_OUT).tolist())
    if len(chosen) == len(frame):
        return sorted(chosen)
    for field in fields:
        column = frame[field.name]
        missing = np.flatnonzero(column.isna().to_numpy())
        chosen.update(missing[:1].tolist())
        if field.is_closed or field.categories:
            chosen.update(np.flatnonzero(~column.duplicated().to_numpy()).tolist())
        if field.kind in ("number", "integer") and len(missing) < len(column):
            numbers = column.to_numpy(dtype="float64", na_value=np.nan)
            chosen.update((int(np.nanargmax(numbers)), int(np.nanargmin(numbers))))
    return sorted(chosen)


def tried(trial: Trial) -> list[int]:
    """Return the probes that the sealed bundle is asked as well, evenly spread."""
    by_model = trial.inside & ~trial.answers.accepted
    # A refusal by the model costs many predictions, one by the schema none.
    refused = _spread(np.flatnonzero(by_model), _REFUSALS)
    others = _spread(np.flatnonzero(~by_model), _PROBES - len(refused))
    return sorted([*others, *refused])


def _spread(numbers: Any, count: int) -> list[int]:
    chosen: list[int] = numbers[spread(len(numbers), count)].tolist()
    return chosen


def of_probes(
    trial: Trial,
    numbers: Sequence[int],
    outputs_of: Callable[[Outputs], list[Row]],
    slack: Sequence[Mapping[str, float]],
) -> list[Reply]:
    """Return the replies to probes.

    Args:
        trial: has the probes and the original's answers.
        numbers: those to reply to.
        outputs_of: makes rows of the original's outputs, by `postprocess` if there is one.
        slack: how far numbers may be from those of each probe.
    """
    answered = (trial.answers.accepted & trial.inside)[list(numbers)]
    places = np.array(numbers)[answered]
    postprocessed = _postprocessed(trial.answers.outputs.take(places), outputs_of)
    made = dict(zip(places.tolist(), postprocessed, strict=True))
    # The trial compared answers around a jump with those on both its sides.
    are_sure = sure(trial.answers.outputs) & (np.array(trial.probes.jumps) == 0)
    return [
        Reply(
            name=f"probe {number} ({trial.probes.describe(number)})",
            row=trial.rows[number],
            outputs=made.get(number),
            beside=[row for other in trial.probes.beside(number) if (row := made.get(other))],
            kind=trial.probes.kinds[number],
            is_sure=bool(are_sure[number]),
            slack=slack[number],
        )
        for number in numbers
    ]


def _postprocessed(
    outputs: Outputs, outputs_of: Callable[[Outputs], list[Row]]
) -> list[Row | None]:
    """Return the outputs as rows; `None` where `postprocess` raises."""
    if not len(outputs.labels):
        return []
    try:
        return list(outputs_of(outputs))
    except ProjectError:
        if len(outputs.labels) == 1:
            return [None]
        halves = np.array_split(np.arange(len(outputs.labels)), 2)
        return [row for half in halves for row in _postprocessed(outputs.take(half), outputs_of)]


def check(expected: Sequence[Reply], answers: Sequence[Answer]) -> None:
    """Compare a bundle's answers with the original's.

    Raises:
        ProjectError: one is another; the message names the row and the value.
    """
    for reply, answer in zip(expected, answers, strict=True):
        if not reply.is_sure:
            continue
        others = (_difference(outputs, answer, reply.slack) for outputs in reply.beside)
        difference = _difference(reply.outputs, answer, reply.slack)
        if difference and all(others):
            message = f"the bundle {difference} for {reply.name}"
            hint = (
                "the model and the hooks must compute the same from the same row in any process, "
            )
            raise ProjectError(message, hint=f"{hint}and read only files that model.include names")


def _difference(outputs: Row | None, answer: Answer, slack: Mapping[str, float]) -> str:
    if outputs is None:
        returned = literal(answer.outputs)
        return "" if answer.refusal else f"returns {returned}, which the model refuses,"
    if answer.refusal:
        return f"refuses what the trained model answers ({answer.refusal})"
    if list(outputs) != list(answer.outputs):
        return f"returns {', '.join(answer.outputs)}, and the trained model {', '.join(outputs)},"
    for name, value in outputs.items():
        if not _is_same(value, answer.outputs[name], slack.get(name, 0.0)):
            found = answer.outputs[name]
            return f"returns {name} = {literal(found)}, and the trained model {literal(value)},"
    return ""


def _is_same(one: Any, other: Any, slack: float) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return abs(other - one) <= max(ATOL + RTOL * abs(one), slack)
    return bool(one == other)


def golden(
    original: Original, expected: Sequence[Reply], answers: Sequence[Answer]
) -> list[Golden]:
    """Return the examples that every replica must reproduce: held-out rows, and hard ones.

    Left out is what another processor may round otherwise: extreme numbers, and boundaries that
    are not the thresholds of trees.
    """
    is_tree = any(hasattr(part, "tree_") for part in parts.of(original.estimator))
    pairs = [
        (reply, answer)
        for reply, answer in zip(expected, answers, strict=True)
        if reply.outputs is not None and reply.is_sure and not answer.refusal
    ]
    plain = [pair for pair in pairs if pair[0].kind is None]
    hard = [
        pair
        for pair in pairs
        if pair[0].kind not in (None, "training row", "held-out row", "extreme")
        and (pair[0].kind != "boundary" or is_tree)
        and len(msgspec.json.encode(pair[0].row)) < _GOLDEN_BYTES
    ]
    return [
        Golden(inputs=reply.row, outputs=answer.outputs)
        for reply, answer in (*_some(plain, _GOLDEN_ROWS), *_some(hard, _GOLDEN_PROBES))
    ]


def _some(pairs: list[tuple[Reply, Answer]], count: int) -> list[tuple[Reply, Answer]]:
    return [pairs[place] for place in spread(len(pairs), count)]
