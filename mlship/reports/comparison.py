"""Slices that got worse and changes of the data, as plain text and as Markdown."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from mlship.domain.facts import Tested
from mlship.domain.scores import Slice, Slices
from mlship.domain.shifts import GREAT, Shift, Shifts
from mlship.reports import formatting
from mlship.reports.formatting import escaped, folded, interval, number, short, signed, table

WORST_SHOWN: Final = 10
CHANGES_SHOWN: Final = 10


class Rows(NamedTuple):
    """A table of plain text; `users` are the columns that hold text of users."""

    header: list[str]
    rows: list[list[str]]
    users: tuple[int, ...]


def slices_line(slices: Slices) -> str:
    """Say in one line how many slices got worse, of how many that were judged."""
    small = f"; {slices.small} more are too small to judge" if slices.small else ""
    if not slices.judged:
        return f"None of {slices.small} slices is large enough to judge."
    many = slices.worse or "None"
    return (
        f"{many} of {slices.judged} slices got worse than the champion, by {slices.metric}{small}."
    )


def worst(slices: Slices) -> list[Slice]:
    """Return the slices that got worse, the worst first, as many as one looks at."""
    return [one for one in slices.listed if one.is_worse][:WORST_SHOWN]


def of_slices(slices: Slices, chosen: Sequence[Slice]) -> Rows:
    """Return a row for each of the slices given."""
    within = f"{formatting.percent(slices.confidence)} interval"
    header = ["column", "value", "rows", "release", "champion", "difference", within]
    rows = [
        [
            short(one.column, 40),
            short(one.value, 40),
            str(one.samples),
            number(one.release),
            number(one.champion),
            signed(one.difference.estimate),
            interval(one.difference.low, one.difference.high),
        ]
        for one in chosen
    ]
    return Rows(header, rows, users=(0, 1))


def about_slices(slices: Slices) -> str:
    """Say how the intervals were made, and what was not looked at."""
    missed = slices.judged - len(slices.listed)
    more = f" Not listed: {missed} more." if missed else ""
    left = f" Not looked at: {slices.left_out} columns or values." if slices.left_out else ""
    return f"Intervals: {slices.method}.{more}{left}"


def data_lines(shifts: Shifts) -> list[str]:
    """Say what changed in the training data, a line each, the most important first."""
    if shifts.unknown:
        return [f"Not known: {shifts.unknown}."]
    if shifts.same:
        return ["The same data as the champion's, byte for byte."]
    lines = list(_changes(shifts))
    more = len(lines) - CHANGES_SHOWN
    return [*lines[:CHANGES_SHOWN], f"and {more} more"] if more > 0 else lines


def of_data(shifts: Shifts) -> Rows:
    """Return a row for each column that was compared, the largest shift first."""
    header = ["column", "PSI", "by chance below", "moved most", "before", "after", "missing"]
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
    """Say how columns were compared, and what was not."""
    missed = shifts.compared - len(shifts.listed)
    more = f" Not listed: {missed} more." if missed else ""
    left = f" Not looked at: {shifts.left_out}." if shifts.left_out else ""
    index = "PSI is the population stability index: 0.1 is some change, 0.25 a great one."
    return f"{index}{more}{left}"


def slices(tested: Tested | None) -> str:
    """Return Markdown that says which slices got worse; empty where none were compared."""
    if tested is None or tested.slices is None:
        return ""
    title = "Slices that got worse" if tested.slices.worse else "Slices"
    text = f"### {title}\n\n{escaped(slices_line(tested.slices))}"
    chosen = worst(tested.slices)
    return f"{text}\n\n{_table(of_slices(tested.slices, chosen))}" if chosen else text


def all_slices(tested: Tested | None) -> str:
    """Return folded Markdown of the slices that were judged."""
    if tested is None or tested.slices is None or not tested.slices.listed:
        return ""
    slices = tested.slices
    text = f"{_table(of_slices(slices, slices.listed))}\n\n{escaped(about_slices(slices), 300)}"
    return folded(f"Slices ({slices.judged})", text)


def data(tested: Tested | None) -> str:
    """Return Markdown that says what changed in the training data since the champion's."""
    if tested is None or tested.shifts is None:
        return ""
    lines = "\n".join(f"- {escaped(line, 800)}" for line in data_lines(tested.shifts))
    return f"### Training data against the champion's\n\n{lines}"


def all_columns(tested: Tested | None) -> str:
    """Return folded Markdown of how each column of the training data moved."""
    if tested is None or tested.shifts is None or not tested.shifts.listed or tested.shifts.same:
        return ""
    shifts = tested.shifts
    text = f"{_table(of_data(shifts))}\n\n{escaped(about_data(shifts), 300)}"
    return folded(f"Columns of the training data ({shifts.compared})", text)


def _table(plain: Rows) -> str:
    rows = [
        [escaped(cell, 60) if place in plain.users else cell for place, cell in enumerate(row)]
        for row in plain.rows
    ]
    return table(plain.header, rows)


def _changes(shifts: Shifts) -> Iterator[str]:
    before, after = shifts.rows_before, shifts.rows_after
    grown = f" ({after / before - 1:+.1%})" if before and before != after else ""
    yield f"{after} rows, the champion's had {before}{grown}"
    if shifts.added:
        yield f"new columns: {_listed(shifts.added)}"
    if shifts.removed:
        yield f"columns gone: {_listed(shifts.removed)}"
    for one in shifts.retyped:
        yield f"{short(one.column, 40)} is {one.after}, was {one.before}"
    if not shifts.told:
        yield f"no column shifted, of {shifts.compared} compared"
    for shift in shifts.listed:
        if shift.is_told:
            yield _moved(shift)


def _moved(shift: Shift) -> str:
    how = "shifted greatly" if shift.psi >= GREAT else "shifted"
    moved = f"{short(shift.group, 40)} are {_share(shift.after)} of the rows"
    return (
        f"{short(shift.column, 40)} {how} (PSI {_index(shift.psi)}): "
        f"{moved}, were {_share(shift.before)}"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(short(name, 40) for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{shown}{more}"


def _share(share: float) -> str:
    return f"{share:.1%}"


def _index(value: float) -> str:
    return f"{value:.2f}"
