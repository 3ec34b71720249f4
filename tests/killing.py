"""Kills at every call by which a command changes the world, and two commands at one moment.

Run by its path this file is the command line itself, with the ports watched or the start held:

    killing.py none CALLS promote challenger        writes each changing call into the file CALLS
    killing.py before:3 CALLS promote challenger    SIGKILLs itself before the third one
    killing.py after:3 CALLS promote challenger     SIGKILLs itself after the third one
    killing.py wait - promote challenger            says `ready`, waits for a line, then goes on
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from mlship import wire
from mlship.cli import main as cli
from mlship.cli.progress import Lines
from mlship.config import Config
from mlship.ledgers.directory import DirectoryLedger
from mlship.ports import Ledger, Progress, Store, Target
from mlship.steps.pipeline import Pipeline

_T = TypeVar("_T")

Side = Literal["before", "after"]
SIDES: tuple[Side, ...] = ("before", "after")
Point = tuple[Side, int]
"""Before or after the changing call of that number; the first is 1."""

_CHANGING = ("append", "record", "point", "archive", "deploy", "route", "remove")
_SECONDS = 180.0
_LOOKS = 20


class Killed(BaseException):
    """The stand-in for SIGKILL where everything runs in one process."""


def kill_by_raising() -> None:
    """End the step as a kill would: no code of it runs any more."""
    raise Killed


def kill_for_real() -> None:
    """End this process with no way to notice."""
    os.kill(os.getpid(), signal.SIGKILL)


class Watch:
    """Counts the calls that change something, and kills at one of them.

    Args:
        kill: ends the caller.
        point: where; `None` counts only.
        heard: is told of each call when it begins.
    """

    def __init__(
        self,
        kill: Callable[[], None] = kill_by_raising,
        point: Point | None = None,
        heard: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.calls: list[str] = []
        self._kill, self._point, self._heard = kill, point, heard

    def call(self, name: str, act: Callable[[], _T]) -> _T:
        """Make one changing call."""
        self.calls.append(name)
        self._heard(name)
        number = len(self.calls)
        if self._point == ("before", number):
            self._kill()
        result = act()
        if self._point == ("after", number):
            self._kill()
        return result


class _Watched:
    """A port whose changing methods go through a watch."""

    def __init__(self, kind: str, port: object, watch: Watch) -> None:
        self._kind, self._port, self._watch = kind, port, watch

    def __getattr__(self, method: str) -> Any:
        made = getattr(self._port, method)
        if method not in _CHANGING:
            return made

        def call(*given: Any, **named: Any) -> Any:
            what = {"append": lambda: f" {given[0].step}", "point": lambda: f" {given[0]}"}
            name = f"{self._kind}.{method}{what.get(method, str)()}"
            return self._watch.call(name, lambda: made(*given, **named))

        return call


def watched(pipeline: Pipeline, watch: Watch) -> Pipeline:
    """Return the pipeline with every changing call of ledger, store and targets watched."""
    return dataclasses.replace(
        pipeline,
        ledger=cast("Ledger", _Watched("ledger", pipeline.ledger, watch)),
        store=cast("Store", _Watched("store", pipeline.store, watch)),
        target=lambda name: cast("Target", _Watched("target", pipeline.target(name), watch)),
    )


def substeps(calls: Sequence[str]) -> list[str]:
    """Return for each call the sub-step that it belongs to: the one recorded next."""
    names: list[str] = []
    name = ""
    for call in reversed(calls):
        kind, _, detail = call.partition(" ")
        name = detail if kind == "ledger.append" else name
        names.append(name)
    return names[::-1]


class Project:
    """A project's folder as a user sees it: its commands are processes, its state is observed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, point: Point | None = None) -> list[str]:
        """Run a command, killed at a point; return the changing calls that it began.

        Raises:
            AssertionError: it ended otherwise than it should; the message has what it said.
        """
        calls = self.folder / ".mlship" / "calls"
        calls.parent.mkdir(exist_ok=True)
        calls.write_text("")
        plan = f"{point[0]}:{point[1]}" if point else "none"
        done = subprocess.run(
            [sys.executable, __file__, plan, str(calls), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        meant = -signal.SIGKILL if point else 0
        assert done.returncode == meant, f"{arguments} {plan}: {done.returncode} {done.stderr}"
        return calls.read_text().splitlines()

    def plain(self, *arguments: str) -> str:
        """Run a command as a user would, with nothing watched; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "mlship", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stderr}"
        return done.stdout

    def pipeline(self) -> Pipeline:
        """Return the project's pipeline in this process."""
        config = wire.read(self.folder / "mlship.yaml", {}, ()).config
        return wire.assemble(config, self.folder, Lines(), os.environ)

    def steps(self) -> Counter[str]:
        """Count the records of the ledger by their step."""
        records = DirectoryLedger(self.folder / ".mlship" / "ledger").records()
        return Counter(record.evidence.step for record in records)

    def observed(self) -> dict[str, Any]:
        """Return what the status says, times and ports left out, and what is archived."""
        status = json.loads(self.plain("--json", "status"))
        last = status["reigns"][-1:]
        versions = self.pipeline().store.versions()
        return {
            "production": [seen for seen in status["seen"] if seen["target"] == "production"],
            "drift": status["drift"],
            "champion": [(reign["release"], reign["by"], reign["until"]) for reign in last],
            "roles": {one["release"]: one["role"] for one in status["releases"]},
            "archived": sorted(version.release for version in versions if version.archived),
        }

    def differences(self, expected: dict[str, Any]) -> list[str]:
        """Return in what the project differs from a state, once it had time to settle.

        A replica that is slow to answer a probe on a busy machine counts as not ready; so a
        difference must be seen again and again.
        """
        found: dict[str, Any] = {}
        for _ in range(_LOOKS):
            found = self.observed()
            if found == expected:
                return []
            time.sleep(0.5)
        return [
            f"{key}: {found[key]} is not {expected[key]}"
            for key in expected
            if found[key] != expected[key]
        ]


def race(project: Project, *arguments: str) -> list[tuple[int, str]]:
    """Run a command twice, released at one moment; return exit code and stderr of both.

    Both have imported, read the configuration and composed the pipeline when they are released.
    """
    command = [sys.executable, __file__, "wait", "-", *arguments]
    runners = [
        subprocess.Popen(
            command,
            cwd=project.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for runner in runners:
            assert runner.stdout is not None
            assert runner.stdout.readline() == "ready\n"
        for runner in runners:
            assert runner.stdin is not None
            runner.stdin.write("go\n")
            runner.stdin.flush()
        ended = [runner.communicate(timeout=_SECONDS) for runner in runners]
    finally:
        for runner in runners:
            runner.kill()
            runner.wait()
    return [(runner.returncode, said[1]) for runner, said in zip(runners, ended, strict=True)]


def main() -> None:
    """Be the command line, watched or held."""
    plan, calls, *arguments = sys.argv[1:]
    compose = wire.assemble
    sys.argv = ["mlship", *arguments]

    def assemble(
        config: Config, root: Path, progress: Progress, environment: Mapping[str, str]
    ) -> Pipeline:
        pipeline = compose(config, root, progress, environment)
        if plan == "wait":
            print("ready", flush=True)  # noqa: T201
            sys.stdin.readline()
            return pipeline
        return watched(pipeline, Watch(kill_for_real, _point(plan), heard))

    def heard(call: str) -> None:
        with Path(calls).open("a") as file:
            file.write(f"{call}\n")

    wire.assemble = assemble
    cli.main()


def _point(plan: str) -> Point | None:
    side, _, number = plan.partition(":")
    return (cast("Side", side), int(number)) if number else None


if __name__ == "__main__":
    main()
