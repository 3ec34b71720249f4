"""Metrics of models with one target or several: each target as if it were the only one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mlship.domain.bundle import Bundle, Head, Row, Task, Value, probability_of
from mlship.domain.scores import Interval
from mlship.training.scoring import metrics, quantiles

Truth: TypeAlias = Mapping[str, Sequence[Value]]
"""The true values by target."""


@dataclass(frozen=True)
class Problem:
    """What models are to predict.

    Attributes:
        targets: with the labels that any of the models knows.
        quantiles: those of the only target that they predict besides.
    """

    task: Task
    targets: tuple[Head, ...]
    quantiles: tuple[float, ...] = ()


def problem_of(bundle: Bundle, *others: Bundle) -> Problem:
    """Return the problem of a bundle; others of the same targets may know more labels."""
    targets = [_targets_of(one) for one in (bundle, *others)]
    return Problem(
        task=bundle.task,
        targets=tuple(
            Head(
                name=same[0].name,
                classes=tuple(dict.fromkeys(label for head in same for label in head.classes)),
            )
            for same in zip(*targets, strict=True)
        ),
        quantiles=bundle.quantiles,
    )


def _targets_of(bundle: Bundle) -> tuple[Head, ...]:
    if bundle.targets:
        return bundle.model.heads
    return (Head(name=bundle.target, classes=bundle.model.classes),)


def of_head(head: Head, outputs: Sequence[Row]) -> list[Row]:
    """Return the outputs of one head among several with the names that one alone has."""
    names = {probability_of(label, head.name): probability_of(label) for label in head.classes}
    return [
        {head.name: row[head.name]}
        | {alone: row[name] for name, alone in names.items() if name in row}
        for row in outputs
    ]


def measure(problem: Problem, truth: Truth, outputs: Sequence[Row]) -> dict[str, float]:
    """Return the metrics of outputs against the true values.

    Of several targets these are the means over the targets, then each metric by target as
    `NAME[TARGET]`. Classifications have besides `accuracy_all`, the share of rows in which all
    targets are right, and `hamming_loss`, the share of single answers that are wrong. Those of
    quantiles are in `mlship.training.scoring.quantiles`.
    """
    task, heads = problem.task, problem.targets
    if len(heads) == 1:
        name = heads[0].name
        losses = quantiles.losses(problem.quantiles, name, truth[name], outputs)
        values = metrics.measure(task, truth[name], outputs, name)
        return values | {key: float(column.mean()) for key, column in losses.items()}
    parts = {
        head.name: metrics.measure(task, truth[head.name], of_head(head, outputs), head.name)
        for head in heads
    }
    values = _means(parts)
    if task == "classification":
        right = _right(heads, truth, outputs)
        values |= {
            "accuracy_all": float(right.all(axis=1).mean()),
            "hamming_loss": float((~right).mean()),
        }
    return values | _named(parts)


def differences(
    problem: Problem, truth: Truth, pair: tuple[Sequence[Row], Sequence[Row]]
) -> dict[str, Interval]:
    """Return release minus champion for each metric, with a 95 % interval.

    Args:
        problem: of both.
        truth: the true values.
        pair: the outputs of the release and of the champion for the same rows.
    """
    task, heads = problem.task, problem.targets
    points = [measure(problem, truth, outputs) for outputs in pair]
    if len(heads) == 1:
        name = heads[0].name
        drawn = dict(metrics.draws(task, truth[name], pair, name))
        sides = [quantiles.losses(problem.quantiles, name, truth[name], side) for side in pair]
        for key in sides[0].keys() & sides[1].keys():
            gaps = (sides[0][key] - sides[1][key])[:, None]
            drawn[key] = metrics.resampled(gaps)[:, 0]
        return metrics.intervals(points, drawn)
    parts = {}
    for head in heads:
        own = of_head(head, pair[0]), of_head(head, pair[1])
        parts[head.name] = metrics.draws(task, truth[head.name], own, head.name, by_row=True)
    samples: dict[str, Any] = _means(parts)
    if task == "classification":
        right = [_right(heads, truth, outputs) for outputs in pair]
        whole = np.stack([part.all(axis=1) for part in right], axis=1).astype("float64")
        samples["accuracy_all"] = metrics.resampled(whole[:, :1] - whole[:, 1:])[:, 0]
        samples["hamming_loss"] = -samples["accuracy"]
    return metrics.intervals(points, samples | _named(parts))


def _means(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean over all targets of each metric that all of them have."""
    first, *others = parts.values()
    return {
        name: sum(part[name] for part in parts.values()) / len(parts)
        for name in first
        if all(name in other for other in others)
    }


def _named(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{name}[{target}]": value for target, own in parts.items() for name, value in own.items()
    }


def _right(heads: Sequence[Head], truth: Truth, outputs: Sequence[Row]) -> Any:
    """Return whether each single answer is right, shape (n, heads)."""
    return np.array(
        [
            [row[head.name] == truth[head.name][number] for head in heads]
            for number, row in enumerate(outputs)
        ]
    )
