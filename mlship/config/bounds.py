"""Numbers in mlship.yaml that are none, and gates without a bound."""

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mlship.config import batch
from mlship.config.project import Config
from mlship.domain.policy import Bound
from mlship.errors import ConfigError

METRICS: Final = frozenset(
    (
        *("accuracy", "f1_macro", "precision_macro", "recall_macro", "log_loss"),
        *("mae", "mse", "rmse", "r2", "pinball", "coverage", "crossing"),
        *("clusters", "largest_share", "silhouette", "calinski_harabasz", "davies_bouldin"),
        *("anomalies", "slices_worse"),
    )
)
"""What is measured on held-out data, of any task; of several targets, as `NAME[TARGET]` too."""

_PARAMS = "model.params"
"""What belongs to the project's own code; a training checks it."""


def check(config: Config) -> None:
    """Check that each number is finite, and that each gate bounds something.

    Raises:
        ConfigError: a number is NaN or infinite, or a gate has no bound.
    """
    for key, value in _numbers(msgspec.to_builtins(config), ""):
        if not math.isfinite(value):
            message = f"mlship.yaml: {key} is {value}, which is not a finite number"
            raise ConfigError(message, hint="write a number, or remove the key")
    gates = {
        "gates.test": config.gates.test,
        "gates.staging": config.gates.staging,
        "batch.gates": config.batch.gates,
    }
    for place, bounds in gates.items():
        for name, bound in bounds.items():
            if bound == Bound():
                message = f"mlship.yaml: {place}.{name} has no bound"
                hint = f"set one of {', '.join(bound.__struct_fields__)}, or remove the key"
                raise ConfigError(message, hint=hint)

    _check_batch(config.batch.gates)


def _check_batch(bounds: Mapping[str, Bound]) -> None:
    for name, bound in bounds.items():
        if name not in batch.NAMES:
            message = f"mlship.yaml: batch.gates.{name}: there is no such bound"
            raise ConfigError(message, hint=f"use {', '.join(batch.NAMES)}")
        if bound != Bound(min=bound.min, max=bound.max):
            message = f"mlship.yaml: batch.gates.{name}: no champion is compared with"
            raise ConfigError(message, hint="use min and max")


def check_metrics(config: Config) -> None:
    """Check that each metric of `gates.test` may exist; which ones do, the task decides.

    Raises:
        ConfigError: no task has it, and the project names no such metric.
    """
    known = METRICS | set(config.metrics)
    for name in config.gates.test:
        if not any(name == metric or name.startswith(f"{metric}[") for metric in known):
            message = f"mlship.yaml: gates.test.{name}: there is no such metric"
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "name it under `metrics`"
            raise ConfigError(message, hint=hint)


def _numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield key, value
    elif isinstance(value, Mapping) and key != _PARAMS:
        for name, inner in value.items():
            yield from _numbers(inner, f"{key}.{name}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, key)
