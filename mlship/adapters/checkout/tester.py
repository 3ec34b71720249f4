"""The project's own tests, run by pytest as the user would, in a process of its own."""

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from mlship.adapters.checkout import changes, children, shadows
from mlship.config.check_files import PYTEST_SETTINGS
from mlship.config.project import Config
from mlship.domain import api_keys, environment
from mlship.domain.commit import unwanted
from mlship.domain.scores import Server, Suite, TestRun
from mlship.errors import ConfigError, ProjectError

BUNDLE = "MLSHIP_SANITY_BUNDLE"
ENDPOINT = "MLSHIP_SANITY_ENDPOINT"
CERTIFICATE = "MLSHIP_SANITY_CERTIFICATE"
DATA = "MLSHIP_SANITY_DATA"
"""What the fixtures of `mlship.testing` read."""
DESELECTED = "MLSHIP_SANITY_DESELECTED"
"""Names the file into which `mlship.testing.selection` writes a number."""

_NO_TESTS = 5


class PytestTester:
    """Runs the suites that the configuration names: `ports.Tester`."""

    def __init__(
        self, root: Path, config: Config, note: Callable[[str], None] = lambda _: None
    ) -> None:
        """Take the project; `note` is told of files that the tests left behind."""
        self._root = root.absolute()
        self._config = config
        self._note = note

    def test(self, suite: Suite, *, bundle: Path | None, server: Server | None) -> TestRun | None:
        """Run a suite; `None` where the project names none and has no folder `tests/SUITE`.

        A file that cannot be imported counts as a failed test, and so does each path without
        tests: neither says anything good of a model.

        Raises:
            ConfigError: a path that the project names is not there.
            ProjectError: pytest is not installed, or it died; or a module of the project has the
                name of one that the tests need.
        """
        paths = self._paths(suite)
        if not paths:
            return None
        folder = " ".join(paths)
        if importlib.util.find_spec("pytest") is None:
            message = f"the tests in {folder} need pytest, which is not installed"
            raise ProjectError(message, hint="pip install pytest")
        shadows.check_names(self._root, self._config.model)
        variables = environment.of_user_code(os.environ, self._config.model.environment)
        variables["PYTHONPATH"] = _path_with(self._root)
        variables[DATA] = msgspec.json.encode(self._config.data).decode()
        variables |= {BUNDLE: str(bundle.absolute())} if bundle else {}
        variables |= _to_ask(server) if server else {}
        begun, before = time.monotonic(), self._changes()
        with children.full_disk_named("the temporary folder"), _temporary() as place:
            variables |= _elsewhere(variables, Path(place))
            report, deselected = Path(place, "junit.xml"), Path(place, "deselected")
            variables[DESELECTED] = str(deselected)
            argv = self._argv(paths, report)
            ended = children.run(argv, cwd=self._root, environment=variables)
            seconds = time.monotonic() - begun
            if ended.code < 0:
                message = f"pytest in {folder} {children.describe_end(ended)}"
                raise ProjectError(message, hint=f"python -m pytest {folder}")
            cases = _cases(report)
            missed = int(deselected.read_text()) if deselected.is_file() else 0
        left = sorted(self._changes() - before)
        if left:
            self._note(f"the tests wrote {unwanted(left)}")
        counted = _counted(suite, paths, seconds, cases, ended)
        return msgspec.structs.replace(counted, deselected=missed, wrote=tuple(left))

    def _paths(self, suite: Suite) -> tuple[str, ...]:
        paths = self._config.tests.paths(suite)
        absent = [path for path in paths if not (self._root / path).exists()]
        if absent and not self._config.tests.named(suite):
            return ()
        if absent:
            message = f"mlship.yaml: tests.{suite} names {absent[0]}, which is not in {self._root}"
            raise ConfigError(message, hint="correct the path, or remove the setting")
        return paths

    def _changes(self) -> set[str]:
        # Without a repository there is nothing that the tests could make uncommitted.
        with suppress(ProjectError):
            return set(changes.changed(self._root))
        return set()

    def _argv(self, paths: Sequence[str], report: Path) -> list[str]:
        found = [self._root / name for name in PYTEST_SETTINGS if (self._root / name).is_file()]
        # A configuration of a folder above is another project's.
        settings = str(found[0]) if found else os.devnull
        # What is tested is what was trained: the project's modules as their sources are.
        own = [
            "-p",
            "mlship.testing.sources",
            "-p",
            "mlship.testing.selection",
            "-c",
            settings,
            "--rootdir",
            str(self._root),
            "-p",
            "no:cacheprovider",
        ]
        form = ["-o", "junit_family=xunit1", f"--junitxml={report}"]
        return [sys.executable, "-m", "pytest", "-q", *own, *form, "--", *paths]


def _elsewhere(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return where tools of tests keep their data: not in the project, which would be changed."""
    places = {"HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")}
    # Whoever measures the processes of this one wants its data as well.
    if not any(name.startswith("COVERAGE_PROCESS_") for name in variables):
        places["COVERAGE_FILE"] = str(folder / "coverage")
    return places


def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def _to_ask(server: Server) -> dict[str, str]:
    """Return the variables by which tests ask a server."""
    variables = {ENDPOINT: server.url}
    if key := os.environ.get(api_keys.KEY):
        variables[api_keys.KEY] = key
    if server.certificate is not None:
        variables[CERTIFICATE] = str(server.certificate.absolute())
    return variables


def _path_with(root: Path) -> str:
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(root), *([before] if before else [])])


def _cases(report: Path) -> list[ET.Element] | None:
    """Return the tests of a report; `None` if pytest did not live to write it."""
    if not report.is_file():
        return None
    return list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 (pytest wrote it)


def _counted(
    suite: Suite,
    paths: Sequence[str],
    seconds: float,
    cases: list[ET.Element] | None,
    ended: children.Ended,
) -> TestRun:
    known = cases or []
    failures = [line for case in known if (line := _failure(case))]
    skipped = sum(case.find("skipped") is not None for case in known)
    passed = len(known) - len(failures) - skipped
    if ended.code not in (0, _NO_TESTS) and not failures:
        failures = [f"{' '.join(paths)}: {_reason_of_end(ended)}"]
    elif cases is None:
        reason = f"pytest {children.describe_end(ended)} before it had run the tests"
        failures = [f"{' '.join(paths)}: {reason}; remove calls of os._exit()"]
    elif not failures:
        failures = [f"no tests in {path}" for path in paths if not _has_any(path, cases)]
    return TestRun(
        suite=suite,
        passed=passed,
        failed=len(failures),
        skipped=skipped,
        seconds=round(seconds, 3),
        failures=tuple(failures),
    )


def _reason_of_end(ended: children.Ended) -> str:
    """Return why pytest ended without a failed test: its last error, or else its last line."""
    said = [line.strip() for line in ended.tail if line.strip()]
    errors = [line for line in said if "error:" in line.lower()]
    return [f"pytest {children.describe_end(ended)}", *said[-1:], *errors[-1:]][-1]


def _has_any(path: str, cases: Sequence[ET.Element]) -> bool:
    """Tell whether a test was collected from a path of the project."""
    place = os.path.normpath(path)
    if place.startswith(os.curdir) or os.path.isabs(place):  # noqa: PTH117 (no Path is needed)
        return bool(cases)
    # Not `file`: an inherited test has that of the class that it comes from.
    name = place.removesuffix(".py").replace(os.sep, ".")
    return any(f"{case.get('classname')}.".startswith(f"{name}.") for case in cases)


def _failure(case: ET.Element) -> str:
    """Return `nodeid: message` on one line, or nothing where the test did not fail."""
    for kind in ("failure", "error"):
        found = case.find(kind)
        if found is not None:
            return f"{_node(case)}: {_reason(found)}"
    return ""


def _reason(found: ET.Element) -> str:
    said = (found.get("message") or "").strip()
    raised = [line[1:].strip() for line in (found.text or "").splitlines() if line[:2] == "E "]
    if not said or said == "collection failure":
        said = raised[-1] if raised else said
    return said.splitlines()[0] if said else "failed"


def _node(case: ET.Element) -> str:
    file, name = case.get("file"), case.get("name") or ""
    origin = case.get("classname") or ""
    if file is None:
        return "::".join(part for part in (origin, name) if part)
    module = file.removesuffix(".py").replace("/", ".").replace("\\", ".")
    group = origin.removeprefix(module).strip(".").replace(".", "::")
    return "::".join(part for part in (file, group, name) if part)
