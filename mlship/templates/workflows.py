"""GitHub workflows, rendered from templates and mlship.yaml."""

import functools
import math
import posixpath
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlship import files
from mlship.config import installation
from mlship.config.project import Config
from mlship.config.repositories import BACKENDS, repository_of
from mlship.config.requirements import REQUIREMENTS
from mlship.config.workflows import BranchesConfig, paths_of
from mlship.domain.policy import Occupied
from mlship.domain.storage import DVC, NOTHING, Kept
from mlship.domain.ticks import Run
from mlship.errors import ConfigError
from mlship.templates import own_steps, shipped
from mlship.templates.needs import Place, needs_of, place_of
from mlship.templates.outside import escaped
from mlship.templates.registries import Registry, registry_of_documents, registry_of_images

if TYPE_CHECKING:
    import jinja2

FOLDER = ".github/workflows"
"""The folder of workflows in a repository."""

ALWAYS = ("feature", "develop", "release", "main")
OF_PRODUCTION = ("evaluate", "promote", "rollback", "retire")
OF_SCHEDULES = "ticks"
"""The workflow of the schedules that GitHub fires."""
_WRITER = "`mlship init` from mlship.yaml"
_SETUP_MINUTES = 10
"""What the job of a tick may take before mlship is installed."""
_TRUSTED = "reviewed-mlship"
"""The folder of a job with the checkout of the default branch."""


class Data(NamedTuple):
    """The job that fetches what DVC keeps.

    Attributes:
        needs: arguments of the installer for mlship.
        trusted: a folder for the reviewed mlship, where the repository has it.
        trusted_needs: the arguments with mlship from there; empty if it comes from elsewhere.
        dvc: what installs DVC.
        arguments: of `mlship fetch-data`.
        secrets: their names.
        identity: whether the job is known to Google Cloud by workload identity federation.
        private: whether the storage needs credentials, and the data must stay private.
        workload: whether the recorded requests are among the data.
    """

    needs: tuple[str, ...]
    trusted: str
    trusted_needs: tuple[str, ...]
    dvc: str
    arguments: tuple[str, ...]
    secrets: tuple[str, ...]
    identity: bool
    private: bool
    workload: bool


class Fired(NamedTuple):
    """A schedule that GitHub fires.

    Attributes:
        minutes: after which its job is stopped.
    """

    name: str
    cron: str
    run: Run
    minutes: int


class Settings(NamedTuple):
    """The values that the templates use.

    Attributes:
        folder: of the project in its repository; empty for the top folder.
        prefix: of the names of its workflows: empty, or `churn-`.
        paths: patterns of the files that the project depends on; empty for all.
        pictures: whether comments show pictures, which are kept on a branch.
        comments_from: what the job that comments checks out to install mlship: nothing, or the
            commit that the pull request would change.
        comment_needs: arguments of the installer in the job that comments.
        shares: whether jobs share a ledger. One that runs unreviewed code has no access to it.
        claims: whether what it says is recorded there.
        signs: whether records are signed, with a key that jobs get as a secret.
        attests: whether they are signed with a key of the job, which GitHub's identity attests.
        public: whether what the project knows may be in artifacts of a public repository.
        own_secrets: whether steps of the user name secrets.
        ledger_needs: arguments of the installer in jobs of a pull request that use the ledger.
        review_needs: those in the job that runs its code.
        project_needs: its arguments in the job that makes a release.
        verify_needs: its arguments in the job that checks staging.
        push_needs: its arguments in the job that pushes the image.
        mlship_needs: its arguments in the other jobs that deploy.
        evaluate_needs: its arguments in the job that evaluates.
        registry: the kind of registry for the image; `None` if all targets run bundles.
        shared: the kind of registry with the ledger or the store; `None` if it has neither.
        in_registry: which of them it has: `LEDGER`, `STORE`.
        container: whether the image is tested in a container before the push.
        travels: whether it is passed between jobs as a file, because Docker builds it once.
        predictions: whether they are in a database, which needs a password.
        challenger: what a merge to main does while a challenger runs.
        branches: the names of the branches.
        data: how jobs get what DVC keeps; `None` if they need nothing of it.
        schedules: that GitHub fires.
    """

    folder: str
    prefix: str
    paths: tuple[str, ...]
    python: str
    report: Literal["github", "cml"]
    pictures: bool
    comments_from: Literal["", "base"]
    comment_needs: tuple[str, ...]
    schedule: str
    shares: bool
    claims: bool
    signs: bool
    attests: bool
    public: bool
    own_secrets: bool
    ledger_needs: tuple[str, ...]
    review_needs: tuple[str, ...]
    project_needs: tuple[str, ...]
    verify_needs: tuple[str, ...]
    push_needs: tuple[str, ...]
    mlship_needs: tuple[str, ...]
    evaluate_needs: tuple[str, ...]
    staging: Place
    production: Place
    registry: Registry | None
    shared: Registry | None
    in_registry: tuple[str, ...]
    container: bool
    travels: bool
    predictions: bool
    challenger: Occupied
    branches: BranchesConfig
    data: Data | None
    schedules: tuple[Fired, ...]


def settings_of(
    config: Config, source: str, folder: str, prefix: str, kept: Kept, elsewhere: Sequence[str]
) -> Settings:
    """Return the values for the workflows of a project; see `render`.

    Raises:
        ConfigError: a target runs images, and image.repository is missing.
    """
    staging, production = (place_of(config, name) for name in ("staging", "production"))
    places = {"staging": staging.kind, "production": production.kind}
    clusters = {name: kind for name, kind in places.items() if kind != "local"}
    registry = registry_of_images(config, list(clusters))
    by_docker = registry is not None and config.image.builder == "docker"
    is_google = registry == "google" or "gke" in clusters.values()
    shared = registry_of_documents(config)
    shares = _shares(config, shared)
    mlship, project = needs_of(config, source, folder, staging, production, registry)
    return Settings(
        folder=folder,
        prefix=prefix,
        paths=_paths(config, source, folder, elsewhere),
        python=config.workflows.python,
        report=config.workflows.report,
        pictures=config.workflows.pictures,
        comments_from="" if "://" in source else "base",
        comment_needs=installation.arguments(source, [], folder),
        schedule=config.workflows.evaluate,
        shares=shares,
        # Who may write records to a registry may push images there.
        claims=shares and config.workflows.claims and config.ledger.kind != "registry",
        signs=shares and any(signer.key for signer in config.trust.named.values()),
        attests=shares and any(signer.workflow for signer in config.trust.named.values()),
        public=config.workflows.public_data,
        own_secrets=bool(config.workflows.steps.secrets),
        ledger_needs=mlship["ledger"],
        review_needs=project["review"],
        project_needs=project["release"],
        verify_needs=project["verify"],
        push_needs=mlship["push"],
        mlship_needs=mlship["deploy"],
        evaluate_needs=mlship["evaluate"],
        staging=staging,
        production=production,
        registry=registry,
        shared=shared,
        in_registry=tuple(name.upper() for name in BACKENDS if repository_of(config, name)),
        container=registry is not None and config.gates.container,
        travels=by_docker and bool(clusters),
        predictions=config.observations.url is not None,
        challenger=config.workflows.challenger,
        branches=config.workflows.branches,
        data=_data(config, source, folder, kept, google=is_google),
        schedules=_fired(config),
    )


def _fired(config: Config) -> tuple[Fired, ...]:
    return tuple(
        Fired(name, schedule.cron, schedule.run, math.ceil(schedule.deadline) + _SETUP_MINUTES)
        for name, schedule in sorted(config.schedules.items())
        if schedule.where == "github"
    )


def _shares(config: Config, registry: Registry | None) -> bool:
    """Return whether jobs share a ledger that jobs of a pull request can read."""
    # In Google's registry, these have no identity.
    is_shared = config.ledger.kind != "directory" or config.ledger.uri is not None
    return is_shared and registry != "google"


def render(
    config: Config,
    source: str,
    folder: str = "",
    prefix: str = "",
    kept: Kept = NOTHING,
    elsewhere: Sequence[str] = (),
) -> dict[str, str]:
    """Return the text of each workflow by its path from the top of the repository.

    Args:
        config: of the project.
        source: from what jobs install mlship, in the form of `workflows.mlship`.
        folder: of the project in its repository, such as `models/churn`.
        prefix: of the names of its workflows, such as `churn-`.
        kept: what DVC keeps of its data.
        elsewhere: patterns of the files outside of its folder that it depends on.

    Raises:
        ConfigError: a target runs images, and image.repository is missing; or jobs cannot fetch
            the data as `workflows.dvc` says.
    """
    settings = settings_of(config, source, folder, prefix, kept, elsewhere)
    environment = _environment()
    return {
        f"{FOLDER}/{prefix}{name}.yml": files.signed(
            own_steps.put_into(
                _tidy(environment.get_template(f"{name}.yml").render(settings=settings)),
                config.workflows.steps,
            ),
            _WRITER,
        )
        for name in kinds(config)
    }


def kinds(config: Config) -> list[str]:
    """Return the kinds of workflows that a project needs, such as `develop`."""
    always = list(ALWAYS) if config.workflows.branches.offered else ["feature", "main"]
    always += [OF_SCHEDULES] if _fired(config) else []
    if place_of(config, "production").kind == "local":
        return always
    is_compared = config.gates.promote.metric != "none"
    return [*always, *(kind for kind in OF_PRODUCTION if kind != "evaluate" or is_compared)]


def is_untouched(text: str) -> bool:
    """Return whether nobody edited a workflow since `mlship init` wrote it."""
    return files.is_untouched(text, _WRITER)


def is_ours(text: str) -> bool:
    """Return whether `mlship init` wrote a workflow, edited since or not."""
    return files.is_signed(text, _WRITER)


def signature(text: str) -> str:
    """Return the first line of a workflow of ours, which names the text that was generated."""
    return files.signature(text, _WRITER)


def asked_for(texts: Iterable[str], kind: Literal["vars", "secrets"]) -> list[str]:
    """Return the variables or secrets that workflows use, sorted, without GitHub's own."""
    names = {name for text in texts for name in re.findall(rf"\b{kind}\.([A-Za-z_]\w*)", text)}
    return sorted(names - {"GITHUB_TOKEN"})


def _data(config: Config, source: str, folder: str, kept: Kept, *, google: bool) -> Data | None:
    """Return how jobs get what DVC keeps; `None` if they need nothing of it.

    Raises:
        ConfigError: `workflows.dvc` asks for it, and jobs cannot fetch it.
    """
    if config.workflows.dvc is False:
        return None
    storage = kept.storage
    if storage is None or not kept.files:
        if config.workflows.dvc:
            message = f"mlship.yaml: workflows.dvc: {kept.reason}"
            raise ConfigError(message, hint="correct it, or set `dvc: false` under workflows")
        return None
    identity = storage.kind == "gs" and bool(storage.secrets) and google
    return Data(
        needs=installation.arguments(source, (), folder),
        trusted=_TRUSTED,
        trusted_needs=_trusted(source, folder),
        dvc=f"dvc[{storage.extra}]=={DVC}" if storage.extra else f"dvc=={DVC}",
        arguments=storage.arguments(),
        secrets=() if identity else storage.secrets,
        identity=identity,
        private=bool(storage.secrets) and not config.workflows.public_data,
        workload=config.workload in kept.files,
    )


def _trusted(source: str, folder: str) -> tuple[str, ...]:
    """Return what installs the mlship of the default branch, where the repository has it."""
    if source.startswith("."):
        place = posixpath.normpath(f"{_TRUSTED}/{source}")
        return installation.arguments(f"./{place}", (), folder)
    if "://" in source:
        return ()
    file = posixpath.join(_TRUSTED, folder, REQUIREMENTS)
    return ("--require-hashes", "-r", posixpath.relpath(file, folder or "."))


def _paths(config: Config, source: str, folder: str, elsewhere: Sequence[str]) -> tuple[str, ...]:
    """Return patterns of the files in a repository that a project in one of its folders depends on.

    These are its folder, files outside of it, and mlship if the repository contains it. Empty for
    all files.

    Raises:
        ConfigError: `workflows.paths` leaves out the project itself.
    """
    if not folder:
        return ()
    own = paths_of(config.workflows, folder)
    patterns = [f"{escaped(folder)}/**", *elsewhere, *own]
    if source.startswith("."):
        place = posixpath.normpath(source)
        if place == ".":
            return ()
        patterns.append(escaped(place) if place.endswith(".whl") else f"{escaped(place)}/**")
    return tuple(dict.fromkeys(patterns))


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped.folder("templates/workflows")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 (YAML, from settings whose form is checked)
        # `${{ }}` is GitHub's.
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shell"] = shlex.join
    return environment


def _tidy(text: str) -> str:
    """Remove blank lines that macros leave, except between sections and jobs."""
    text = re.sub(r"\n(?:[ ]*\n)+(?=   )", "\n", text.strip())
    return re.sub(r"\n(?:[ ]*\n)+", "\n\n", text) + "\n"
