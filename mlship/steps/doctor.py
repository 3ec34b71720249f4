"""doctor: check the project and every configured backend. It changes nothing."""

import dataclasses
import functools
import importlib.util
import shlex
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mlship import files
from mlship.config import bounds, installation, requirements
from mlship.config.backends import is_server
from mlship.config.installation import Installation
from mlship.config.project import Config
from mlship.config.repositories import BACKENDS, repository_of
from mlship.domain import api_keys, bases, image, tls
from mlship.domain.clusters import Clustered
from mlship.domain.commit import named
from mlship.domain.tls import Certified
from mlship.errors import ConfigError, MlshipError, UnavailableError
from mlship.steps.api_keys import openness
from mlship.steps.deploy import KEEP, LOST
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.removal import unfinished
from mlship.steps.train import STAYS_OUT

_EXTRAS = {
    "train": (
        *("pandas", "sklearn", "skl2onnx", "onnxruntime", "skops", "matplotlib", "pytest"),
        "prometheus_client",
    ),
    "local": ("httptools", "uvloop", "onnxruntime", "prometheus_client", "envoy"),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "postgres": ("psycopg",),
    "images": ("pip",),
    "docker": ("docker",),
    "gcp": ("google.auth", "google.cloud.artifactregistry_v1", "google.cloud.container_v1"),
}

_TRACKING = "MLFLOW_TRACKING_URI"
_HERE_ALONE = f"kept on this machine, because {_TRACKING} is not set here"
_SHARE = (
    f"export {_TRACKING}=https://HOST of the server that all share, or set store.uri in "
    "mlship.yaml; without a server: kind registry for ledger and store (`mlship guide "
    "without-a-server`)"
)
_BY = (
    "in mlship.yaml, set `kind: mlflow` under ledger for a tracking server, or `kind: registry` "
    "under ledger and store (`mlship guide without-a-server`)"
)


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


def doctor(pipeline: Pipeline, around: Surroundings) -> list[Check]:
    """Return the result of every check, each problem with a hint. Nothing is changed."""
    targets = targets_of(pipeline.config)
    runs_images = pipeline.container_test(*targets) != "no image"
    looks: dict[str, Look] = {
        "installation": lambda: _installation(pipeline, around),
        "packages": lambda: _packages(pipeline),
        "git": lambda: _git(pipeline),
        "data and code": lambda: _inputs(pipeline, around),
        "ledger": lambda: _ledger(pipeline, around),
        "observations": lambda: _observations(pipeline),
        "store": lambda: _store(pipeline, around),
    }
    if runs_images or pipeline.config.image.repository is not None:
        looks["registry"] = around.registry
        looks["base image"] = lambda: _base(pipeline.config.image.base)
    if needs_engine(pipeline):
        looks["engine"] = around.engine
    for name in targets:
        looks[f"target {name}"] = functools.partial(_target, pipeline, name, around)
        if pipeline.target_config(name).kind != "local":
            looks[f"access to {name}"] = functools.partial(_access, pipeline, name)
        elif (keys := pipeline.target_config(name).api_keys) is not None:
            looks[f"API keys of {name}"] = functools.partial(_keys, pipeline.root / keys, name)
        if _is_encrypted(pipeline, name):
            looks[f"certificate of {name}"] = functools.partial(_certificate, pipeline, name)
    forge = _check("GitHub", around.forge)
    return [_check(name, look) for name, look in looks.items()] + ([forge] if forge.detail else [])


def targets_of(config: Config) -> list[str]:
    """Return the names of all targets; staging and production always exist."""
    return list(dict.fromkeys((STAGING, PRODUCTION, *config.targets)))


def needs_engine(pipeline: Pipeline) -> bool:
    """Return whether a step of this project needs a container engine on this machine."""
    container_test = pipeline.container_test(STAGING, PRODUCTION)
    builds = pipeline.config.image.builder == "docker" and container_test != "no image"
    return builds or container_test == "asked for"


def _check(name: str, look: Look) -> Check:
    try:
        result = look()
    except MlshipError as error:
        return Check(
            name=name,
            state="wrong",
            detail=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
        )
    if isinstance(result, Warned):
        return Check(name=name, state="warning", detail=result.detail, hint=result.hint)
    return Check(name=name, state="right", detail=result)


def _installation(pipeline: Pipeline, around: Surroundings) -> str | Warned:
    installed = around.installed()
    if installed.others:
        raise ConfigError(
            f"{' and '.join(installed.others)} also provides the module or the command "
            f"{installation.MODULE}",
            hint=f"pip uninstall {' '.join(installed.others)}; then "
            + installation.command(installed.origin, extras_of(pipeline)),
        )
    texts = around.workflows()
    _refuse_strangers(texts)
    lines = requirements.read(pipeline.root / requirements.REQUIREMENTS)
    setting = pipeline.config.workflows.mlship
    source = installation.source_for_jobs(setting, lines, installed)
    described = installation.described(installed.origin)
    if source:
        return f"{described}; jobs install {source}"
    if texts:
        return Warned(
            detail=f"{described}; jobs cannot install it: {installed.reason}",
            hint=f"set `workflows.mlship` in mlship.yaml to {installation.FORM}",
        )
    return described


def _refuse_strangers(texts: Mapping[str, str]) -> None:
    """Refuse workflows that install the unrelated package `mlship` from a package index.

    Raises:
        ConfigError: a workflow has such a line.
    """
    for name, text in texts.items():
        if lines := installation.strangers_named(text):
            raise ConfigError(
                f"{name} installs an unrelated package called {installation.MODULE} from a package "
                f"index: {lines[0][:120]}",
                hint="install mlship as the workflows from `mlship init` do",
            )


def _packages(pipeline: Pipeline) -> str:
    extras = extras_of(pipeline)
    missing = [extra for extra in extras if not all(map(_is_there, _EXTRAS[extra]))]
    if missing:
        raise ConfigError(
            f"packages of extras are not installed: {', '.join(missing)}",
            hint=installation.hint(*missing),
        )
    return f"installed: {', '.join(extras)}"


def extras_of(pipeline: Pipeline) -> list[str]:
    """Return the extras of mlship that a machine needs to run all steps of the project."""
    config = pipeline.config
    kinds = {pipeline.target_config(name).kind for name in targets_of(config)}
    repository = config.image.repository
    used = (repository, *(repository_of(config, backend) for backend in BACKENDS))
    is_google = any(name and image.is_google(image.reference(name).registry) for name in used)
    runs_images = pipeline.container_test(STAGING, PRODUCTION) != "no image"
    makes_images = runs_images or repository is not None
    needed = {
        "train": True,
        "local": "local" in kinds,
        "mlflow": _needs_mlflow(config),
        "postgres": config.observations.kind == "postgres",
        "images": makes_images and config.image.builder != "docker",
        "docker": needs_engine(pipeline),
        "gcp": "gke" in kinds or is_google,
    }
    return [extra for extra, is_needed in needed.items() if is_needed]


def _needs_mlflow(config: Config) -> bool:
    """Return whether a store or a ledger is a database, which MLflow's library changes."""
    of_store = config.store.uri if config.store.kind == "mlflow" else None
    uris = [of_store] if config.store.kind == "mlflow" else []
    uris += [config.ledger.uri or of_store] if config.ledger.kind == "mlflow" else []
    return not all(map(is_server, uris))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _git(pipeline: Pipeline) -> str:
    commit = pipeline.source.commit()
    tree = f"uncommitted changes: {named(commit.changes)}; {STAYS_OUT}" if commit.dirty else "clean"
    return f"commit {commit.sha[:12]} on {commit.branch or 'no branch'}, {tree}"


def _inputs(pipeline: Pipeline, around: Surroundings) -> str | Warned:
    pipeline.trainer.inputs()
    around.heads()
    bounds.check_metrics(pipeline.config)
    count = around.functions()
    text = f"all configured files{' and functions' if count else ''} exist"
    if ignored := around.ignored():
        return Warned(
            detail=f"{text}; git ignores {named(ignored)}, which a clone does not have",
            hint="take it out of .gitignore and commit it; keep data with DVC or at an address",
        )
    return text


def _ledger(pipeline: Pipeline, around: Surroundings) -> str | Warned:
    config, text = pipeline.config, f"{len(pipeline.ledger.records())} records, the chain is whole"
    if config.ledger.uri or config.ledger.kind == "registry" or not _shares(pipeline, around):
        return text
    if config.ledger.kind == "mlflow":
        is_named = config.store.kind == "mlflow" and config.store.uri
        return text if is_named else Warned(detail=f"{text}; {_HERE_ALONE}", hint=_SHARE)
    return Warned(detail=f"{text}; evidence is kept in this folder, and jobs share none", hint=_BY)


def _store(pipeline: Pipeline, around: Surroundings) -> str | Warned:
    config, text = pipeline.config, f"{len(pipeline.store.versions())} versions"
    if config.store.kind == "registry" or config.store.uri or not _shares(pipeline, around):
        return text
    if config.store.kind == "mlflow":
        return Warned(detail=f"{text}; {_HERE_ALONE}", hint=_SHARE)
    return Warned(detail=f"{text}; models are kept in this folder, and jobs share none", hint=_BY)


def _shares(pipeline: Pipeline, around: Surroundings) -> bool:
    """Return whether the project's jobs, and other people, need a store and a ledger in common."""
    config = pipeline.config
    kinds = {pipeline.target_config(name).kind for name in (STAGING, PRODUCTION)}
    by_server, in_cluster = config.ledger.kind == "mlflow", kinds != {"local"}
    if by_server and in_cluster:
        return True  # whoever else deploys to the cluster has to know what runs there
    wants = by_server or in_cluster or config.store.kind == "registry"
    return wants and any(_TRACKING in text for text in around.workflows().values())


def _observations(pipeline: Pipeline) -> str | Warned:
    records = pipeline.look()
    outcomes = f"{len(pipeline.observations.outcomes(records.ids))} outcomes"
    if broken := unfinished(records):
        begun = broken[0].evidence
        detail = f"an erasure by {begun.actor} at {begun.time:%Y-%m-%d %H:%M} UTC did not end"
        hint = "run the same `mlship predictions erase` again"
        return Warned(detail=f"{outcomes}; {detail}", hint=hint)
    if pipeline.loses_predictions():
        return Warned(detail=f"{outcomes}; {LOST}", hint=KEEP)
    if not files.is_private(pipeline.state):
        mode = f"{stat.S_IMODE(pipeline.state.stat().st_mode):04o}"
        detail = f"{outcomes}; other users of this machine may enter {pipeline.state} ({mode})"
        return Warned(detail=detail, hint=f"chmod 700 {shlex.quote(str(pipeline.state))}")
    return outcomes


def _access(pipeline: Pipeline, name: str) -> str | Warned:
    if is_open := openness(pipeline.target_config(name), name):
        detail, hint = is_open
        return Warned(detail=detail, hint=hint)
    secret = pipeline.target_config(name).kubernetes.api_keys_secret
    return f"requests need an API key in Secret {secret}"


def _keys(path: Path, target: str) -> str | Warned:
    names = api_keys.read(path).names
    if not names:
        hint = f"mlship api-keys add NAME --target {target}"
        return Warned(detail=f"{path.name} has no key, so that nobody is answered", hint=hint)
    return f"{path.name} has the keys {', '.join(names)}"


def _base(base: str) -> str | Warned:
    movable = bases.unpinned(base)
    return Warned(detail=movable, hint=bases.PIN) if movable else f"{base} is pinned"


def _is_encrypted(pipeline: Pipeline, name: str) -> bool:
    config = pipeline.target_config(name)
    return config.tls is not None or (
        config.kind != "local" and config.kubernetes.tls_secret is not None
    )


def _certificate(pipeline: Pipeline, name: str) -> str | Warned:
    config = pipeline.target_config(name)
    if (pair := config.tls) is not None:
        what, both = pair.certificate, "both files"
        until = tls.check(pipeline.root / pair.certificate, pipeline.root / pair.key)
    else:
        what, both = f"Secret {config.kubernetes.tls_secret}", "what it has"
        target = pipeline.target(name)
        checked = target.check_certificate() if isinstance(target, Certified) else None
        if checked is None:
            return f"{what} is not used"
        until = checked
    day = f"{until:%Y-%m-%d %H:%M} UTC"
    if until - pipeline.clock() > tls.RENEWAL:
        return f"{what} is valid until {day}"
    hint = f"renew it: replace {both}; the load balancer takes it without a restart"
    return Warned(detail=f"{what} expires at {day}", hint=hint)


def _target(pipeline: Pipeline, name: str, around: Surroundings) -> str:
    is_local = pipeline.target_config(name).kind == "local"
    cluster = "" if is_local else f"{around.cluster(name)}; "
    target = pipeline.target(name)
    if isinstance(target, Clustered):
        cluster += _reached(name, target)
    deployments = target.inspect()
    ready = sum(deployment.ready for deployment in deployments.values())
    wanted = sum(deployment.wanted for deployment in deployments.values())
    replicas = f"{ready} of {wanted} replicas ready" if deployments else "nothing is deployed yet"
    return cluster + replicas


def _reached(name: str, target: Clustered) -> str:
    """Check that the parent reaches each slot in its route.

    Raises:
        UnavailableError: it does not.
    """
    reached = target.reached()
    missing = [slot for slot, is_reached in reached.items() if not is_reached]
    if missing:
        raise UnavailableError(
            f"the load balancer of {name} does not reach {', '.join(missing)}",
            hint="`mlship status` shows in which cluster; connect the networks of the clusters",
        )
    return f"the load balancer reaches {len(reached)} slots; " if reached else ""
