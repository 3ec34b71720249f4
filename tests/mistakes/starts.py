"""Where mistakes start from: projects that were carried so far once, and are copied."""

import contextlib
import dataclasses
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import httpx

from tests.mistakes.mistake import Mistake, Start, changes, faults
from tests.mistakes.project import Answer, Project
from tests.mistakes.training import SETTINGS

BASE = "localhost:5000/library/python:3.11-slim"
FLOWER = {"sepal_length": 5.0, "sepal_width": 3.6, "petal_length": 1.4, "petal_width": 0.2}
Shared = TypeVar("Shared")


class Starts:
    """Makes each start when it is first asked for; `end` stops what runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Start, Project] = {}
        self._making = {start: threading.Lock() for start in get_args(Start)}
        self._shared: dict[Any, Any] = {}
        self._sharing = threading.Lock()
        self._held = contextlib.ExitStack()

    def give(self, start: Start, folder: Path) -> Project:
        """Return a copy that a mistake may be made in; nothing runs in it."""
        return self.original(start).copy(folder)

    def original(self, start: Start) -> Project:
        """Return the one that copies are made of; where it was shipped, it runs."""
        with self._making[start]:
            if start not in self._made:
                self._made[start] = getattr(self, f"_{start}")(self._folder / start)
            return self._made[start]

    def share(self, opened: Callable[[Path], contextlib.AbstractContextManager[Shared]]) -> Shared:
        """Return what all mistakes use together; it is opened once, with a folder of its own."""
        with self._sharing:
            if opened not in self._shared:
                folder = self._folder / f"shared-{len(self._shared)}"
                folder.mkdir(parents=True)
                self._shared[opened] = self._held.enter_context(opened(folder))
        found: Shared = self._shared[opened]
        return found

    def end(self) -> None:
        """Stop what runs."""
        self._held.close()
        if "shipped" in self._made:
            self._made["shipped"].done("down")

    def _fresh(self, folder: Path) -> Project:
        return Project.new(folder)

    def _trained(self, folder: Path) -> Project:
        project = self.give("fresh", folder)
        project.done("train")
        return project

    def _shipped(self, folder: Path) -> Project:
        """Run a champion and a challenger, which answered twenty requests."""
        project = self.give("trained", folder)
        project.done("run")
        project.edit(SETTINGS, "    features: [sepal_length, sepal_width]\n", "")
        project.commit()
        project.done("run")
        status = json.loads(project.done("status", "--json"))
        with httpx.Client(trust_env=False) as client:
            for _ in range(20):
                address = f"{status['endpoints']['production']}/predict"
                client.post(address, json=FLOWER).raise_for_status()
        return project

    def _imaged(self, folder: Path) -> Project:
        project = self.give("trained", folder)
        project.variables["MLSHIP_IMAGE__BASE"] = BASE
        project.variables["MLSHIP_IMAGE__REPOSITORY"] = (
            f"localhost:5000/mistakes/{uuid.uuid4().hex}"
        )
        project.done("containerize")
        return project

    def _prepared(self, folder: Path) -> Project:
        """Give a release without an image, and the layers that one would be made of."""
        project = self.give("imaged", folder)
        ledger = self.original("trained").folder / ".mlship" / "ledger"
        shutil.rmtree(project.folder / ".mlship" / "ledger")
        shutil.copytree(ledger, project.folder / ".mlship" / "ledger")
        return project

    def _pushed(self, folder: Path) -> Project:
        project = self.give("imaged", folder)
        project.done("test")
        project.done("push-to-registry")
        return project


@dataclasses.dataclass(frozen=True)
class Met:
    """A mistake, what the command answered, and what is wrong with that."""

    mistake: Mistake
    answer: Answer
    seconds: float
    wrong: tuple[str, ...]


def meet(starts: Starts, mistake: Mistake, folder: Path) -> Met:
    """Make a mistake in a project of its own; look at the answer and at what was left behind."""
    project = starts.give(mistake.on, folder)
    with project.held:
        mistake.do(project)
        before = project.state()
        started = time.monotonic()
        answer = project.mlship(*mistake.command, environment=mistake.environment)
        seconds = time.monotonic() - started
        wrong = faults(mistake, answer)
        wrong += changes(before, project.state(), mistake.leaves, mistake.shows)
        wrong += [f"left behind: {name}" for name in project.drafts()]
        if seconds > mistake.seconds:
            wrong.append(f"answered after {seconds:.1f} s, may take {mistake.seconds:g} s")
        if mistake.mend is not None:
            mistake.mend(project)
            again = project.mlship(*mistake.command, environment=mistake.environment)
            if again.code != 0:
                wrong.append(f"mended, and still: {again.stderr}")
    shutil.rmtree(folder)
    return Met(mistake, answer, seconds, tuple(wrong))
