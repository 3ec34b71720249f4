"""doctor: check the project and every backend that its configuration names. It changes nothing."""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from mlship.config import installation, requirements
from mlship.config.installation import Installation
from mlship.config.project import Config
from mlship.domain import image
from mlship.domain.commit import named
from mlship.errors import ConfigError, MlshipError
from mlship.steps.deploy import KEEP, LOST
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.train import STAYS_OUT

_EXTRAS = {
    "train": (
        *("pandas", "sklearn", "skl2onnx", "onnxruntime", "skops", "matplotlib", "pytest"),
        "prometheus_client",
    ),
    "local": ("granian", "onnxruntime", "prometheus_client", "envoy"),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "postgres": ("psycopg",),
    "images": ("pip",),
    "docker": ("docker",),
    "gcp": ("google.auth", "google.cloud.artifactregistry_v1", "google.cloud.container_v1"),
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        state: a warning keeps nothing from working, and something may be lost.
        hint: the next action where it is not right.
        exit_code: of the error that a step would end with; 0 where it is not wrong.
    """

    name: str
    state: Literal["right", "warning", "wrong"]
    detail: str
    hint: str = ""
    exit_code: int = 0


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """What is found where something works and is not as it should be, with the next action."""

    detail: str
    hint: str


Look = Callable[[], str | Warned]
"""Looks at one thing; an error of mlship says what is wrong with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What doctor asks besides the pipeline's ports. Each answer is one line for people.

    Attributes:
        installed: how mlship was installed, and where jobs can install it from.
        workflows: the texts of the repository's workflows, by their path in it.
        registry: whether images could be pushed, as far as that is known without a push.
        engine: which container engine answers.
        cluster: whether a target's cluster has what the target needs, and lets us.
        forge: which repository on GitHub it is, and whether there is a token; empty for none.
    """

    installed: Callable[[], Installation]
    workflows: Callable[[], Mapping[str, str]]
    registry: Callable[[], str]
    engine: Callable[[], str]
    cluster: Callable[[str], str]
    forge: Callable[[], str]


def doctor(pipeline: Pipeline, around: Surroundings) -> list[Check]:
    """Return what is right and what is not, with what to do about it. Nothing is changed."""
    targets = targets_of(pipeline.config)
    runs_images = pipeline.container_test(*targets) != "no image"
    looks: dict[str, Look] = {
        "installation": lambda: _installation(pipeline, around),
        "packages": lambda: _packages(pipeline),
        "git": lambda: _git(pipeline),
        "data and code": lambda: _inputs(pipeline),
        "ledger": lambda: f"{len(pipeline.ledger.records())} records, the chain is whole",
        "observations": lambda: _observations(pipeline),
        "store": lambda: f"{len(pipeline.store.versions())} versions",
    }
    if runs_images or pipeline.config.image.repository is not None:
        looks["registry"] = around.registry
    if needs_engine(pipeline):
        looks["engine"] = around.engine
    for name in targets:
        looks[f"target {name}"] = functools.partial(_target, pipeline, name, around)
    forge = _check("GitHub", around.forge)
    return [_check(name, look) for name, look in looks.items()] + ([forge] if forge.detail else [])


def targets_of(config: Config) -> list[str]:
    """Return the names of all targets; staging and production are there unnamed."""
    return list(dict.fromkeys((STAGING, PRODUCTION, *config.targets)))


def needs_engine(pipeline: Pipeline) -> bool:
    """Tell whether a step of this project builds images or starts containers on this machine."""
    asked = pipeline.container_test(STAGING, PRODUCTION)
    builds = pipeline.config.image.builder == "docker" and asked != "no image"
    return builds or asked == "asked for"


def _check(name: str, look: Look) -> Check:
    try:
        found = look()
    except MlshipError as error:
        return Check(
            name=name,
            state="wrong",
            detail=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
        )
    if isinstance(found, Warned):
        return Check(name=name, state="warning", detail=found.detail, hint=found.hint)
    return Check(name=name, state="right", detail=found)


def _installation(pipeline: Pipeline, around: Surroundings) -> str | Warned:
    installed = around.installed()
    if installed.others:
        raise ConfigError(
            f"{' and '.join(installed.others)} provides the module or the command "
            f"{installation.MODULE} too",
            hint=f"pip uninstall {' '.join(installed.others)}; then "
            + installation.command(installed.origin, extras_of(pipeline)),
        )
    texts = around.workflows()
    _refuse_strangers(texts)
    lines = requirements.read(pipeline.root / requirements.REQUIREMENTS)
    setting = pipeline.config.workflows.mlship
    source = installation.source_for_jobs(setting, lines, installed)
    here = installation.described(installed.origin)
    if source:
        return f"{here}; jobs install {source}"
    if texts:
        return Warned(
            detail=f"{here}; where jobs install it from is unknown: {installed.reason}",
            hint=f"set `workflows.mlship` in mlship.yaml to {installation.FORM}",
        )
    return here


def _refuse_strangers(texts: Mapping[str, str]) -> None:
    """Refuse workflows that install what is called `mlship` on package indexes.

    Raises:
        ConfigError: a workflow has such a line.
    """
    for name, text in texts.items():
        if lines := installation.strangers_named(text):
            raise ConfigError(
                f"{name} installs another program that is called {installation.MODULE} on package "
                f"indexes: {lines[0][:120]}",
                hint="replace it as in the workflows that `mlship init` writes",
            )


def _packages(pipeline: Pipeline) -> str:
    extras = extras_of(pipeline)
    missing = [extra for extra in extras if not all(map(_is_there, _EXTRAS[extra]))]
    if missing:
        raise ConfigError(
            f"packages of {', '.join(missing)} are not installed",
            hint=installation.hint(*missing),
        )
    return f"all of {', '.join(extras)}"


def extras_of(pipeline: Pipeline) -> list[str]:
    """Return the extras of mlship that the configuration needs on a machine that does all steps."""
    config = pipeline.config
    kinds = {pipeline.target_config(name).kind for name in targets_of(config)}
    repository = config.image.repository
    is_google = repository is not None and image.is_google(image.reference(repository).registry)
    runs_images = pipeline.container_test(STAGING, PRODUCTION) != "no image"
    makes_images = runs_images or repository is not None
    needed = {
        "train": True,
        "local": "local" in kinds,
        "mlflow": "mlflow" in (config.store.kind, config.ledger.kind),
        "postgres": config.observations.kind == "postgres",
        "images": makes_images and config.image.builder != "docker",
        "docker": needs_engine(pipeline),
        "gcp": "gke" in kinds or is_google,
    }
    return [extra for extra, is_needed in needed.items() if is_needed]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # what it is a part of is missing
        return False


def _git(pipeline: Pipeline) -> str:
    commit = pipeline.source.commit()
    tree = f"uncommitted changes: {named(commit.changes)}; {STAYS_OUT}" if commit.dirty else "clean"
    return f"commit {commit.sha[:12]} on {commit.branch or 'no branch'}, {tree}"


def _inputs(pipeline: Pipeline) -> str:
    pipeline.trainer.inputs()
    return "all that the configuration names is there"


def _observations(pipeline: Pipeline) -> str | Warned:
    outcomes = f"{len(pipeline.observations.outcomes())} outcomes"
    if pipeline.loses_predictions():
        return Warned(detail=f"{outcomes}; {LOST}", hint=KEEP)
    return outcomes


def _target(pipeline: Pipeline, name: str, around: Surroundings) -> str:
    is_local = pipeline.target_config(name).kind == "local"
    where = "" if is_local else f"{around.cluster(name)}; "
    deployments = pipeline.target(name).inspect()
    ready = sum(found.ready for found in deployments.values())
    wanted = sum(found.wanted for found in deployments.values())
    runs = f"{ready} of {wanted} replicas ready" if deployments else "nothing was deployed yet"
    return where + runs
