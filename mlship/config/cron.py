"""Schedules of GitHub's workflows: the five fields of cron, in UTC."""

from typing import Final

_FIELDS: Final = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 6),
)
_LONGEST: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


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
        values.append({number for member in members for number in member or ()})
    days, months, weekdays = values[2], values[3], schedule.split(" ")[4]
    # With both kinds of days restricted, one of them is enough.
    if weekdays.startswith("*") and not any(min(days) <= _LONGEST[month - 1] for month in months):
        return f"no month {schedule.split(' ')[3]} has a day {schedule.split(' ')[2]}"
    return ""


def _values(item: str, low: int, high: int) -> range | None:
    """Return the numbers of an item such as `*/15` or `1-5`; `None` if it is wrong."""
    span, has_step, step = item.partition("/")
    first, is_range, last = span.partition("-")
    if span == "*":
        first, last = str(low), str(high)
    elif not is_range:
        last = str(high) if has_step else first
    if not (first.isdecimal() and last.isdecimal() and (step.isdecimal() or not has_step)):
        return None
    width = int(step) if has_step else 1
    is_within = low <= int(first) <= int(last) <= high and width >= 1
    return range(int(first), int(last) + 1, width) if is_within else None
