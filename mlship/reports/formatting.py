"""Formatting of numbers, verdicts, text from users and blocks of Markdown. Pure functions."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from mlship.domain.evidence import Verdict
from mlship.domain.facts import Number

SYMBOLS: dict[Verdict, str] = {"passed": "✓", "failed": "✗", "undecided": "?"}
"""Shown with the word, because not everybody sees colours, and logs have none."""

EMOJI: dict[Verdict, str] = {"passed": "✅", "failed": "❌", "undecided": "❔"}

MISSING = "-"

SENTENCES: Final = 600
"""The limit for sentences that name a file and say what to do."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#!|~$])")
_BLOCK = re.compile(r"^(\d+)([.)])(?=\s)|^()([-+=>])")
_MENTION = re.compile(r"(?<![A-Za-z0-9_])@(?=\w)")
_REFERENCE = re.compile(r"(?i)(\\#|\bGH-)(?=\d)")
_WORD_JOINER = "\u2060"


def number(value: Number) -> str:
    """Return a number with 4 significant digits, `nan` or `inf`; `-` for any other text."""
    return MISSING if value is None else _formatted(value, "")


def whole(count: Number) -> str:
    """Return a count with all its digits; `-` for anything else."""
    return f"{count:.0f}" if isinstance(count, float | int) else MISSING


def signed(value: Number) -> str:
    """Return a difference: a number with its sign."""
    return MISSING if value is None else _formatted(value, "+")


def _formatted(value: float | str, sign: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return MISSING
    return "nan" if math.isnan(number) else format(number, sign + ".4g")


def interval(low: Number, high: Number) -> str:
    """Return the bounds of an interval, or `unknown`."""
    bounds = signed(low), signed(high)
    return "unknown" if {"nan", MISSING} & {*bounds} else " to ".join(bounds)


def percent(share: Number) -> str:
    """Return 0.95 as 95%."""
    return f"{100 * share:.4g}%" if isinstance(share, float | int) else number(share)


def megabytes(size: Number) -> str:
    """Return a number of bytes in whole megabytes."""
    return f"{size / 1e6:.0f}" if isinstance(size, float | int) else number(size)


def seconds(value: Number) -> str:
    """Return a duration: 0.42 s, 12.3 s, 3 min 20 s."""
    if not isinstance(value, float | int):
        return MISSING
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def moment(time: datetime) -> str:
    """Return a time to the second, in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def short(text: object, limit: int = 200) -> str:
    """Return text from a user on one line, without control characters, at most `limit` long.

    It is cut between words, unless a single word would take half of it away.
    """
    visible = "".join(
        " " if unicodedata.category(letter)[0] in "CZ" else letter for letter in str(text)
    )
    line = " ".join(visible.split())
    if len(line) <= limit:
        return line
    words = line[:limit].rpartition(" ")[0]
    return (words if len(words) >= limit // 2 else line[: limit - 1]) + "…"


def escaped(text: object, limit: int = 200) -> str:
    """Return text from a user as Markdown that only shows it.

    It contains no HTML, formatting, link, picture or table cell, and mentions no account and no
    issue. A backslash does not prevent mentions, which GitHub detects after it has converted the
    Markdown to HTML; a zero-width character does.
    """
    line = short(text, limit).replace("&", "&amp;").replace("<", "&lt;")
    line = _BLOCK.sub(r"\1\3\\\2\4", _MARKDOWN.sub(r"\\\1", line))
    line = line.replace("://", r"\://").replace("www.", r"www\.")
    line = _REFERENCE.sub(r"\1" + _WORD_JOINER, line)
    return _MENTION.sub("@" + _WORD_JOINER, line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def folded(summary: str, body: str) -> str:
    """Return a collapsed section."""
    # With the empty lines, the body is parsed as Markdown inside the HTML.
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"
