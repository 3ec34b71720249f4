"""The section `workflows` of mlship.yaml: settings of the GitHub workflows."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlship.config import cron, own_steps
from mlship.config.own_steps import StepsConfig
from mlship.domain.policy import Occupied
from mlship.errors import ConfigError

Source = Annotated[
    str,
    Meta(
        pattern=r"^(?!-)[\w./:@+=<>~!,#&%?-]+$",
        extra={"form": "such as git+https://example.org/mlship@COMMIT, ./tools/mlship or ."},
    ),
]


Branch = Annotated[
    str,
    Meta(pattern=r"^(?!-)[\w./-]+(?!\n)$", extra={"form": "the name of one branch, not a pattern"}),
]
Branches = Annotated[
    str,
    Meta(
        pattern=r"^(?!-)[\w./*-]+(?!\n)$",
        extra={"form": "a branch, or a pattern such as feature/**"},
    ),
]
Pattern = Annotated[
    str,
    Meta(
        # Neither a quote nor a control character, no `/` at the start, no part that is `..`.
        pattern=r"^(?![-/]|!/|!?$)(?!(.*/)?!?\.\.(/|$))[^\x00-\x1f\x7f\"'\\]+(?!\n)$",
        extra={"form": "a pattern from the repository's top, without .. and quotes: shared/**"},
    ),
]


class BranchesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The branches of the repository. The default is GitFlow.

    Without `develop`, pull requests go from feature branches to `main`. With `release`, what is on
    such a branch is tried on staging and offered to `main`, and not what is on `develop`.
    """

    feature: Annotated[
        Branches, Meta(description="branches that are trained, tested and reported")
    ] = "feature/**"
    develop: Annotated[
        Branch | None,
        Meta(description="the branch that is tried on staging and offered to main; null for none"),
    ] = "develop"
    release: Annotated[
        Branches | None,
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
        """The patterns of the branches that are trained, tested and reported when they are pushed.

        A pattern of GitHub's with a `!` leaves out branches that have a workflow of their own.
        """
        others = [name for name in (self.offered, self.main) if name]
        own = [f"!{name}" for name in others if overlap(self.feature, name)]
        return [self.feature, *own, *([self.develop] if self.release and self.develop else [])]


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
            pattern=r"^3\.1[1-9](?!\n)$",
            description="Python version of the jobs; a model is served by the version that "
            "trained it",
            extra={"form": "the version of a Python that mlship runs on: 3.11 or later"},
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
        tuple[Pattern, ...],
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
        cron.Cron, Meta(description="schedule of the challenger's evaluation, in UTC")
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


def check(config: WorkflowsConfig) -> None:
    """Refuse settings that are wrong together, or that GitHub would refuse.

    Raises:
        ConfigError: there are such.
    """
    _check_branches(config.branches)
    if reason := cron.fault(config.evaluate):
        message = f"mlship.yaml: workflows.evaluate: {config.evaluate!r}: {reason}"
        raise ConfigError(message, hint=cron.FIELDS)
    for place, steps in config.steps.places.items():
        for number, step in enumerate(steps):
            if text := step.injected:
                hint = (
                    f'pass it as a variable: `env: {{TEXT: "{text}"}}`, and in the script "$TEXT"'
                )
                if name := own_steps.variable_of(text):
                    hint = f'the script has the variable {name} anyway: write "${name}"'
                raise ConfigError(
                    f"mlship.yaml: workflows.steps.{place}[{number}]: {text} would become a part "
                    "of the script, and who names a branch or a pull request could run commands",
                    hint=hint,
                )


def paths_of(config: WorkflowsConfig, folder: str) -> list[str]:
    """Return the patterns in `workflows.paths` as GitHub reads them: `./a/` is `a/**`.

    Args:
        config: the settings.
        folder: of the project, from the repository's top.

    Raises:
        ConfigError: a pattern leaves out the project itself.
    """
    patterns = []
    for text in config.paths:
        mark = "!" if text.startswith("!") else ""
        path = text[len(mark) :]
        plain = re.sub(r"(^|/)(\./)+", r"\1", re.sub(r"/{2,}", "/", path))
        pattern = f"{plain}**" if plain.endswith("/") or not plain else plain
        if mark and matches(pattern, f"{folder}/mlship.yaml"):
            message = f"mlship.yaml: workflows.paths: {text} leaves out the project's own folder, "
            message += f"{folder}, for which its workflows run"
            raise ConfigError(message, hint="name what is left out in it, such as !**/*.md")
        patterns.append(f"{mark}{pattern}")
    return patterns


def _check_branches(branches: BranchesConfig) -> None:
    """Refuse branches for which two workflows would run, or that would be offered to themselves.

    Raises:
        ConfigError: they are.
    """
    key, alone = "workflows.branches", "for a repository without develop, set `develop: null`"
    if branches.develop == branches.main:
        message = f"mlship.yaml: {key}.develop and {key}.main are both {branches.main}"
        raise ConfigError(message, hint=alone)
    for name, branch in (("develop", branches.develop), ("main", branches.main)):
        if branch is None:
            continue
        if branches.release is not None and matches(branches.release, branch):
            message = f"mlship.yaml: {key}.release: {branches.release} includes {branch}, "
            message += f"which is {key}.{name}"
            hint = "name other branches, such as release/**; or leave `release` out: then develop "
            raise ConfigError(message, hint=f"{hint}is offered to main; {alone}")
        if branches.feature == branch:
            message = f"mlship.yaml: {key}.feature and {key}.{name} are both {branch}"
            raise ConfigError(message, hint="name the branches that are merged to it: feature/**")
    if branches.release is not None and not _is_apart(branches.feature, branches.release):
        message = f"mlship.yaml: {key}.release: {branches.release} includes feature branches, "
        message += f"which are {key}.feature: {branches.feature}; their code is not reviewed, and "
        message += "would run with the environments of staging"
        raise ConfigError(message, hint="name other branches, such as release/**")


def _is_apart(feature: str, release: str) -> bool:
    """Return whether branches that are offered are others than feature branches, or fewer.

    Of fewer, such as `release/**` beside `**`, feature branches are those that remain.
    """
    wide, narrow = (pattern.partition("*")[0] for pattern in (feature, release))
    is_fewer = narrow != wide and narrow.startswith(wide) and "*" in feature
    return is_fewer or not overlap(feature, release)


def overlap(one: str, other: str) -> bool:
    """Return whether a branch may match two patterns, by what is before their first `*`."""
    first, second = (pattern.partition("*")[0] for pattern in (one, other))
    if "*" not in other:
        return matches(one, other)
    return first.startswith(second) or second.startswith(first)


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern of GitHub's matches a branch or a path.

    The form: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#filter-pattern-cheat-sheet
    """
    # `?`, `+` and `[a-z]` mean what they do in regular expressions.
    wild = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*/?|\*)", pattern)
    expression = "".join(
        wild.get(part) or re.sub(r"[.^$(){}|]", r"\\\g<0>", part) for part in parts
    )
    try:
        return re.fullmatch(expression, name) is not None
    except re.error:
        return False
