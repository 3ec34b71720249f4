"""Merge layers of settings into a Config: defaults < mlship.yaml < environment < flags.

The layers are one list. The origin of each value is recorded, so that `mlship doctor` can show
where a value was set. Pure functions.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec.structs import replace

from mlship.config import bounds, commands, placement, schedules, stream, workflows, yaml_text
from mlship.config.backends import ObservationsConfig
from mlship.config.explain import PREFIX, explained, fields_of, in_file, place_of, value_kind
from mlship.config.project import Config, ModelConfig, TargetConfig
from mlship.config.targets import AutoscaleConfig
from mlship.config.variables import RESERVED
from mlship.domain.bundle import UNSUPERVISED
from mlship.domain.policy import PromotePolicy
from mlship.errors import ConfigError

_STAGING = ("errors", "mismatches", "p50_ms", "p99_ms")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """Settings and their source: a file such as `mlship.yaml`, `environment` or `flags`."""

    name: str
    values: dict[str, Any]


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """The Config and, for each key such as `targets.staging.port`, the layer that set it."""

    config: Config
    origins: dict[str, str]


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Merge the layers, weakest first, and check the result.

    Raises:
        ConfigError: a key is unknown (the hint names the nearest known key) or missing, or a value
            has the wrong type; the message names the key and the layer.
    """
    with in_file(layer.name for layer in layers):
        merged: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for layer in layers:
            _check_keys(layer.values, Config, layer.name, "")
            _merge(merged, layer.values, layer.name, "", origins)
        try:
            config = msgspec.convert(merged, Config)
        except msgspec.ValidationError as error:
            raise explained(error, merged, origins) from error
        config = _with_target(config)
        _check_together(config)
        return Resolved(config=config, origins=origins)


def hint_of_unread(error: Exception) -> str:
    """Return what to do about a settings file that could not be read."""
    if isinstance(error, UnicodeDecodeError):
        return "save it as UTF-8 text"
    if isinstance(error, IsADirectoryError):
        return "rename this folder, then `mlship init`"
    return "let it be a file that you may read"


def from_yaml(text: str, name: str) -> Layer:
    """Return the layer of a YAML text.

    Raises:
        ConfigError: it is not YAML, not a mapping, or has a duplicate key or a number that YAML
            reads as another; with line and column.
    """
    try:
        values = yaml_text.load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        message = f"{name}{position}: {error.problem or 'not valid YAML'}"
        raise ConfigError(message, hint="correct the file at that line") from error
    except yaml.YAMLError as error:
        message = f"{name}: {error}"
        raise ConfigError(message, hint="the file must be YAML, encoded in UTF-8") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        message = f"{name} must be a mapping of keys, not {type(values).__name__}"
        raise ConfigError(
            message, hint="start with `name: ...`; `mlship init` in a new folder writes an example"
        )
    return Layer(name=name, values=values)


def from_environment(environment: Mapping[str, str]) -> Layer:
    """Return the layer of environment variables such as `MLSHIP_TARGETS__STAGING__PORT=8080`.

    `MLFLOW_TRACKING_URI` sets `store.uri` if `MLSHIP_STORE__URI` is not set.

    Raises:
        ConfigError: a value is not YAML.
    """
    values: dict[str, Any] = {}
    tracking = environment.get("MLFLOW_TRACKING_URI")
    if tracking:
        _put(values, ["store", "uri"], tracking)
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in RESERVED:
            path = [part.lower() for part in name.removeprefix(PREFIX).split("__")]
            _put(values, path, _scalar(environment[name], name))
    return Layer(name="environment", values=values)


def from_flags(assignments: Sequence[str]) -> Layer:
    """Return the layer of options such as `--set targets.staging.port=8080`.

    Raises:
        ConfigError: there is no `=`, or the value is not YAML.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            message = f"--set {assignment}: missing value"
            raise ConfigError(message, hint="use KEY=VALUE: --set targets.staging.port=8080")
        _put(values, key.split("."), _scalar(text, f"--set {key}"))
    return Layer(name="flags", values=values)


def _scalar(text: str, name: str) -> Any:
    try:
        return yaml_text.load(text)
    except yaml.YAMLError as error:
        reason = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
        message = f"{name}: {text[:80]!r} is not a YAML value: {reason}"
        raise ConfigError(message, hint="quote the value") from error


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            inner = values[key] = {}
        values = inner
    values[path[-1]] = value


def _merge(
    into: dict[str, Any],
    values: Mapping[str, Any],
    layer: str,
    prefix: str,
    origins: dict[str, str],
) -> None:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(into.get(key, {}), dict):
            into[key] = dict(into.get(key, {}))
            if not value:
                origins[path] = layer
            _merge(into[key], value, layer, f"{path}.", origins)
        else:
            into[key] = value
            origins[path] = layer


def _check_keys(values: Mapping[Any, Any], kind: Any, layer: str, prefix: str) -> None:
    fields = fields_of(kind)
    for key, value in values.items():
        if fields is not None and key not in fields:
            raise _unknown(f"{prefix}{key}", str(key), list(fields), layer, prefix)
        inner = fields[key] if fields is not None else value_kind(kind)
        if isinstance(value, dict) and inner is not None:
            _check_keys(value, inner, layer, f"{prefix}{key}.")


def _unknown(path: str, key: str, known: list[str], layer: str, prefix: str) -> ConfigError:
    message = f"{place_of(layer, path)}: unknown key {path}"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"valid keys: {', '.join(known)}"
    return ConfigError(message, hint=hint)


def _check_observations(observations: ObservationsConfig, targets: Sequence[str]) -> None:
    if (observations.kind == "postgres") != (observations.url is not None):
        message = "mlship.yaml: observations: `kind: postgres` and `url` must be set together"
        hint = "set both under observations, as `url: postgresql://user@host/database`"
        raise ConfigError(message, hint=hint)
    if observations.when_away == "spool" and observations.url is None:
        message = "mlship.yaml: observations.when_away: spool is for kind postgres"
        raise ConfigError(message, hint="set kind and url too, or remove when_away")
    hidden = [target for target in targets if target in observations.columns]
    if hidden:
        message = f"mlship.yaml: observations.columns: {hidden[0]} is the target"
        raise ConfigError(message, hint="remove it: `mlship evaluate` compares it with outcomes")


def _check_together(config: Config) -> None:
    if (config.data.test is None) == (config.data.split is None):
        message = "mlship.yaml: data: held-out data needs exactly one of `test` and `split`"
        raise ConfigError(message, hint="add `split: {fraction: 0.2, seed: 7}` under data")
    bounds.check(config)
    _check_name(config)
    _check_targets(config)
    _check_unsupervised(config)
    _check_quantiles(config)
    _check_model(config.model)
    workflows.check(config.workflows)
    schedules.check(config.schedules, config.name)
    if config.stream is not None:
        stream.check(config.stream)
    if config.model.allow_pickle and config.model.pickle_sha256 is None:
        message = "mlship.yaml: model.allow_pickle needs model.pickle_sha256"
        raise ConfigError(message, hint="set it to the output of `sha256sum model.pkl`")
    _check_observations(config.observations, config.data.targets)
    if config.image.builder != "docker" and config.image.extend is not None:
        message = "mlship.yaml: image.extend works only with image.builder docker"
        raise ConfigError(message, hint="set `builder: docker`, or remove `extend`")
    if config.image.builder == "docker" and len(config.image.platforms) > 1:
        message = "mlship.yaml: image.builder docker builds for one platform only"
        raise ConfigError(message, hint="list one platform in image.platforms, or use builder oci")
    for name in set(config.gates.staging) - set(_STAGING):
        message = f"mlship.yaml: gates.staging.{name}: unknown metric of a replay"
        near = difflib.get_close_matches(name, _STAGING, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"valid metrics: {', '.join(_STAGING)}"
        raise ConfigError(message, hint=hint)
    _check_promotion(config.gates.promote, config.data.targets)
    _check_ports(config)
    for name, target in config.targets.items():
        _check_target(f"targets.{name}", target)


def _check_ports(config: Config) -> None:
    ports: dict[int, str] = {}
    for name, target in config.targets.items():
        if target.port and ports.setdefault(target.port, name) != name:
            message = f"mlship.yaml: targets.{ports[target.port]} and targets.{name} have the same "
            message += f"port, {target.port}"
            raise ConfigError(message, hint="give each its own port, or leave it out: 0 is any")


def _check_name(config: Config) -> None:
    """Refuse a name under which MLflow keeps the ledger of another project."""
    other = config.name.removesuffix("-ledger")
    is_server = config.store.kind == "mlflow" and config.store.uri is not None
    if other != config.name and (is_server or config.ledger.kind == "mlflow"):
        message = f"mlship.yaml: name: {config.name} is the ledger of project {other} in MLflow"
        raise ConfigError(message, hint="use a name that does not end in -ledger")


def _with_target(config: Config) -> Config:
    """Return the configuration with the default target, if its task has one."""
    if config.data.target is not None or config.model.task in UNSUPERVISED:
        return config
    return replace(config, data=replace(config.data, target="target"))


def _check_unsupervised(config: Config) -> None:
    task, metric = config.model.task, config.gates.promote.metric
    if task == "clustering" and config.data.target is not None:
        message = "mlship.yaml: a clustering has no data.target"
        raise ConfigError(message, hint="remove it; drop the column in the training function")
    if metric == "none" and config.gates.promote.approvals < 1:
        message = "mlship.yaml: gates.promote.metric: none needs at least one approval"
        raise ConfigError(message, hint="nothing else would decide on a promotion")
    if config.data.target is not None:
        return
    if metric != "none":
        message = f"mlship.yaml: gates.promote.metric is {metric}, and without data.target there "
        message += "are no outcomes to compare"
        hint = "set `metric: none` under gates.promote: then approvals alone decide on a promotion"
        raise ConfigError(message, hint=hint)
    if config.metrics:
        message = f"mlship.yaml: metrics.{next(iter(config.metrics))} needs true values, and there "
        message += "is no data.target"
        raise ConfigError(message, hint="remove it; gates.test can bound the metrics of the task")


def _check_targets(config: Config) -> None:
    names = config.data.targets
    if config.data.target is not None and not names:
        message = "mlship.yaml: data.target is an empty list"
        raise ConfigError(message, hint="name the column to predict, or several: `[width, height]`")
    doubled = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if doubled is not None:
        message = f"mlship.yaml: data.target names {doubled} twice"
        raise ConfigError(message, hint="name each column once")


def _check_quantiles(config: Config) -> None:
    quantiles = config.model.quantiles
    if not quantiles:
        return
    if len(quantiles) == 1:
        message = "mlship.yaml: model.quantiles has one quantile"
        hint = (
            f'leave it out, and measure the model by `p: "pinball[{quantiles[0]:g}]"` under metrics'
        )
        raise ConfigError(message, hint=hint)
    if list(quantiles) != sorted(set(quantiles)):
        message = "mlship.yaml: model.quantiles is not ascending"
        raise ConfigError(
            message, hint="list them in ascending order, and let the model answer in that order"
        )
    if len(config.data.targets) != 1 or config.model.task == "classification":
        message = "mlship.yaml: model.quantiles needs a regression of one target"
        raise ConfigError(message, hint="remove it, or train a model for each target")


def _check_promotion(policy: PromotePolicy, targets: Sequence[str]) -> None:
    key = "mlship.yaml: gates.promote"
    if ":" not in policy.metric:
        for name, value in (("better", policy.better), ("range", policy.range)):
            if value is not None:
                message = f"{key}.{name} is for a function of the project, not for {policy.metric}"
                raise ConfigError(message, hint="remove it: mlship knows this metric")
        return
    if policy.better is None:
        message = f"{key}.metric: {policy.metric} needs gates.promote.better"
        hint = "set `better: lower` for a cost or an error, `better: higher` for a gain"
        raise ConfigError(message, hint=hint)
    if len(targets) > 1:
        message = f"{key}.metric: {policy.metric} is given one target, and there are several"
        raise ConfigError(message, hint="name a metric of mlship: the mean of all is compared")
    low, high = policy.range or (0.0, 1.0)
    if not (math.isfinite(high - low) and low < high):
        message = f"{key}.range: [{low:g}, {high:g}] is no range"
        raise ConfigError(message, hint="write the least number first: `range: [0, 1]`")


def _check_model(model: ModelConfig) -> None:
    if (model.train is None) == (model.command is None):
        message = "mlship.yaml: model needs exactly one of `train` and `command`"
        raise ConfigError(message, hint="name your training function: `train: pipeline:train`")
    if (model.command is None) != (model.saved is None):
        message = "mlship.yaml: model.command and model.saved must be set together"
        hint = "name the file that the command writes: `saved: models/model.joblib`"
        raise ConfigError(message, hint=hint)
    if model.command is not None and model.params:
        message = "mlship.yaml: model.params is passed to a training function, not to a command"
        raise ConfigError(message, hint="write them into model.command, or use model.train")
    if model.command is not None:
        commands.check(model.command, "model.command")
    saved = Path(model.saved or "")
    if saved.is_absolute() or ".." in saved.parts:
        message = f"mlship.yaml: model.saved: {model.saved} is outside the project"
        raise ConfigError(message, hint="name a path below the project's folder")


def _check_target(key: str, target: TargetConfig) -> None:
    placement.check(key, target)
    is_google = target.kind == "gke" and not target.clusters
    if is_google != (target.gke is not None):
        message = f"mlship.yaml: {key}: `kind: gke` and the section `gke` must be set together"
        hint = f"set {key}: {{kind: gke, gke: {{project: ..., location: ..., cluster: ...}}}}"
        raise ConfigError(message, hint=hint)
    if target.kind == "local":
        return
    placement.check_access(key, target)
    if target.sticky_header is not None and target.kubernetes.gateway is not None:
        message = f"mlship.yaml: {key}.sticky_header: a Gateway does not support it"
        raise ConfigError(message, hint=f"remove it, or {key}.kubernetes.gateway")
    if target.port:
        message = f"mlship.yaml: {key}.port: only targets of kind local have a port"
        raise ConfigError(message, hint="remove it; a cluster's load balancer has port 80 or 443")
    _check_scale(key, target)


def _check_scale(key: str, target: TargetConfig) -> None:
    maximum = target.kubernetes.max_replicas
    minimum = max(target.replicas, target.challenger_replicas)
    if maximum is not None and maximum < minimum:
        message = (
            f"mlship.yaml: {key}.kubernetes.max_replicas is less than its replicas ({minimum})"
        )
        raise ConfigError(message, hint=f"set it to {minimum} or more, or remove it")
    autoscale = target.kubernetes.autoscale
    if (autoscale.metric is None) != (autoscale.in_flight is None):
        message = f"mlship.yaml: {key}.kubernetes.autoscale: `metric` and `in_flight` go together"
        raise ConfigError(message, hint="set both, or neither to scale by CPU")
    if maximum is None and autoscale != AutoscaleConfig():
        message = f"mlship.yaml: {key}.kubernetes.autoscale has no effect without max_replicas"
        hint = f"set {key}.kubernetes.max_replicas to the most replicas of a slot"
        raise ConfigError(message, hint=hint)
