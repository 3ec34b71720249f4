"""Pictures of how a model did: a confusion matrix, or residuals; the champion's beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlship.domain.bundle import UNSUPERVISED, Task, Value
from mlship.training.scoring import metrics

CONFUSION = "confusion.png"
RESIDUALS = "residuals.png"
SHARES = "shares.png"

_INK, _FAINT, _COLOUR = "#1f2933", "#9aa5b1", "#2166ac"
_NUMBERED = 20
"""With more classes than this, numbers in the cells would be too small to read."""
_TARGETS = 8


@dataclass(frozen=True)
class Side:
    """What one model predicted for the rows, by target."""

    name: str
    predicted: Mapping[str, Sequence[Any]]


def draw(
    task: Task, truth: Mapping[str, Sequence[Value]], sides: Sequence[Side], folder: Path
) -> tuple[str, ...]:
    """Draw a panel for each model into a PNG file in `folder`; return the file's name.

    There is a row of panels for each target, up to a limit. Without a target, it shows the shares
    of the rows with each label.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if task in UNSUPERVISED:
        _draw_shares(sides, folder / SHARES)
        return (SHARES,)
    shown = dict(list(truth.items())[:_TARGETS])
    if task == "classification":
        _draw_confusion(shown, sides, folder / CONFUSION)
        return (CONFUSION,)
    _draw_residuals(shown, sides, folder / RESIDUALS)
    return (RESIDUALS,)


def _draw_confusion(
    truth: Mapping[str, Sequence[Value]], sides: Sequence[Side], path: Path
) -> None:
    labels = {
        target: metrics.labels_of(
            values, [value for side in sides for value in side.predicted[target]]
        )
        for target, values in truth.items()
    }
    size = min(2.6 + 0.55 * max(map(len, labels.values())), 14.0)
    figure, table = _figure(len(truth), len(sides), width=size + 1.0, height=size)
    for (target, values), panels in zip(truth.items(), table, strict=True):
        for panel, side in zip(panels, sides, strict=True):
            counts = np.array(metrics.confusion(values, side.predicted[target], labels[target]))
            title = f"{side.name}\n{np.trace(counts)} of {len(values)} right"
            panel.set_title(_titled(title, target, len(truth)), fontsize=11)
            _fill_confusion(panel, counts, [_shortened(str(label)) for label in labels[target]])
    _save(figure, path)


def _fill_confusion(panel: Any, counts: Any, names: list[str]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")
    panel.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(length=0)
    if len(names) <= _NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.55 else _INK if count else _FAINT
            panel.text(column, row, f"{count}", ha="center", va="center", color=colour)


def _draw_residuals(
    truth: Mapping[str, Sequence[Value]], sides: Sequence[Side], path: Path
) -> None:
    figure, table = _figure(len(truth), len(sides), width=5.2, height=4.2)
    for (target, known), panels in zip(truth.items(), table, strict=True):
        values = np.array(known, dtype="float64")
        residuals = [np.array(side.predicted[target], dtype="float64") - values for side in sides]
        limit = max(float(np.abs(gaps).max()) for gaps in residuals) * 1.08 or 1.0
        for panel, side, gaps in zip(panels, sides, residuals, strict=True):
            error = float(np.abs(gaps).mean())
            title = f"{side.name}\nmean absolute error {error:.4g}"
            panel.set_title(_titled(title, target, len(truth)), fontsize=11)
            panel.set_ylim(-limit, limit)
            _fill_residuals(panel, values, gaps)
    _save(figure, path)


def _fill_residuals(panel: Any, values: Any, gaps: Any) -> None:
    size = float(np.clip(2_000 / max(len(values), 1), 4, 26))
    panel.axhline(0, color=_INK, linewidth=0.8)
    panel.scatter(values, gaps, s=size, alpha=0.65, color=_COLOUR, edgecolors="none")
    panel.set_xlabel("true value")
    panel.set_ylabel("predicted - true")
    panel.grid(visible=True, color="#e4e7eb", linewidth=0.6)
    panel.set_axisbelow(True)


def _draw_shares(sides: Sequence[Side], path: Path) -> None:
    figure, table = _figure(1, len(sides), width=5.2, height=4.2)
    for panel, side in zip(table[0], sides, strict=True):
        [(name, labels)] = side.predicted.items()
        values, counts = np.unique(np.array(labels), return_counts=True)
        places = np.argsort(-counts, kind="stable")[:_NUMBERED]
        panel.bar(range(len(places)), counts[places] / len(labels), color=_COLOUR)
        panel.set_xticks(range(len(places)), [str(value) for value in values[places]])
        panel.set_title(f"{side.name}\n{len(labels)} rows", fontsize=11)
        panel.set_xlabel(name)
        panel.set_ylabel("share of the rows")
    _save(figure, path)


def _titled(title: str, target: str, targets: int) -> str:
    return f"{_shortened(target)}: {title}" if targets > 1 else title


def _figure(rows: int, count: int, *, width: float, height: float) -> tuple[Figure, Any]:
    """Return a figure and its panels, shape (rows, count)."""
    figure = Figure(figsize=(width * count, height * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, count, squeeze=False)
    for panel in panels.ravel():
        panel.title.set_color(_INK)
        for spine in panel.spines.values():
            spine.set_color("#cbd2d9")
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    # Without the version of matplotlib, the same numbers give the same file.
    figure.savefig(path, metadata={"Software": None})


def _shortened(text: str) -> str:
    return text if len(text) <= 18 else text[:17] + "\N{HORIZONTAL ELLIPSIS}"
