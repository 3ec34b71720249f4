"""The section `workflows.steps` of mlship.yaml: steps of the user, in GitHub's own form.

The form: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idsteps
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

Scalar = str | int | float | bool | None
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z_][\w-]*(?!\n)$")]

OWN_IDS: Final = ("train", "keep")
"""The ids of mlship's own steps in the jobs that get steps of the user."""

_PINNED: Final = re.compile(
    r"(?![./])[\w.-]+/[\w./-]+@[0-9a-f]{40}"  # an action of a repository
    r"|\./[\w./-]+"  # an action in this repository
    r"|docker://[\w.:/-]+@sha256:[0-9a-f]{64}"
)

_EXPRESSION: Final = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_OF_EVENTS: Final = (
    "actor",
    "base_ref",
    "event",
    "head_ref",
    "ref",
    "ref_name",
    "triggering_actor",
)
# The whole of `github`, in `toJSON(github)`, and `github[...]` have the texts of events too.
_FOREIGN: Final = re.compile(
    rf"(?<![\w.-])(inputs\b|github\b(?!\s*\.\s*(?!({'|'.join(_OF_EVENTS)})(?![\w-]))[a-z_]))",
    re.IGNORECASE,
)


class Step(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={
        "condition": "if",
        "inputs": "with",
        "working_directory": "working-directory",
        "continue_on_error": "continue-on-error",
        "timeout_minutes": "timeout-minutes",
    },
):
    """A step of a job, in GitHub's own form."""

    name: str | None = None
    id: Identifier | None = None
    condition: str | bool | None = None
    uses: str | None = None
    inputs: dict[str, Scalar] = {}
    env: dict[Identifier, Scalar] = {}
    run: str | None = None
    shell: str | None = None
    working_directory: str | None = None
    continue_on_error: bool | str | None = None
    timeout_minutes: int | float | str | None = None

    def __post_init__(self) -> None:
        """Check what GitHub would refuse, and that an action is pinned.

        Raises:
            ValueError: it is not a step that a workflow may have.
        """
        if (self.run is None) == (self.uses is None):
            raise ValueError("A step needs exactly one of `run` and `uses`")
        if self.uses is not None and not _PINNED.fullmatch(self.uses):
            raise ValueError(
                f"The action {self.uses[:80]} is not pinned: name the full commit hash, as "
                "owner/action@0123456789abcdef0123456789abcdef01234567"
            )
        if self.uses is not None and (self.shell or self.working_directory):
            raise ValueError("`shell` and `working-directory` are for a step with `run`")
        if self.run is not None and self.inputs:
            raise ValueError("`with` is for a step with `uses`")
        if self.id in OWN_IDS:
            raise ValueError(f"The id {self.id} belongs to a step of mlship")
        if self.run is not None and not self.run.strip():
            raise ValueError("`run` is empty")
        if self.timeout_minutes is not None and not _is_time(self.timeout_minutes):
            raise ValueError("`timeout-minutes` needs a number above 0, or an expression")

    @property
    def injected(self) -> str:
        """The first expression in a script that has a text of an event; empty if none has."""
        script = self.inputs.get("script") if self.run is None else self.run
        found = _EXPRESSION.finditer(script if isinstance(script, str) else "")
        return next((match[0] for match in found if _FOREIGN.search(match[1])), "")

    def plain(self) -> dict[str, Any]:
        """Return the step as a mapping in GitHub's form."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


def _is_time(value: float | str) -> bool:
    if isinstance(value, str):
        return _EXPRESSION.fullmatch(value.strip()) is not None
    return math.isfinite(value) and value > 0


class StepsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Your own steps in the job that trains and tests, in GitHub's form.

    The job runs the project's code, so it holds no credentials of a cloud, a registry or a cluster.
    """

    before_train: Annotated[
        tuple[Step, ...],
        Meta(description="steps after everything is installed and the data are there"),
    ] = ()
    after_test: Annotated[
        tuple[Step, ...], Meta(description="steps after the tests, before the image and the report")
    ] = ()

    def __post_init__(self) -> None:
        """Check that no two steps have one id.

        Raises:
            ValueError: they do.
        """
        ids = [step.id for step in (*self.before_train, *self.after_test) if step.id]
        doubled = next((name for name in ids if ids.count(name) > 1), None)
        if doubled:
            raise ValueError(f"Two steps have the id {doubled}")

    @property
    def places(self) -> Mapping[str, tuple[Step, ...]]:
        """The steps by the names of their places."""
        return {"before_train": self.before_train, "after_test": self.after_test}
