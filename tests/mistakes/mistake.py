"""One mistake: what is done wrong, which command meets it, and what it must answer."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

from tests.mistakes.project import Answer, Project

Start = Literal["fresh", "trained", "shipped", "prepared", "imaged", "pushed"]


def _nothing(_: Project) -> None:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A row of the table.

    Attributes:
        name: what somebody did.
        do: does it to a project.
        command: what is typed then.
        code: the exit code that the command must have.
        says: what the error must name.
        hints: what the next action must name.
        on: a committed project, one with a release, or one with champion and challenger; or one
            with the layers of an image, with an image, or with an image in the registry.
        leaves: folders of `.mlship` in which the command may add files: evidence that says no.
        shows: folders whose files may change, because they only show the evidence.
        mend: undoes the mistake, after which the same command must succeed.
        seconds: the answer is there by then.
        is_rare: whether only `benchmarks/mistakes.py` meets it; a unit test holds its message.
        is_root: whether it takes a right to mount disks.
    """

    name: str
    do: Callable[[Project], object] = _nothing
    command: tuple[str, ...] = ("train",)
    code: int
    says: str
    hints: str
    on: Start = "fresh"
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    leaves: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    mend: Callable[[Project], object] | None = None
    seconds: float = 60.0
    is_root: bool = False
    is_rare: bool = False


def faults(mistake: Mistake, answer: Answer) -> list[str]:
    """Return what is wrong with an answer, in the eyes of somebody who needs it."""
    errors, hints = answer.errors, answer.hints
    said = answer.stderr + answer.stdout
    checks = {
        f"exit code {answer.code}, not {mistake.code}": answer.code == mistake.code,
        f"{len(errors)} lines `error:`": len(errors) == 1,
        f"{len(hints)} lines `next:`": len(hints) == 1,
        f"the error does not name {mistake.says!r}": mistake.says in "\n".join(errors),
        f"the next action does not name {mistake.hints!r}": mistake.hints in "\n".join(hints),
        "a traceback": "Traceback" not in said,
    }
    return [fault for fault, holds in checks.items() if not holds]


def changes(
    before: Mapping[str, str],
    after: Mapping[str, str],
    leaves: tuple[str, ...],
    shows: tuple[str, ...] = (),
) -> list[str]:
    """Return what was changed, removed, or added where nothing may be."""
    lost = [
        f"changed: {name}"
        for name in before
        if after.get(name) != before[name]
        and not (name in after and name.partition("/")[0] in shows)
    ]
    new = [name for name in after if name not in before and name.partition("/")[0] not in leaves]
    return lost + [f"new: {name}" for name in new]
