"""A confusion matrix as text, for places that cannot show an image."""

from collections.abc import Sequence
from typing import Final

from mlship.domain.bundle import Value
from mlship.reports.formatting import escaped

CLASSES_SHOWN: Final = 12
PAIRS_SHOWN: Final = 10


def picture(labels: Sequence[Value], counts: Sequence[Sequence[int]]) -> str:
    """Return the matrix as a Markdown table: a coloured square, the count, the share of its row.

    Green is correct; the redder a square, the more rows of a class were confused with another.
    With more than 12 classes, the most frequently confused pairs are listed instead.

    Args:
        labels: of the classes; text from users.
        counts: rows are true classes, columns are predicted classes, as many of each as labels.
    """
    if not labels or any(len(row) != len(labels) for row in [counts, *counts]):
        return ""
    if len(labels) > CLASSES_SHOWN:
        return _pairs(labels, counts)
    names = [escaped(label, 40) for label in labels]
    lines = [["true \\ predicted", *names], ["---", *["---:"] * len(names)]]
    for true, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row)
        cells = [
            f"{_square(count, total, is_right=true == column)} {count}{_percent(count, total)}"
            for column, count in enumerate(row)
        ]
        lines.append([f"**{name}**", *cells])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n🟩 correct, 🟨 a few, 🟧 many, 🟥 most confused with another class, ⬜ none"


def _square(count: int, total: int, *, is_right: bool) -> str:
    share = count / total if total else 0.0
    errors = 1 - share if is_right else share
    if not total or (not count and not is_right):
        return "⬜"
    if is_right and errors <= 0.1:
        return "🟩"
    return "🟨" if errors <= 0.2 else "🟧" if errors <= 0.5 else "🟥"


def _percent(count: int, total: int) -> str:
    return f" ({count / total:.0%})" if count and total else ""


def _pairs(labels: Sequence[Value], counts: Sequence[Sequence[int]]) -> str:
    confused = [
        (count, labels[true], labels[predicted])
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    if not confused:
        return f"None of {len(labels)} classes was confused with another."
    frequent = sorted(confused, key=lambda pair: pair[0], reverse=True)[:PAIRS_SHOWN]
    lines = [
        f"| {escaped(true, 40)} | {escaped(predicted, 40)} | {count} |"
        for count, true, predicted in frequent
    ]
    return "\n".join(["| true | predicted | rows |", "| --- | --- | ---: |", *lines])
