"""Kills at every call by which a command changes the world, and two commands at one moment.

Run as a program this module is the command line itself, with the ports watched or the start held:

    kills none CALLS promote challenger        writes each changing call into the file CALLS
    kills before:3 CALLS promote challenger    SIGKILLs itself before the third one
    kills after:3 CALLS promote challenger     SIGKILLs itself after the third one
    kills wait - promote challenger            waits for a line when its pipeline is composed
    kills late - promote challenger            waits for a line when it asks for its lock
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from mlship import wire
from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.cli import main as cli
from mlship.cli.progress import Lines
from mlship.config.project import Config
from mlship.domain.dsse import Signing
from mlship.domain.fence import KERNEL, Fence, Locks
from mlship.domain.ports import Ledger, Progress, Store, Target
from mlship.domain.removal import Removals
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
    """Return the pipeline with every changing call of ledger, store, targets, removals watched."""
    return dataclasses.replace(
        pipeline,
        ledger=cast("Ledger", _Watched("ledger", pipeline.ledger, watch)),
        store=cast("Store", _Watched("store", pipeline.store, watch)),
        removals=cast("Removals", _Watched("removals", pipeline.removals, watch)),
        target=lambda name, fence=KERNEL: cast(
            "Target", _Watched("target", pipeline.target(name, fence), watch)
        ),
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
        meant = -signal.SIGKILL if point else 0
        self._run(plan, str(calls), *arguments, meant=meant, program="tests.harness.kills")
        return calls.read_text().splitlines()

    def plain(self, *arguments: str) -> str:
        """Run a command as a user would, with nothing watched; return what it printed."""
        return self._run(*arguments)

    def _run(
        self,
        *arguments: str,
        meant: int = 0,
        program: Literal["mlship", "tests.harness.kills"] = "mlship",
    ) -> str:
        # Not above: what most tests take from here needs no warm process.
        from tests.harness import commands

        done = commands.run(
            *arguments,
            folder=self.folder,
            environment=os.environ,
            seconds=_SECONDS,
            program=program,
        )
        assert done.returncode == meant, f"{arguments}: {done.returncode} {done.stderr}"
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

        On a busy machine a replica may be slow to answer a probe, and count as not ready.
        """
        found: dict[str, Any] = {}
        for _ in range(_LOOKS):
            found = self.observed()
            if found == expected:
                return []
            time.sleep(0.5)
        return [
            f"{key}: {found[key]}, not {expected[key]}"
            for key in found
            if found[key] != expected[key]
        ]


def race(project: Project, *arguments: str, other: Project | None = None) -> list[tuple[int, str]]:
    """Run a command twice, released at one moment; return exit code and stderr of both.

    With `other`, the second runs there, as on another machine.
    """
    with (
        _held(project, "wait", *arguments) as one,
        _held(other or project, "wait", *arguments) as two,
    ):
        _release(one)
        _release(two)
        return [_ended(one), _ended(two)]


def overtaken(project: Project, *arguments: str) -> tuple[int, str]:
    """Let a whole run overtake another that asks for its lock; return how the other one ended."""
    with _held(project, "late", *arguments) as slow:
        project.plain(*arguments)
        _release(slow)
        return _ended(slow)


@contextmanager
def _held(project: Project, plan: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a command and give it when it is ready; it ends with the block at the latest."""
    runner = subprocess.Popen(
        [sys.executable, __file__, plan, "-", *arguments],
        cwd=project.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with runner:
        try:
            assert runner.stdout is not None
            assert runner.stdout.readline() == "ready\n"
            yield runner
        finally:
            runner.kill()


def _release(runner: "subprocess.Popen[str]") -> None:
    assert runner.stdin is not None
    runner.stdin.write("go\n")
    runner.stdin.flush()


def _ended(runner: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = runner.communicate(timeout=_SECONDS)
    return runner.returncode, said


class _LateLocks:
    """Locks that are asked for only when a line has come."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks

    def exclusive(self, name: str) -> AbstractContextManager[Fence]:
        _wait()
        return self._locks.exclusive(name)


def _wait() -> None:
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()


def main() -> None:
    """Be the command line, watched or held."""
    plan, calls, *arguments = sys.argv[1:]
    side, _, number = plan.partition(":")
    point = (cast("Side", side), int(number)) if number else None
    compose = wire.assemble
    sys.argv = ["mlship", *arguments]

    def assemble(
        config: Config,
        root: Path,
        progress: Progress,
        environment: Mapping[str, str],
        purpose: wire.Purpose = "change",
        overridden: Sequence[str] = (),
        by: Signing | None = None,
    ) -> Pipeline:
        pipeline = compose(config, root, progress, environment, purpose, overridden, by)
        if plan == "late":
            return dataclasses.replace(pipeline, locks=_LateLocks(pipeline.locks))
        if plan == "wait":
            _wait()
            return pipeline
        return watched(pipeline, Watch(kill_for_real, point, heard))

    def heard(call: str) -> None:
        with Path(calls).open("a") as file:
            file.write(f"{call}\n")

    wire.assemble = assemble
    cli.main()


if __name__ == "__main__":
    main()
