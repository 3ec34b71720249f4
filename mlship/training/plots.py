"""Pictures of how a model did: a confusion matrix, or residuals; the champion's beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlship.domain.bundle import Task, Value
from mlship.training import metrics

CONFUSION = "confusion.png"
RESIDUALS = "residuals.png"

_INK, _FAINT, _COLOUR = "#1f2933", "#9aa5b1", "#2166ac"
_NUMBERED = 20
"""With more classes than this, numbers in the cells would be too small to read."""


@dataclass(frozen=True)
class Side:
    """What one model predicted for the rows."""

    name: str
    predicted: Sequence[Any]


def draw(
    task: Task, truth: Sequence[Value], sides: Sequence[Side], folder: Path
) -> tuple[str, ...]:
    """Draw a panel for each model into a PNG file in `folder`; return the file's name.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if task == "classification":
        _draw_confusion(truth, sides, folder / CONFUSION)
        return (CONFUSION,)
    _draw_residuals(np.array(truth, dtype="float64"), sides, folder / RESIDUALS)
    return (RESIDUALS,)


def _draw_confusion(truth: Sequence[Value], sides: Sequence[Side], path: Path) -> None:
    everything = [value for side in sides for value in side.predicted]
    labels = metrics.labels_of(truth, everything)
    names = [_shortened(str(label)) for label in labels]
    size = min(2.6 + 0.55 * len(labels), 14.0)
    figure, panels = _figure(len(sides), width=size + 1.0, height=size)
    for panel, side in zip(panels, sides, strict=True):
        counts = np.array(metrics.confusion(truth, side.predicted, labels))
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        panel.set_title(f"{side.name}\n{np.trace(counts)} of {len(truth)} right", fontsize=11)
        panel.set_xlabel("predicted")
        panel.set_ylabel("true")
        panel.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        panel.set_yticks(range(len(names)), names)
        panel.tick_params(length=0)
        if len(labels) <= _NUMBERED:
            for (row, column), count in np.ndenumerate(counts):
                colour = "white" if shares[row, column] > 0.55 else _INK if count else _FAINT
                panel.text(column, row, f"{count}", ha="center", va="center", color=colour)
    _save(figure, path)


def _draw_residuals(truth: Any, sides: Sequence[Side], path: Path) -> None:
    figure, panels = _figure(len(sides), width=5.2, height=4.2)
    residuals = [np.array(side.predicted, dtype="float64") - truth for side in sides]
    limit = max(float(np.abs(values).max()) for values in residuals) * 1.08 or 1.0
    size = float(np.clip(2_000 / max(len(truth), 1), 4, 26))
    for panel, side, values in zip(panels, sides, residuals, strict=True):
        panel.axhline(0, color=_INK, linewidth=0.8)
        panel.scatter(truth, values, s=size, alpha=0.65, color=_COLOUR, edgecolors="none")
        error = float(np.abs(values).mean())
        panel.set_title(f"{side.name}\nmean absolute error {error:.4g}", fontsize=11)
        panel.set_xlabel("true value")
        panel.set_ylabel("predicted - true")
        panel.set_ylim(-limit, limit)
        panel.grid(visible=True, color="#e4e7eb", linewidth=0.6)
        panel.set_axisbelow(True)
    _save(figure, path)


def _figure(count: int, *, width: float, height: float) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width * count, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for panel in panels:
        panel.title.set_color(_INK)
        for spine in panel.spines.values():
            spine.set_color("#cbd2d9")
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    # Without the version of matplotlib, the same numbers give the same file.
    figure.savefig(path, metadata={"Software": None})


def _shortened(text: str) -> str:
    return text if len(text) <= 18 else text[:17] + "\N{HORIZONTAL ELLIPSIS}"
