"""Checks: the conditions of a gate as values, and their text for people.

Programs read `holds` and `name`. The words `ok` and `NOT OK` are for people. Evidence of older
versions has only lines of text; `read` parses them.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from mlship.domain.evidence import Verdict

_OK: Final = "ok: "
_WARNING: Final = "WARNING: "
_NOT_OK: Final = "NOT OK: "


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One condition of a gate.

    Attributes:
        name: of the checked metric or step, or `approvals`; empty if it is not known.
        holds: whether the condition is met.
        text: the condition and the observed value, for people.
        warns: whether people must look at it although it holds.
    """

    name: str
    holds: bool
    text: str
    warns: bool = False


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and each check behind it."""

    verdict: Verdict
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return failed(self.checks)


def decide(checks: Sequence[Check]) -> Decision:
    """Return `passed` if every check holds and there is at least one."""
    if not checks:
        checks = [Check(name="checks", holds=False, text="nothing to check")]
    verdict: Verdict = "passed" if all(check.holds for check in checks) else "failed"
    return Decision(verdict=verdict, checks=tuple(checks))


def failed(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the checks that do not hold."""
    return tuple(check for check in checks if not check.holds)


def warnings(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the checks that hold and that people must look at."""
    return tuple(check for check in checks if check.holds and check.warns)


def line(check: Check) -> str:
    """Return a check for people: `NOT OK: accuracy 0.65, needs at least 0.7`."""
    if check.holds:
        return (_WARNING if check.warns else _OK) + check.text
    return _NOT_OK + check.text


def joined(checks: Iterable[Check]) -> str:
    """Return checks for people in one line."""
    return "; ".join(map(line, checks))


def read(text: str) -> Check:
    """Parse a line of older evidence; a line without `ok: ` is a failed check."""
    if text.startswith(_OK):
        return Check(name="", holds=True, text=text.removeprefix(_OK))
    return Check(name="", holds=False, text=text.removeprefix(_NOT_OK))
