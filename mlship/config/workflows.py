"""The section `workflows` of mlship.yaml: settings of the GitHub workflows."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlship.config.own_steps import StepsConfig
from mlship.domain.policy import Occupied

Source = Annotated[
    str,
    Meta(
        pattern=r"^(?!-)[\w./:@+=<>~!,#&%?-]+$",
        extra={"form": "such as git+https://example.org/mlship@COMMIT, ./tools/mlship or ."},
    ),
]


Branch = Annotated[
    str,
    Meta(pattern=r"^(?!-)[\w./*-]+$", extra={"form": "a branch, or a pattern such as feature/**"}),
]


class BranchesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The branches of the repository. The default is GitFlow.

    Without `develop`, pull requests go from feature branches to `main`. With `release`, what is on
    such a branch is tried on staging and offered to `main`, and not what is on `develop`.
    """

    feature: Annotated[
        Branch, Meta(description="branches that are trained, tested and reported")
    ] = "feature/**"
    develop: Annotated[
        Branch | None,
        Meta(description="the branch that is tried on staging and offered to main; null for none"),
    ] = "develop"
    release: Annotated[
        Branch | None,
        Meta(description="branches that are tried and offered instead of develop: release/**"),
    ] = None
    main: Annotated[Branch, Meta(description="the branch that is deployed to production")] = "main"

    @property
    def offered(self) -> str | None:
        """The branches that are tried on staging and offered to `main`; `None` for none."""
        return self.release or self.develop

    @property
    def reviewed(self) -> str:
        """The branch that feature branches are merged to."""
        return self.develop or self.main

    @property
    def pushed(self) -> list[str]:
        """The branches that are trained, tested and reported when they are pushed."""
        return [self.feature, *([self.develop] if self.release and self.develop else [])]


class WorkflowsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The GitHub workflows that `mlship init` writes; run it again after a change here."""

    report: Annotated[
        Literal["github", "cml"],
        Meta(
            description="how reports are posted on pull requests: by the program of CML, or by "
            "mlship, which is also used if the program of CML is missing or fails"
        ),
    ] = "cml"
    pictures: Annotated[
        bool,
        Meta(
            description="show pictures in the comments on pull requests: they are kept on the "
            "branch mlship-reports, which a job that runs no project code writes; false for text"
        ),
    ] = True
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
    branches: BranchesConfig = BranchesConfig()
    paths: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^(?!-)[^\s\"'\\]+$")], ...],
        Meta(
            description="in a repository with several projects: files outside of this one's folder "
            "whose changes run its workflows too, as patterns from the repository's top: shared/**"
        ),
    ] = ()
    challenger: Annotated[
        Occupied,
        Meta(
            description="what a merge to main does while a challenger runs: the release waits for "
            "its place, and others that wait give way; it queues up behind others; it replaces the "
            "challenger; or it is refused"
        ),
    ] = "wait"
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
    claims: Annotated[
        bool,
        Meta(
            description="record in a shared ledger what jobs of pull requests say of their "
            "releases, as claims; no gate counts them"
        ),
    ] = True
    public_data: Annotated[
        bool,
        Meta(
            description="let jobs of a public repository hand on data from a storage with "
            "credentials, and the champion from a shared ledger: everybody can download them for "
            "a day"
        ),
    ] = False
    steps: StepsConfig = StepsConfig()
