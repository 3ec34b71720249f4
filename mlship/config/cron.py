"""The five fields of cron, in UTC: whether a schedule ever comes, and when."""

import functools
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

Cron = Annotated[
    str,
    Meta(
        pattern=r"^[0-9*/,-]+( [0-9*/,-]+){4}(?!\n)$",
        extra={"form": "the five fields of cron, such as 17 5 * * *"},
    ),
]

FIELDS: Final = (
    "minute, hour, day of the month, month and day of the week (0 is Sunday), in UTC: 17 5 * * *"
)
"""What the fields are, for hints."""

_FIELDS: Final = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 6),
)
_LONGEST: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAY: Final = timedelta(days=1)
_MINUTES_A_DAY: Final = 24 * 60
_MOST_DAYS: Final = 366 * 9
"""From one 29 February to the next there may be eight years: 2100 is no leap year."""


class _Times(NamedTuple):
    """When a schedule comes."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    """Whether one kind of day is enough, because both are restricted."""

    def has(self, day: date) -> bool:
        """Return whether the schedule comes on a day."""
        if day.month not in self.months:
            return False
        kinds = (day.day in self.days, day.isoweekday() % 7 in self.weekdays)
        return any(kinds) if self.either else all(kinds)


def fault(schedule: str) -> str:
    """Return why a schedule never comes, or is none; empty if it comes.

    Args:
        schedule: numbers, `*`, ranges, lists and steps in five fields.
    """
    values = []
    for text, (name, low, high) in zip(schedule.split(" "), _FIELDS, strict=True):
        members = [_values(item, low, high) for item in text.split(",")]
        if None in members:
            return f"{name} {text} is not within {low} to {high}"
        for item, member in zip(text.split(","), members, strict=True):
            if member is not None and member.step > 1 and len(member) == 1:
                return f"{name} {item} has a step beyond its end: it comes at {member[0]} only"
        values.append({number for member in members for number in member or ()})
    days, months, weekdays = values[2], values[3], schedule.split(" ")[4]
    # With both kinds of days restricted, one of them is enough.
    if weekdays.startswith("*") and not any(min(days) <= _LONGEST[month - 1] for month in months):
        return f"no month {schedule.split(' ')[3]} has a day {schedule.split(' ')[2]}"
    return ""


def restricts_both_days(schedule: str) -> bool:
    """Return whether a schedule restricts days of the month and of the week."""
    fields = schedule.split(" ")
    return fields[2] != "*" and fields[4] != "*"


def shortest_minutes(schedule: str) -> int:
    """Return the minutes between the two times of a schedule that are closest in a day."""
    times = _times(schedule)
    moments = [60 * hour + minute for hour in times.hours for minute in times.minutes]
    if len(moments) == 1:
        return 24 * 60
    return min(
        (b - a) % (24 * 60) for a, b in zip(moments, [*moments[1:], moments[0]], strict=True)
    )


def last(schedule: str, at: datetime) -> datetime:
    """Return the last time of a schedule without a fault that is not after `at`."""
    times = _times(schedule)
    for back in range(_MOST_DAYS):
        day = at.date() - back * _DAY
        if times.has(day):
            for moment in _moments(times, day, at, reverse=True):
                if moment <= at:
                    return moment
    raise ValueError(schedule)


def following(schedule: str, at: datetime) -> datetime:
    """Return the first time of a schedule without a fault that is after `at`."""
    times = _times(schedule)
    for ahead in range(_MOST_DAYS):
        day = at.date() + ahead * _DAY
        if times.has(day):
            for moment in _moments(times, day, at, reverse=False):
                if moment > at:
                    return moment
    raise ValueError(schedule)


def _moments(times: _Times, day: date, like: datetime, *, reverse: bool) -> Iterator[datetime]:
    step = -1 if reverse else 1
    for hour in times.hours[::step]:
        for minute in times.minutes[::step]:
            yield datetime.combine(day, time(hour, minute), like.tzinfo)


@functools.cache
def _times(schedule: str) -> _Times:
    fields = schedule.split(" ")
    parts = [
        sorted({number for item in text.split(",") for number in _values(item, low, high) or ()})
        for text, (_, low, high) in zip(fields, _FIELDS, strict=True)
    ]
    return _Times(
        minutes=tuple(parts[0]),
        hours=tuple(parts[1]),
        days=frozenset(parts[2]),
        months=frozenset(parts[3]),
        weekdays=frozenset(parts[4]),
        either=not (fields[2].startswith("*") or fields[4].startswith("*")),
    )


def _values(item: str, low: int, high: int) -> range | None:
    """Return the numbers of an item such as `*/15` or `1-5`; `None` if it is wrong."""
    span, has_step, step = item.partition("/")
    first, is_range, end = span.partition("-")
    if span == "*":
        first, end = str(low), str(high)
    elif not is_range:
        end = str(high) if has_step else first
    if not (first.isdecimal() and end.isdecimal() and (step.isdecimal() or not has_step)):
        return None
    width = int(step) if has_step else 1
    is_within = low <= int(first) <= int(end) <= high and width >= 1
    return range(int(first), int(end) + 1, width) if is_within else None
