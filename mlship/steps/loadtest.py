"""loadtest: send requests at a fixed rate, or find the highest rate that holds a bound.

A load test is no evidence of a release, and nothing is recorded: it depends on the machine.
"""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

import msgspec

from mlship.domain.load import Generator, LoadPlan, LoadResult, replicas
from mlship.domain.load_report import Limits, LoadReport, Population, Subject
from mlship.domain.rate_search import find_rate, late
from mlship.errors import ConfigError, RefusedError, UnavailableError

_PATH: Final = "/predict"


class Watch(Protocol):
    """Shows a run while it goes on."""

    def started(self, rate: float) -> None:
        """Show that a run at a rate starts."""

    def watch(self, result: LoadResult) -> None:
        """Show the result so far."""


def check(limits: Limits, population: Population, *, searches: bool) -> None:
    """Check the options of a load test.

    Raises:
        ConfigError: a number is not positive, or a search has no bound.
    """
    if searches and limits.p99_ms is None:
        raise ConfigError("--find-rate needs a bound", hint="give one, such as --p99 50ms")
    numbers = {
        "--rate": limits.rate,
        "--seconds": limits.seconds,
        "--users": limits.users,
        "--timeout": limits.timeout,
        "--processes": limits.processes,
        "--for-users": population.users,
        "--user-rate": population.user_rate,
    }
    for option, number in numbers.items():
        if not 0 < number < math.inf:
            raise ConfigError(f"{option} is {number:g}", hint=f"give {option} a number above 0")
    if limits.processes > limits.users:
        message = f"--processes {limits.processes} is more than --users {limits.users}"
        raise ConfigError(message, hint="each process needs a user: give --users more")


def plan_of(subject: Subject, limits: Limits) -> LoadPlan:
    """Return what is sent at the rate of the limits."""
    return LoadPlan(
        url=f"{subject.endpoint}{_PATH}",
        bodies=subject.bodies,
        rate=limits.rate,
        seconds=limits.seconds,
        users=limits.users,
        timeout=limits.timeout,
        user_header=subject.user_header,
        processes=limits.processes,
    )


def run(
    subject: Subject,
    limits: Limits,
    generator: Generator,
    view: Watch,
    clock: Callable[[], datetime],
) -> LoadReport:
    """Send requests at one rate.

    Raises:
        TimedOutError: the generator was too slow, so that there is no result.
        UnavailableError: no request succeeded.
    """
    started = clock()
    result = _run(plan_of(subject, limits), generator, view)
    bound = limits.p99_ms
    holding = None if bound is None else result.against(bound)
    if holding == "undecided" or (holding is None and result.is_generator_late):
        raise late(result)
    if not result.answered:
        reasons = ", ".join(f"{kind} ({count})" for kind, count in result.errors.items())
        message = f"none of {result.total.requests} requests to {subject.endpoint} succeeded"
        raise UnavailableError(f"{message}: {reasons}", hint="run `mlship status`")
    return LoadReport(
        subject=subject,
        limits=limits,
        started=started,
        result=result,
        verdict=holding,
    )


def search(
    subject: Subject,
    limits: Limits,
    population: Population,
    generator: Generator,
    view: Watch,
    clock: Callable[[], datetime],
) -> LoadReport:
    """Find the highest rate that holds the bound, and how many replicas the users need.

    Raises:
        TimedOutError: the generator was too late to tell at some rate.
        RefusedError: no rate holds the bound.
    """
    if limits.p99_ms is None:
        raise TypeError(limits)
    plan, started = plan_of(subject, limits), clock()

    def at(rate: float, length: int) -> LoadResult:
        changed = msgspec.structs.replace(plan, rate=rate, seconds=plan.seconds * length)
        return _run(changed, generator, view)

    found = find_rate(at, limits.rate, limits.p99_ms)
    total = found.result.total
    return LoadReport(
        subject=subject,
        limits=limits,
        started=started,
        result=found.result,
        verdict="held",
        capacity=round(found.rate, 2),
        trials=found.trials,
        replicas=replicas(
            population.users, population.user_rate, found.rate, subject.replicas, total.mean_ms
        ),
    )


def check_verdict(report: LoadReport) -> None:
    """Refuse a result that misses the bound.

    Raises:
        RefusedError: the p99 is above the bound, or requests failed.
    """
    if report.verdict != "missed":
        return
    result = report.result
    message = f"at {result.rate:g} requests/s the p99 is {result.p99_ms:g} ms and "
    message += f"{result.total.errors} of {result.total.requests} requests failed; the bound is "
    message += f"{report.limits.p99_ms:g} ms without failures"
    raise RefusedError(
        message,
        hint="lower --rate, or find the highest rate with --find-rate",
        facts=msgspec.to_builtins(report),
    )


def _run(plan: LoadPlan, generator: Generator, view: Watch) -> LoadResult:
    view.started(plan.rate)
    return generator.run(plan, view.watch)
