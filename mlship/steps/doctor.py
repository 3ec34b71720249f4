"""doctor: check the project and every backend that its configuration names."""

import importlib.util
from collections.abc import Callable

import msgspec

from mlship.errors import ConfigError, MlshipError
from mlship.steps.pipeline import Pipeline

_EXTRAS = {
    "train": ("pandas", "sklearn", "skl2onnx", "onnxruntime", "skops", "matplotlib", "pytest"),
    "local": ("granian", "onnxruntime", "prometheus_client", "envoy"),
    "mlflow": ("mlflow",),
    "postgres": ("psycopg",),
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `hint` is the next action where it is not right."""

    name: str
    right: bool
    detail: str
    hint: str = ""
    exit_code: int = 0


def doctor(pipeline: Pipeline) -> list[Check]:
    """Return what is right and what is not, with what to do about it. Nothing is changed."""
    looks: list[tuple[str, Callable[[], str]]] = [
        ("packages", lambda: _packages(pipeline)),
        ("git", lambda: _git(pipeline)),
        ("data and code", lambda: _inputs(pipeline)),
        ("ledger", lambda: f"{len(pipeline.ledger.records())} records, the chain is whole"),
        ("observations", lambda: f"{len(pipeline.observations.outcomes())} outcomes"),
        ("store", lambda: f"{len(pipeline.store.versions())} versions"),
        *(
            (f"target {name}", lambda name=name: _target(pipeline, name))
            for name in _names(pipeline)
        ),
    ]
    return [_check(name, look) for name, look in looks]


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name=name, right=True, detail=look())
    except MlshipError as error:
        return Check(
            name=name,
            right=False,
            detail=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
        )


def _names(pipeline: Pipeline) -> list[str]:
    return list(dict.fromkeys(("staging", "production", *pipeline.config.targets)))


def _packages(pipeline: Pipeline) -> str:
    config = pipeline.config
    extras = [
        *("train", "local"),
        *(["mlflow"] if "mlflow" in (config.store.kind, config.ledger.kind) else []),
        *(["postgres"] if config.observations.kind == "postgres" else []),
    ]
    missing = [
        extra
        for extra in extras
        if any(importlib.util.find_spec(module) is None for module in _EXTRAS[extra])
    ]
    if missing:
        raise ConfigError(
            f"packages of {', '.join(missing)} are not installed",
            hint=f'pip install "mlship[{",".join(missing)}]"',
        )
    return f"all of {', '.join(extras)}"


def _git(pipeline: Pipeline) -> str:
    commit = pipeline.source.commit()
    tree = "with changes: a release of it stays out of production" if commit.dirty else "clean"
    return f"commit {commit.sha[:12]} on {commit.branch or 'no branch'}, {tree}"


def _inputs(pipeline: Pipeline) -> str:
    pipeline.trainer.inputs()
    return "all that the configuration names is there"


def _target(pipeline: Pipeline, name: str) -> str:
    target = pipeline.target(name)
    deployments = target.inspect()
    ready = sum(found.ready for found in deployments.values())
    wanted = sum(found.wanted for found in deployments.values())
    return f"{ready} of {wanted} replicas ready" if deployments else "nothing was deployed yet"
