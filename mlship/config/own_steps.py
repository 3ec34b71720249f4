"""The section `workflows.steps` of mlship.yaml: steps of the user, in GitHub's own form.

The form: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idsteps
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

Scalar = str | int | float | bool | None
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z_][\w-]*(?!\n)$")]

OWN_IDS: Final = ("train", "keep", "keep-evidence", "session-key", "session-identity")
"""The ids of mlship's own steps in the jobs that get steps of the user."""

_PINNED: Final = re.compile(
    r"(?![./])[\w.-]+/[\w./-]+@[0-9a-f]{40}"  # an action of a repository
    r"|\./[\w./-]+"  # an action in this repository
    r"|docker://[\w.:/-]+@sha256:[0-9a-f]{64}"
)

_CONTEXTS: Final = (
    *("env", "github", "inputs", "job", "matrix", "needs", "runner", "secrets", "steps"),
    *("strategy", "vars"),
)
"""What an expression of a step may name.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/contexts#context-availability
"""

_LITERALS: Final = ("true", "false", "null", "nan", "infinity")
_CODE: Final = (
    *("args", "cmd", "code", "command", "commands", "entrypoint", "eval", "inlinescript", "run"),
    "script",
)
"""Inputs that actions run as a script or as a command."""

_STRING: Final = re.compile(r"'(?:[^']|'')*'")
_WORD: Final = re.compile(r"(?<![\w.-])[A-Za-z_][\w-]*(?![\w-])(?!\s*\()")
_OWN_VARIABLE: Final = re.compile(
    r"(?<![\w.-])env\s*(?:\.\s*([A-Za-z_][\w-]*)|\[\s*'([^']*)'\s*\])?", re.IGNORECASE
)
_SECRETS: Final = re.compile(r"(?<![\w.-])secrets(?![\w-])(\.[A-Za-z_]\w*)?", re.IGNORECASE)
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
        if self.timeout_minutes is not None and not _is_time(self.timeout_minutes):
            raise ValueError("`timeout-minutes` needs a number above 0, or an expression")
        self._check_texts()

    def _check_texts(self) -> None:
        if self.run is not None and not self.run.strip():
            raise ValueError("`run` is empty")
        for expression in self._expressions():
            _check_expression(expression)
        if isinstance(self.condition, str) and _SECRETS.search(_plain(self.condition)):
            raise ValueError(
                "`if` cannot name `secrets` on GitHub: test in the script whether a variable is set"
            )

    @property
    def injected(self) -> str:
        """The first expression in a script that has a text of an event; empty if none has."""
        found = (match for text in self._scripts() for match in _EXPRESSION.finditer(text))
        return next((match[0] for match in found if self._is_foreign(match[1])), "")

    @property
    def secrets(self) -> frozenset[str]:
        """The names of the secrets that its expressions take, without GitHub's own token."""
        found = (_SECRETS.findall(_plain(text)) for text in self._expressions())
        return frozenset(name[1:] for names in found for name in names) - {"GITHUB_TOKEN"}

    def _scripts(self) -> list[str]:
        """Return what is run as code: script and shell of the step, or inputs that are run."""
        inputs = [value for name, value in self.inputs.items() if _normal(name) in _CODE]
        texts = (self.run, self.shell, *inputs)
        return [text for text in texts if isinstance(text, str)]

    def _is_foreign(self, expression: str) -> bool:
        """Return whether an expression has a text of an event, also by a variable of the step."""
        if _FOREIGN.search(expression):
            return True
        taken = {
            name.upper()
            for name, value in self.env.items()
            if isinstance(value, str)
            and any(_FOREIGN.search(match[1]) for match in _EXPRESSION.finditer(value))
        }
        named = [match[1] or match[2] for match in _OWN_VARIABLE.finditer(expression)]
        return bool(taken) and any(not name or name.upper() in taken for name in named)

    def _expressions(self) -> Iterator[str]:
        """Yield the expressions of the step; `if` is one without `${{ }}` too."""
        texts = (self.name, self.run, self.shell, self.working_directory, self.continue_on_error)
        for text in (*texts, self.timeout_minutes, *self.inputs.values(), *self.env.values()):
            if isinstance(text, str):
                yield from (match[1] for match in _EXPRESSION.finditer(text))
        if isinstance(self.condition, str):
            whole = [match[1] for match in _EXPRESSION.finditer(self.condition)]
            yield from whole or [self.condition]

    def plain(self) -> dict[str, Any]:
        """Return the step as a mapping in GitHub's form."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


def variable_of(expression: str) -> str:
    """Return the name in `${{ env.NAME }}`; empty for another expression."""
    match = re.fullmatch(r"\$\{\{\s*env\s*\.\s*([A-Za-z_]\w*)\s*\}\}", expression)
    return match[1] if match else ""


def _check_expression(expression: str) -> None:
    """Refuse an expression that GitHub cannot read, and one that takes all secrets.

    Raises:
        ValueError: it is such.
    """
    plain = _plain(expression)
    for word in _WORD.findall(plain):
        if word.lower() not in (*_CONTEXTS, *_LITERALS):
            raise ValueError(
                f"An expression names {word[:80]}, which GitHub does not know there: it knows "
                f"{', '.join(_CONTEXTS)}, and texts in single quotes"
            )
    if "" in _SECRETS.findall(plain):
        raise ValueError(
            "An expression takes secrets without their names, and the step runs beside the code of "
            "a branch: name each one, as secrets.NAME"
        )


def _plain(expression: str) -> str:
    """Return an expression with empty texts, and without spaces around its dots."""
    return re.sub(r"\s*\.\s*", ".", _STRING.sub("''", expression))


def _normal(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


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
    def secrets(self) -> list[str]:
        """The names of the secrets that steps take, sorted."""
        every = (step.secrets for step in (*self.before_train, *self.after_test))
        return sorted(set().union(*every))

    @property
    def places(self) -> Mapping[str, tuple[Step, ...]]:
        """The steps by the names of their places."""
        return {"before_train": self.before_train, "after_test": self.after_test}
