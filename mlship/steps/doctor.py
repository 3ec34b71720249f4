"""doctor: check the project and every configured backend. It changes nothing."""

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from mlship.config import bounds, installation, requirements
from mlship.config.backends import is_server
from mlship.config.project import Config
from mlship.config.repositories import BACKENDS, repository_of
from mlship.domain import api_keys, bases, image, tls
from mlship.domain.clusters import Clustered
from mlship.domain.commit import named
from mlship.domain.tls import Certified
from mlship.errors import ConfigError, MlshipError, UnavailableError
from mlship.steps import doctor_backends as backends
from mlship.steps.api_keys import openness
from mlship.steps.diagnosis import Check, Look, Surroundings, Warned
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
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
    "kafka": ("confluent_kafka", "xxhash"),
    "gcp": ("google.auth", "google.cloud.artifactregistry_v1", "google.cloud.container_v1"),
}


def doctor(pipeline: Pipeline, around: Surroundings) -> list[Check]:
    """Return the result of every check, each problem with a hint. Nothing is changed."""
    targets = targets_of(pipeline.config)
    runs_images = pipeline.container_test(*targets) != "no image"
    looks: dict[str, Look] = {
        "installation": lambda: _installation(pipeline, around),
        "packages": lambda: _packages(pipeline),
        "git": lambda: _git(pipeline),
        "data and code": lambda: _inputs(pipeline, around),
        "ledger": lambda: backends.ledger(pipeline, around),
        "signatures": lambda: backends.signatures(pipeline),
        "observations": lambda: backends.observations(pipeline),
        "store": lambda: backends.store(pipeline, around),
    }
    if runs_images or pipeline.config.image.repository is not None:
        looks["registry"] = around.registry
        looks["base image"] = lambda: _base(pipeline.config.image.base)
    if needs_engine(pipeline):
        looks["engine"] = around.engine
    if pipeline.config.stream is not None:
        looks["stream"] = around.stream
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
        "kafka": config.stream is not None,
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
