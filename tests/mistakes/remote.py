"""A mistake with something that is not on this machine: what is left there, before and after."""

import contextlib
import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain.evidence import Record, Saw, Step
from tests.harness.signing import HERE
from tests.mistakes.mistake import Mistake, Start, changes, faults
from tests.mistakes.project import Project
from tests.mistakes.starts import Met, Starts

Need = Literal["registry", "docker", "cluster", "postgresql"]
_SECONDS = 300.0
_VARYING = {"seconds", "ready_seconds", "p99_ms", "sent", "there", "mounted", "checks"}
"""Facts that two runs of the same command tell differently: times, and what was there already."""


class Remote:
    """What a project needs elsewhere, in order until a mistake is made with it.

    Attributes:
        project: its commands find the remote through `project.variables`.
        names: words that differ from one run to the next, with what they are compared as.
        broken: takes back what a mistake did besides, when it is closed.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.names: dict[str, str] = {}
        self.broken = project.held.enter_context(contextlib.ExitStack())
        self._variables: dict[str, str] = {}

    def settle(self) -> None:
        """Take the project's variables as those that are right."""
        self._variables = dict(self.project.variables)

    def left(self) -> dict[str, str]:
        """Return what is kept there, by its name."""
        return {}

    def mend(self) -> None:
        """Take every mistake back."""
        self.broken.close()
        self.project.variables.clear()
        self.project.variables.update(self._variables)


At = Callable[[Project, Starts], Remote]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteMistake(Mistake):
    """A row of the table of remotes.

    Attributes:
        at: gives what the command needs elsewhere, in order; what it opens, the project holds.
        breaks: makes the mistake there.
        needs: what must run on this machine.
        is_slow: whether only `benchmarks/mistakes.py` runs the command again after the mistake
            was taken back; the test looks at its answer alone.
    """

    at: At
    breaks: Callable[[Any], object]
    needs: tuple[Need, ...] = ()
    is_slow: bool = False


class Unharmed:
    """What commands leave where no mistake was made; each is run once."""

    def __init__(self, starts: Starts, folder: Path) -> None:
        self._starts = starts
        self._folder = folder
        self._known: dict[tuple[At, Start, tuple[str, ...]], dict[str, str]] = {}
        self._lock = threading.Lock()

    def of(self, mistake: RemoteMistake) -> dict[str, str]:
        """Return what the command of a mistake leaves without it."""
        key = (mistake.at, mistake.on, mistake.command)
        with self._lock:
            if key not in self._known:
                project = self._starts.give(mistake.on, self._folder / str(len(self._known)))
                with project.held:
                    remote = mistake.at(project, self._starts)
                    mistake.do(project)
                    answer = project.mlship(*mistake.command, seconds=_SECONDS)
                    assert answer.code == 0, answer.stderr
                    self._known[key] = kept(remote)
                shutil.rmtree(project.folder)
        return self._known[key]


def meet_remote(
    starts: Starts, unharmed: Unharmed, mistake: RemoteMistake, folder: Path, *, mends: bool
) -> Met:
    """Make a mistake; look at the answer and at what is left; take it back and run it again.

    Args:
        starts: gives the project.
        unharmed: tells what a command leaves without the mistake.
        mistake: the row.
        folder: for the project.
        mends: whether the command is run again.
    """
    project = starts.give(mistake.on, folder)
    with project.held:
        remote = mistake.at(project, starts)
        mistake.do(project)
        mistake.breaks(remote)
        before = project.state() | remote.left()
        started = time.monotonic()
        answer = project.mlship(*mistake.command, environment=mistake.environment, seconds=_SECONDS)
        seconds = time.monotonic() - started
        wrong = faults(mistake, answer)
        wrong += changes(before, project.state() | remote.left(), mistake.leaves)
        wrong += [f"left behind: {name}" for name in project.drafts()]
        if seconds > mistake.seconds:
            wrong.append(f"answered after {seconds:.1f} s, may take {mistake.seconds:g} s")
        remote.mend()
        if mends:
            again = project.mlship(*mistake.command, seconds=_SECONDS)
            if again.code != 0:
                wrong.append(f"mended, and still: {again.stderr}")
            else:
                wrong += _differences(unharmed.of(mistake), kept(remote))
    shutil.rmtree(folder)
    return Met(mistake, answer, seconds, tuple(wrong))


def proven(project: Project, *steps: Step) -> None:
    """Have the ledger say that the project's one release passed these steps."""
    ledger = DirectoryLedger(project.folder / ".mlship" / "ledger", HERE)
    made = ledger.records()[0].evidence
    for step in steps:
        ledger.append(msgspec.structs.replace(made, step=step, facts={}, saw=Saw()))


def kept(remote: Remote) -> dict[str, str]:
    """Return what is kept here and there, in words that every run has in common."""
    folder = remote.project.folder / ".mlship" / "ledger"
    records = DirectoryLedger(folder).records() if folder.is_dir() else ()
    told = {f"record {number}": _told(record) for number, record in enumerate(records)}
    here = {
        name: remote.project.read(f".mlship/{name}") if name.endswith("index.json") else digest
        for name, digest in remote.project.state().items()
        if not name.startswith("ledger/")
    }
    # An SBOM names the repository, which each run has of its own.
    here |= {name: "written" for name in here if name.startswith("sboms/")}
    found = here | told | remote.left()
    for name, common in remote.names.items():
        found = {
            key.replace(name, common): text.replace(name, common) for key, text in found.items()
        }
    return found


def _told(record: Record) -> str:
    evidence = record.evidence
    facts = {name: fact for name, fact in evidence.facts.items() if name not in _VARYING}
    # Documents of an image have times and the name of its repository in them.
    facts |= {name: sorted(fact) for name, fact in facts.items() if name == "attached"}
    known = {"step": evidence.step, "verdict": evidence.verdict, "facts": facts}
    return json.dumps(msgspec.to_builtins(known), sort_keys=True)


def _differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    return [
        f"without the mistake {name} is {wanted.get(name)}, after it {found.get(name)}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
