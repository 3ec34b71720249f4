"""A plugin of pytest whose workers are forks: tests are collected once, results are few messages.

pytest-xdist imports and collects in each worker, and exchanges several messages for each phase of
a test, which takes longer than most unit tests. Here, with `-p tests.harness.forks --forks auto`,
each worker takes the next group of tests (`xdist_group`, or a single test without one) until none
is left; the process that collected them reports. With pytest-cov, each worker measures, too.
"""

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest._io import TerminalWriter
from coverage import Coverage

RUN = "TEST_RUN"
"""Names the run in the environment of its workers."""
_CONTEXT = multiprocessing.get_context("fork")
_MOST = 4
_SECONDS = 0.5
"""How long results are gathered before they are sent."""
_NOTABLE = 0.005
"""The seconds of a setup or teardown that `--durations` shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--forks", default="0", help="number of forked workers, or auto")


def count(config: pytest.Config) -> int:
    """Return the number of workers that the options ask for; 0 if the plugin is not used."""
    number = config.getoption("forks", "0")
    return min(_MOST, len(os.sched_getaffinity(0))) if number == "auto" else int(number)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in workers; return nothing to let pytest do without them."""
    config = session.config
    number = count(config)
    if not number or session.testsfailed or config.option.collectonly:
        return None
    # Otherwise each worker would empty the folder that another one uses.
    config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    os.environ[RUN] = str(os.getpid())
    run = _Run(session)
    workers = run.start(number)
    try:
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                if not run.receive(connection):
                    run.ended(*workers.pop(connection))
    finally:
        run.stop()
        for process, _ in workers.values():
            process.join()
    run.check()
    return True


class _Run:
    """The groups of tests, what the workers share, and what came back from them."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._groups = _groups(session.items)
        self._taken = _CONTEXT.Value("l", 0)
        self._is_stopped = _CONTEXT.Value("b", False, lock=False)
        self._finished = 0

    def start(self, number: int) -> dict[Connection, tuple[ForkProcess, Any]]:
        """Start workers; return their connections, and the place of the test that each runs."""
        workers: dict[Connection, tuple[ForkProcess, Any]] = {}
        for _ in range(number):
            receiving, sending = _CONTEXT.Pipe(duplex=False)
            current = _CONTEXT.Value("l", -1, lock=False)
            others = (*workers, receiving)
            process = _CONTEXT.Process(target=self._work, args=(sending, current, others))
            process.start()
            sending.close()
            workers[receiving] = (process, current)
        return workers

    def stop(self) -> None:
        """Let each worker begin no further test."""
        self._is_stopped.value = True

    def receive(self, connection: Connection) -> bool:
        """Report results of a worker; return whether it may send more."""
        try:
            finished, reports = connection.recv()
        except EOFError:
            return False
        self._finished += finished
        config = self._session.config
        for data in reports:
            report = config.hook.pytest_report_from_serializable(config=config, data=data)
            self._report(report)
        return True

    def ended(self, process: ForkProcess, current: Any) -> None:
        """Report the test in which a worker crashed."""
        process.join()
        if process.exitcode == 0:
            return
        item = self._session.items[max(current.value, 0)]
        text = f"worker ended with exit code {process.exitcode} during {item.nodeid}"
        self._report(pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call"))

    def check(self) -> None:
        """Raise `Interrupted` if tests have no result, because a worker crashed."""
        lost = len(self._session.items) - self._finished
        if lost:
            raise self._session.Interrupted(f"{lost} tests without a result")

    def _report(self, report: pytest.TestReport) -> None:
        self._session.config.hook.pytest_runtest_logreport(report=report)
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)

    def _work(self, sending: Connection, current: Any, others: Iterable[Connection]) -> None:
        """Run tests in a worker, until no group is left or a test asks to stop."""
        for connection in others:  # otherwise it would not see that the reader is gone
            connection.close()
        config = self._session.config
        _capture_apart(config)
        config.pluginmanager.unregister(name="terminalreporter")
        # pytest-timeout writes to it, and pytest-rerunfailures looks for subtests in it.
        writer = SimpleNamespace(_tw=TerminalWriter(sys.__stderr__), stats={})
        config.pluginmanager.register(writer, "terminalreporter")
        results = _Results(config, sending)
        config.pluginmanager.register(results)
        measured = _measured(config)
        places = {item: place for place, item in enumerate(self._session.items)}
        items = self._items()
        item = next(items, None)
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            while item is not None:
                following = next(items, None)
                current.value = places[item]
                if measured:
                    measured.switch(is_on=item.get_closest_marker("no_cover") is None)
                config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                results.finish()
                if self._session.shouldfail or self._session.shouldstop or self._is_stopped.value:
                    break
                item = following
        # Servers of fixtures must end, too, also where nobody is left who wants results.
        self._session._setupstate.teardown_exact(None)
        if measured:
            measured.save()
        with contextlib.suppress(BrokenPipeError):
            results.send()

    def _items(self) -> Iterator[pytest.Item]:
        """Yield the tests of a worker; a group is taken when the last test before it begins."""
        while True:
            with self._taken.get_lock():
                place = self._taken.value
                self._taken.value += 1
            if place >= len(self._groups):
                return
            yield from self._groups[place]


class _Measured:
    """The coverage of a worker, of whole tests, in a file that pytest-cov combines with others."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage, self._is_on = coverage, False

    def switch(self, *, is_on: bool) -> None:
        """Measure what follows, or not."""
        if is_on != self._is_on:
            self._is_on = is_on
            (self._coverage.start if is_on else self._coverage.stop)()

    def save(self) -> None:
        """Write what was measured."""
        self.switch(is_on=False)
        self._coverage.save()


class _Results:
    """A plugin that gathers the reports of a worker."""

    def __init__(self, config: pytest.Config, sending: Connection) -> None:
        self._config, self._sending = config, sending
        self._finished = 0
        self._reports: list[dict[str, Any]] = []
        self._sent = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a report that says something: not a quick setup that passed."""
        quiet = report.passed and not report.sections and report.duration < _NOTABLE
        if quiet and report.when != "call":
            return
        hook = self._config.hook
        data = hook.pytest_report_to_serializable(config=self._config, report=report)
        self._reports.append(data)

    def finish(self) -> None:
        """Count a test, and send what was gathered for long enough."""
        self._finished += 1
        if time.monotonic() - self._sent > _SECONDS:
            self.send()

    def send(self) -> None:
        """Send what was gathered."""
        self._sending.send((self._finished, self._reports))
        self._finished, self._reports, self._sent = 0, [], time.monotonic()


def _groups(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    groups: dict[object, list[pytest.Item]] = {}
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        groups.setdefault(mark.args[0] if mark else item, []).append(item)
    return list(groups.values())


def _measured(config: pytest.Config) -> _Measured | None:
    """Take over from pytest-cov, which would go on with the measurement that it forked with."""
    plugin = config.pluginmanager.unregister(name="_cov")
    if plugin is None or plugin.cov_controller is None:
        return None
    plugin.cov_controller.cov.stop()
    options = config.option
    return _Measured(
        Coverage(
            data_suffix=True,
            config_file=options.cov_config,
            source=plugin.cov_controller.cov_source,
            branch=options.cov_branch,
        )
    )


def _capture_apart(config: pytest.Config) -> None:
    """Capture output in files of this process's own: a fork shares those of the other one."""
    manager = config.pluginmanager.getplugin("capturemanager")
    manager.stop_global_capturing()
    manager.start_global_capturing()
    manager.suspend_global_capture()
