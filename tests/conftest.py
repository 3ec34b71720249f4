"""How tests are spread over workers: what shares something stays together, long ones begin first.

Tests of one group run one after the other in one worker: of `tests/harness/forks.py`, on macOS of
pytest-xdist. Without workers, groups mean nothing and the order is all that changes.
"""

import atexit
import functools
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlship.domain.environment import waiting

# To search thousands of tests and their modules for garbage takes half of the time of a collection.
gc.disable()

# As in processes that mlship starts: threads that spin while they wait for work would take the
# cores from the other workers. Libraries read these variables when they are loaded.
os.environ.update(waiting(os.environ))

# What commands of tests have seen of ledgers: a folder of a former run may have had another one.
_STATE = "XDG_STATE_HOME"
if _STATE not in os.environ:
    os.environ[_STATE] = tempfile.mkdtemp(prefix="mlship-tests-")
    atexit.register(shutil.rmtree, os.environ[_STATE], ignore_errors=True)

TESTS = Path(__file__).parent
ORDER = ("integration", "contract", "docs", "architecture", "unit")
"""The folders in the order in which their tests begin: short tests fill the gaps at the end."""
REAL = ("integration", "contract")
"""Their tests need processes, clocks and sockets, if not a service."""
LONG = ("slow", "fits")
"""Marks of unit tests that each run wherever a worker is free."""
SECOND = "second cluster"
SERVICES = {
    *("act", "actionlint", "airflow", "cluster", "docker", "dvc", "kafka", "postgresql"),
    *("registry", "spark", "two clusters"),
}
"""What runs beside the tests. With another name, a test would not wait for what it needs."""
LANES = {"two clusters": "cluster", "cluster": SECOND, "docker": "docker"}
"""The group of a service that one test at a time uses: clusters of one node, an engine that loses
images. Tests that need one cluster take the second one, which those that need two use little."""
CLUSTERS = "TEST_CLUSTERS_STARTED"
"""Names the file that appears when clusters that are being started are up, or failed to start."""
_CLUSTER_SECONDS = 45 * 60
PLUGINS = "-p no:hypothesispytest -p no:anyio"
"""Options of pytest in projects of tests, for a test that needs more to take away. These plugins
come with the libraries of mlship's own tests; their import takes longer than that of pytest."""
_LONGEST_NAME = 200
AGAIN = "TEST_AGAIN"
"""Set where a test of real processes or services that fails is run a second time: decision 62."""


def services(item: pytest.Item) -> set[str]:
    """Return what runs beside the tests and this one needs."""
    return {mark.args[0] for mark in item.iter_markers("service")}


def group(item: pytest.Item) -> str | None:
    """Return the group of a test; tests without one run wherever a worker is free."""
    given = item.get_closest_marker("xdist_group")
    if given is not None:
        return str(given.args[0])
    lanes = [lane for service, lane in LANES.items() if service in services(item)]
    if lanes:
        return lanes[0]
    folder, *_, file = parts(item.path)
    # Their modules share a server or a trained project; those of other folders share nothing slow.
    if folder in REAL:
        return file
    # For each test that ends, xdist looks at all groups that its worker had: thousands of groups
    # of one quick test took more time than the tests.
    is_long = any(item.get_closest_marker(mark) for mark in LONG)
    return file if folder == "unit" and not is_long else None


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long value by its length: workers send the names of their tests over and over."""
    if isinstance(val, str | bytes) and len(val) > _LONGEST_NAME:
        return f"{argname} of {len(val)}"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its group, measure quick unit tests only, and put long tests first.

    Raises `pytest.UsageError` for a service with an unknown name.
    """
    if unknown := set().union(*map(services, items)) - SERVICES:
        raise pytest.UsageError(f"tests need unknown services: {', '.join(sorted(unknown))}")
    cases: set[tuple[Path, str]] = set()
    for item in items:
        name = group(item)
        if name is not None and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(name))
        if os.environ.get(AGAIN) and is_real(item):
            item.add_marker(pytest.mark.flaky(reruns=1))
        is_quick = ORDER[rank(item)] == "unit" and not item.get_closest_marker("slow")
        if not is_quick or _is_further_case(item, cases):
            item.add_marker(pytest.mark.no_cover)
    items.sort(key=lambda item: (rank(item), not needs_cluster(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Search for garbage from now on, rarely, and not in what is here.

    Raises `pytest.UsageError` if a worker's tests have lost their groups: nothing else would show
    that tests of one cluster run at the same time, or that each worker starts the same server.
    """
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if session.config.getoption("loadgroup", False) and not all("@" in i.nodeid for i in grouped):
        raise pytest.UsageError("pytest-xdist did not read the groups of the tests")
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show why tests failed that passed when they were run again: it may be a fault of mlship."""
    again = terminalreporter.getreports("rerun")
    if again:
        terminalreporter.section("failed the first time")
    for report in again:
        terminalreporter.write_sep("_", report.head_line or report.nodeid)
        terminalreporter.line(report.longreprtext)


def _is_further_case(item: pytest.Item, seen: set[tuple[Path, str]]) -> bool:
    """Tell whether a case before this one trained, too: measuring doubles the time of a training.

    The cases of a parametrized test run nearly the same lines of mlship, with other models.
    """
    if not item.get_closest_marker("fits"):
        return False
    test = (item.path, item.name.partition("[")[0])
    is_further = test in seen
    seen.add(test)
    return is_further


def is_real(item: pytest.Item) -> bool:
    """Tell whether a test runs real processes or services for long: a slow machine may fail it."""
    folder = ORDER[rank(item)]
    is_long_page = folder == "docs" and item.get_closest_marker("slow") is not None
    return folder in REAL or is_long_page or bool(services(item))


def needs_cluster(item: pytest.Item) -> bool:
    """Tell whether a test needs a cluster, or two."""
    return bool(services(item) & {"cluster", "two clusters"})


def rank(item: pytest.Item) -> int:
    """Return the place of a test's folder in the order."""
    return ORDER.index(parts(item.path)[0])


@functools.cache
def parts(path: Path) -> tuple[str, ...]:
    """Return the folders and the file of a module of tests."""
    return path.relative_to(TESTS).parts


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Wait for clusters that are being started, outside the time that the test may take.

    A test has variables of its own: which cluster it may use, and how projects run their tests.
    """
    started = os.environ.get(CLUSTERS)
    if started and needs_cluster(item):
        deadline = time.monotonic() + _CLUSTER_SECONDS
        while not Path(started).exists() and time.monotonic() < deadline:
            time.sleep(1)
    with pytest.MonkeyPatch.context() as patch:
        second = os.environ.get("TEST_KUBECONFIG_PRODUCTION")
        if second and group(item) == SECOND:
            patch.setenv("TEST_KUBECONFIG", second)
        if ORDER[rank(item)] in REAL:
            patch.setenv("PYTEST_ADDOPTS", PLUGINS)
        return (yield)
