"""Runs of the project's tests, as evidence has them."""

import msgspec

from mlship.domain.scores import TestRun


class SuiteRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a suite of the project's tests.

    Attributes:
        failures: a line for each failed test.
        deselected: the tests that were collected and then left out.
        wrote: the files that it changed or left behind, and that git does not ignore.
    """

    suite: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float | str | None = None
    failures: tuple[str, ...] = ()
    deselected: int = 0
    wrote: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: TestRun) -> "SuiteRun":
        """Return a run for evidence."""
        return cls(
            suite=run.suite,
            passed=run.passed,
            failed=run.failed,
            skipped=run.skipped,
            seconds=run.seconds,
            failures=run.failures,
            deselected=run.deselected,
            wrote=run.wrote,
        )
