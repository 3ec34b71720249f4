"""Worse slices and changes of the training data, as plain text and as Markdown."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from mlship.domain.facts import Tested
from mlship.domain.scores import Slice, Slices
from mlship.domain.shifts import GREAT, Shift, Shifts
from mlship.errors import some
from mlship.reports import formatting
from mlship.reports.formatting import escaped, folded, interval, number, short, signed, table

WORST_SHOWN: Final = 10
CHANGES_SHOWN: Final = 10


class Rows(NamedTuple):
    """A table of plain text; `users` are the indexes of columns with text from users."""

    header: list[str]
    rows: list[list[str]]
    users: tuple[int, ...]


def slices_line(slices: Slices) -> str:
    """Return one line with the number of worse slices and of judged slices."""
    small = f"; {slices.small} more are too small to judge" if slices.small else ""
    if not slices.judged:
        return f"None of {slices.small} slices is large enough to judge."
    count = f"{slices.worse or 'None'} of {slices.judged} slices"
    verb = "are" if slices.worse > 1 else "is"
    return f"{count} {verb} worse than the champion, by {slices.metric}{small}."


def worst(slices: Slices) -> list[Slice]:
    """Return the first `WORST_SHOWN` of the worse slices, the worst first."""
    return [item for item in slices.listed if item.is_worse][:WORST_SHOWN]


def of_slices(slices: Slices, chosen: Sequence[Slice]) -> Rows:
    """Return a row for each of the chosen slices."""
    within = f"{formatting.percent(slices.confidence)} interval"
    header = ["column", "value", "rows", "release", "champion", "difference", within]
    rows = [
        [
            short(item.column, 40),
            short(item.value, 40),
            str(item.samples),
            number(item.release),
            number(item.champion),
            signed(item.difference.estimate),
            interval(item.difference.low, item.difference.high),
        ]
        for item in chosen
    ]
    return Rows(header, rows, users=(0, 1))


def about_slices(slices: Slices) -> str:
    """Return the method of the intervals, and the number of slices that are not shown."""
    unlisted = slices.judged - len(slices.listed)
    more = f" Not listed: {unlisted} more." if unlisted else ""
    skipped = f" Not evaluated: {slices.left_out} columns or values." if slices.left_out else ""
    return f"Intervals: {slices.method}.{more}{skipped}"


def data_lines(shifts: Shifts) -> list[str]:
    """Return the changes in the training data, one line each, the most important first."""
    if shifts.unknown:
        return [f"Unknown: {shifts.unknown}."]
    if shifts.same:
        return ["Identical to the champion's training data."]
    lines = list(_changes(shifts))
    more = len(lines) - CHANGES_SHOWN
    return [*lines[:CHANGES_SHOWN], f"and {more} more"] if more > 0 else lines


def of_data(shifts: Shifts) -> Rows:
    """Return a row for each compared column, the largest shift first."""
    header = ["column", "PSI", "chance limit", "largest change", "before", "after", "missing"]
    rows = [
        [
            short(shift.column, 40),
            _index(shift.psi),
            _index(shift.chance),
            short(shift.group, 40),
            _share(shift.before),
            _share(shift.after),
            f"{_share(shift.missing_before)} to {_share(shift.missing_after)}",
        ]
        for shift in shifts.listed
    ]
    return Rows(header, rows, users=(0, 3))


def about_data(shifts: Shifts) -> str:
    """Return how columns were compared, and the number of columns that are not shown."""
    unlisted = shifts.compared - len(shifts.listed)
    more = f" Not listed: {unlisted} more." if unlisted else ""
    skipped = f" Not compared: {shifts.left_out}." if shifts.left_out else ""
    index = (
        "PSI is the population stability index: 0.1 is a moderate change, 0.25 a large one; "
        "equal data stays below the chance limit."
    )
    return f"{index}{more}{skipped}"


def slices(tested: Tested | None) -> str:
    """Return the worse slices as Markdown; empty if no slices were compared."""
    if tested is None or tested.slices is None:
        return ""
    title = "Worse slices" if tested.slices.worse else "Slices"
    text = f"### {title}\n\n{escaped(slices_line(tested.slices))}"
    chosen = worst(tested.slices)
    return f"{text}\n\n{_table(of_slices(tested.slices, chosen))}" if chosen else text


def all_slices(tested: Tested | None) -> str:
    """Return folded Markdown with all judged slices."""
    if tested is None or tested.slices is None or not tested.slices.listed:
        return ""
    slices = tested.slices
    text = f"{_table(of_slices(slices, slices.listed))}\n\n{escaped(about_slices(slices), 300)}"
    return folded(f"Slices ({slices.judged})", text)


def data(tested: Tested | None) -> str:
    """Return the changes of the training data since the champion as Markdown."""
    if tested is None or tested.shifts is None:
        return ""
    lines = "\n".join(f"- {escaped(line, 800)}" for line in data_lines(tested.shifts))
    return f"### Training data compared with the champion\n\n{lines}"


def all_columns(tested: Tested | None) -> str:
    """Return folded Markdown with the shift of each column of the training data."""
    if tested is None or tested.shifts is None or not tested.shifts.listed or tested.shifts.same:
        return ""
    shifts = tested.shifts
    text = f"{_table(of_data(shifts))}\n\n{escaped(about_data(shifts), 300)}"
    return folded(f"Columns of the training data ({shifts.compared})", text)


def _table(plain: Rows) -> str:
    rows = [
        [escaped(cell, 60) if index in plain.users else cell for index, cell in enumerate(row)]
        for row in plain.rows
    ]
    return table(plain.header, rows)


def _changes(shifts: Shifts) -> Iterator[str]:
    before, after = shifts.rows_before, shifts.rows_after
    growth = f" ({after / before - 1:+.1%})" if before and before != after else ""
    yield f"{after} rows; the champion has {before}{growth}"
    if shifts.added:
        yield f"added columns: {_listed(shifts.added)}"
    if shifts.removed:
        yield f"removed columns: {_listed(shifts.removed)}"
    for retyped in shifts.retyped:
        yield f"{short(retyped.column, 40)} is {retyped.after}, was {retyped.before}"
    if not shifts.told:
        yield f"none of {shifts.compared} compared columns shifted"
    for shift in shifts.listed:
        if shift.is_told:
            yield _moved(shift)


def _moved(shift: Shift) -> str:
    change = "shifted strongly" if shift.psi >= GREAT else "shifted"
    return (
        f"{short(shift.column, 40)} {change} (PSI {_index(shift.psi)}): {short(shift.group, 40)} "
        f"changed from {_share(shift.before)} to {_share(shift.after)} of the rows"
    )


def _listed(names: Sequence[str]) -> str:
    return some([short(name, 40) for name in names], most=10)


def _share(share: float) -> str:
    return f"{share:.1%}"


def _index(value: float) -> str:
    return f"{value:.2f}"
