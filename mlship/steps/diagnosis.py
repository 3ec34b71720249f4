"""What `mlship doctor` says: the results of checks, and the checks that need the surroundings."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from mlship.config.installation import Installation


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check.

    Attributes:
        state: `warning` if everything works, but something may be lost.
        hint: the next action if the state is not `right`.
        exit_code: of the error that a step would end with; 0 if the state is not `wrong`.
    """

    name: str
    state: Literal["right", "warning", "wrong"]
    detail: str
    hint: str = ""
    exit_code: int = 0


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """A warning, with the next action."""

    detail: str
    hint: str


Look = Callable[[], str | Warned]
"""One check; it raises an error of mlship if something is wrong."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The checks that need more than the pipeline's ports. Each returns one line of text.

    Attributes:
        installed: how mlship was installed, and where jobs can install it from.
        functions: how many functions mlship.yaml names; all of them are in the project's source.
        heads: checks that the data parse and have the target, as far as their first lines show.
        ignored: the settings, training code, tests and data that git ignores.
        workflows: the texts of the repository's workflows, by their path in it.
        registry: whether images can be pushed, as far as it is known without a push.
        engine: which container engine responds.
        cluster: whether a target's cluster has all that the target needs, and permits it.
        forge: the GitHub repository, and whether there is a token; empty if there is none.
        stream: the topics of the stream, which exist.
    """

    installed: Callable[[], Installation]
    functions: Callable[[], int]
    heads: Callable[[], None]
    ignored: Callable[[], Sequence[str]]
    workflows: Callable[[], Mapping[str, str]]
    registry: Callable[[], str]
    engine: Callable[[], str]
    cluster: Callable[[str], str]
    forge: Callable[[], str]
    stream: Callable[[], str] = lambda: ""
