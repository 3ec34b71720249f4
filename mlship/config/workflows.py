"""The section `workflows` of mlship.yaml: settings of the GitHub workflows."""

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

Source = Annotated[
    str,
    Meta(
        pattern=r"^(?!-)[\w./:@+=<>~!,#&%?-]+$",
        extra={"form": "such as git+https://example.org/mlship@COMMIT, ./tools/mlship or ."},
    ),
]


Scalar = str | int | float | bool | None
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z_][\w-]*(?!\n)$")]

OWN_IDS: Final = ("train",)
"""The ids of mlship's own steps in the jobs that get steps of the user."""

_PINNED: Final = re.compile(
    r"(?![./])[\w.-]+/[\w./-]+@[0-9a-f]{40}"  # an action of a repository
    r"|\./[\w./-]+"  # an action in this repository
    r"|docker://[\w.:/-]+@sha256:[0-9a-f]{64}"
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

    def plain(self) -> dict[str, Any]:
        """Return the step as a mapping in GitHub's form."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


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


class WorkflowsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The GitHub workflows that `mlship init` writes; run it again after a change here."""

    report: Annotated[
        Literal["github", "cml"],
        Meta(
            description="how reports are posted on pull requests: by the program of CML, or by "
            "mlship, which is also used if the program of CML is missing or fails"
        ),
    ] = "cml"
    python: Annotated[
        str,
        Meta(
            pattern=r"^3\.\d+$",
            description="Python version of the jobs; a model is served by the version that "
            "trained it",
            extra={"form": "such as 3.11"},
        ),
    ] = "3.11"
    mlship: Annotated[
        Source | None,
        Meta(
            description="source from which jobs install mlship-cd: a git URL with a full commit "
            "hash, the URL of a wheel with its sha256, a folder in the repository, or "
            "mlship-cd==VERSION if requirements.txt pins it with hashes; default: the source of "
            "the mlship that runs `mlship init`",
        ),
    ] = None
    evaluate: Annotated[
        str,
        Meta(
            pattern=r"^[\d*/,-]+( [\d*/,-]+){4}$",
            description="schedule of the challenger's evaluation, in UTC",
            extra={"form": "the five fields of cron, such as 17 5 * * *"},
        ),
    ] = "17 5 * * *"
    dvc: Annotated[
        bool | tuple[str, ...] | None,
        Meta(
            description="whether a job of its own fetches the data that DVC keeps, with the "
            "credentials of the storage; a list names more paths that training reads; default: "
            "true if DVC keeps data.train, data.test or the workload"
        ),
    ] = None
    public_data: Annotated[
        bool,
        Meta(
            description="let jobs of a public repository hand on data from a storage with "
            "credentials: everybody can download them for a day"
        ),
    ] = False
    steps: StepsConfig = StepsConfig()
