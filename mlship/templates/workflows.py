"""GitHub workflows as text: the templates, rendered from what mlship.yaml names."""

import os
import re
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlship import __version__, files
from mlship.config.project import Config, TargetConfig
from mlship.errors import ConfigError
from mlship.domain.image import is_google, reference
from mlship.templates import shipped

if TYPE_CHECKING:
    import jinja2

FOLDER = ".github/workflows"
"""Where GitHub looks for workflows, from the top of the repository."""

Registry = Literal["google", "github", "other"]

ALWAYS = ("feature", "develop", "release", "main")
_OF_PRODUCTION = ("evaluate", "promote")
_WRITER = "`mlship init` from mlship.yaml"


class Place(NamedTuple):
    """Where a target is, as a job must know it."""

    kind: Literal["local", "kubernetes", "gke"]
    project: str


class Given(NamedTuple):
    """What the templates are rendered from.

    Attributes:
        folder: of the project in its repository; empty where it is the repository itself.
        project_needs: what jobs that run the project's code install besides its requirements.
        mlship_needs: what the other jobs install.
        registry: who takes the image in; `None` where all targets run bundles.
        container: whether the image is tested in a container before.
        travels: whether it goes from job to job as a file, because Docker builds it once.
        predictions: whether they lie in a database, which asks for a password.
    """

    folder: str
    python: str
    report: Literal["github", "cml"]
    schedule: str
    project_needs: str
    mlship_needs: str
    staging: Place
    production: Place
    registry: Registry | None
    container: bool
    travels: bool
    predictions: bool


def given(config: Config, folder: str) -> Given:
    """Return what the workflows of a project depend on.

    Raises:
        ConfigError: a target runs images, and there is no repository for them.
    """
    staging, production = (_place(config, name) for name in ("staging", "production"))
    registry = _registry(config, staging, production)
    google = registry == "google" or "gke" in (staging.kind, production.kind)
    clusters = {staging.kind, production.kind} - {"local"}
    container = registry is not None and config.gates.container
    by_docker = registry is not None and config.image.builder == "docker"
    own = ["docker"] if container or by_docker else []
    remote = ["kubernetes"] if clusters else []
    remote += ["gcp"] if google else []
    remote += ["mlflow"] if "mlflow" in (config.store.kind, config.ledger.kind) else []
    remote += ["postgres"] if config.observations.url else []
    source = config.workflows.mlship
    return Given(
        folder=folder,
        python=config.workflows.python,
        report=config.workflows.report,
        schedule=config.workflows.evaluate,
        project_needs=requirement(source, ["all", *own], folder),
        mlship_needs=requirement(source, remote, folder),
        staging=staging,
        production=production,
        registry=registry,
        container=container,
        travels=by_docker and bool(clusters),
        predictions=config.observations.url is not None,
    )


def render(config: Config, folder: str = "") -> dict[str, str]:
    """Return the text of each workflow by its path from the top of the repository.

    Args:
        config: the project's.
        folder: where the project lies in its repository, as `iris_example`.

    Raises:
        ConfigError: a target runs images, and there is no repository for them.
    """
    values = given(config, folder)
    names = [*ALWAYS, *(_OF_PRODUCTION if values.production.kind != "local" else ())]
    environment = _environment()
    return {
        f"{FOLDER}/{name}.yml": files.signed(
            _tidy(environment.get_template(f"{name}.yml").render(given=values)), _WRITER
        )
        for name in names
    }


def is_untouched(text: str) -> bool:
    """Tell whether a workflow is as `mlship init` wrote it, be it by another mlship.yaml."""
    return files.is_untouched(text, _WRITER)


def asked_for(texts: Iterable[str], kind: Literal["vars", "secrets"]) -> list[str]:
    """Return the variables or the secrets that workflows use, sorted; GitHub's own is left out."""
    found = {name for text in texts for name in re.findall(rf"\b{kind}\.([A-Z_]+)", text)}
    return sorted(found - {"GITHUB_TOKEN"})


def requirement(source: str | None, extras: Iterable[str], folder: str) -> str:
    """Return mlship with extras as pip takes it, from a version, an address or a folder.

    Args:
        source: `mlship==1.2.0`, an address, or a folder of the repository that begins with a dot.
        extras: their names.
        folder: the one in which pip is run, from the top of the repository.
    """
    wanted = source or f"mlship=={__version__}"
    names = f"[{','.join(extras)}]" if extras else ""
    if wanted.startswith("."):
        return os.path.relpath(wanted, folder or ".") + names
    if "://" in wanted:
        return f"mlship{names} @ {wanted}"
    name, rest = re.fullmatch(r"([\w.-]*)(.*)", wanted, flags=re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{name}{names}{rest}"


def _place(config: Config, name: str) -> Place:
    target = config.targets.get(name, TargetConfig())
    return Place(kind=target.kind, project=target.gke.project if target.gke else "")


def _registry(config: Config, staging: Place, production: Place) -> Registry | None:
    clusters = [
        name
        for name, place in (("staging", staging), ("production", production))
        if place.kind != "local"
    ]
    if config.image.repository is None:
        if clusters:
            raise ConfigError(
                f"mlship.yaml: targets.{clusters[0]} runs images, and image.repository is missing",
                hint="add it, as `image: {repository: ghcr.io/owner/iris}`",
            )
        return None
    host = reference(config.image.repository).registry
    if is_google(host):
        return "google"
    return "github" if host == "ghcr.io" else "other"


def _environment() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415 (one command renders)

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
    environment.filters["shell"] = shlex.quote
    return environment


def _tidy(text: str) -> str:
    """Take out the blank lines that macros leave, but those between sections and jobs."""
    text = re.sub(r"\n(?:[ ]*\n)+(?=   )", "\n", text.strip())
    return re.sub(r"\n(?:[ ]*\n)+", "\n\n", text) + "\n"
