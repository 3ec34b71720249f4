"""From layers to a Config: defaults < mlship.yaml < environment < flags. Pure functions.

The layers are one visible list; each value remembers the layer that it came from, so that
`mlship doctor` can say why a value is what it is.
"""

import difflib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec
import yaml

from mlship.config.explain import PREFIX, explained, fields_of, place_of, value_kind
from mlship.config.project import Config, TargetConfig
from mlship.errors import ConfigError

RESERVED = {
    "MLSHIP_CONFIG",
    "MLSHIP_DEBUG",
    "MLSHIP_LOG",
    "MLSHIP_REGISTRY_PASSWORD",
    "MLSHIP_REGISTRY_USER",
    "MLSHIP_REQUIRE_SERVICES",
    "MLSHIP_SANITY_BUNDLE",
    "MLSHIP_SANITY_ENDPOINT",
    "MLSHIP_SLOT",
}


_STAGING = ("errors", "mismatches", "p50_ms", "p99_ms")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """Some settings and where they come from: `mlship.yaml`, `environment`, `flags`."""

    name: str
    values: dict[str, Any]


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """The Config and, for each key as `targets.staging.port`, the layer that set it."""

    config: Config
    origins: dict[str, str]


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Fold the layers, weakest first, and check the result.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), missing, or a value has
            the wrong type; the message names the key and the layer.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _check_keys(layer.values, Config, layer.name, "")
        _merge(merged, layer.values, layer.name, "", origins)
    try:
        config = msgspec.convert(merged, Config)
    except msgspec.ValidationError as error:
        raise explained(error, merged, origins) from error
    _check_together(config)
    return Resolved(config=config, origins=origins)


def from_yaml(text: str, name: str) -> Layer:
    """Return the layer of a YAML text.

    Raises:
        ConfigError: it is not YAML, not a mapping, or has a key twice; with line and column.
    """
    try:
        values = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        message = f"{name}{where}: {error.problem or 'not YAML'}"
        raise ConfigError(message, hint="correct the file there") from error
    except yaml.YAMLError as error:
        message = f"{name}: {error}"
        raise ConfigError(message, hint="correct the file; it must be YAML in UTF-8") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        message = f"{name} must be a mapping of keys, not {type(values).__name__}"
        raise ConfigError(message, hint="start it with `name: ...`; `mlship init` writes one")
    return Layer(name=name, values=values)


def from_environment(environment: Mapping[str, str]) -> Layer:
    """Return the layer of `MLSHIP_TARGETS__STAGING__PORT=8080` and its like.

    `MLFLOW_TRACKING_URI` sets `store.uri` where no `MLSHIP_STORE__URI` does.

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
    """Return the layer of `--set targets.staging.port=8080` and its like.

    Raises:
        ConfigError: there is no `=`, or the value is not YAML.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            message = f"--set {assignment}: no value"
            raise ConfigError(message, hint="write --set targets.staging.port=8080")
        _put(values, key.split("."), _scalar(text, f"--set {key}"))
    return Layer(name="flags", values=values)


def value_at(config: Config, key: str) -> Any:
    """Return the value of a key as `Resolved.origins` names it: `targets.staging.port`."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else getattr(found, part, None)
    return found


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 (PyYAML's signature)
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _scalar(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = f"{name}: {text[:80]!r} is not a YAML value"
        raise ConfigError(message, hint="quote it") from error


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
    hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(known)}"
    return ConfigError(message, hint=hint)


def _check_together(config: Config) -> None:
    if (config.data.test is None) == (config.data.split is None):
        message = "mlship.yaml: data needs a held-out part: either `test` or `split`"
        raise ConfigError(message, hint="add `split: {fraction: 0.2, seed: 7}` under data")
    if config.model.allow_pickle and config.model.pickle_sha256 is None:
        message = "mlship.yaml: model.allow_pickle needs model.pickle_sha256"
        raise ConfigError(message, hint="put the sha256 of the file there: `sha256sum model.pkl`")
    if (config.observations.kind == "postgres") != (config.observations.url is not None):
        message = "mlship.yaml: observations: kind postgres and a url go together"
        hint = "observations: {kind: postgres, url: postgresql://user@host/database}"
        raise ConfigError(message, hint=hint)
    if config.image.builder != "docker" and config.image.extend is not None:
        message = "mlship.yaml: image.extend needs image.builder docker: instructions are run there"
        raise ConfigError(message, hint="add `builder: docker`, or take `extend` away")
    if config.image.builder == "docker" and len(config.image.platforms) > 1:
        message = "mlship.yaml: image.builder docker makes images for one platform"
        raise ConfigError(message, hint="leave one in image.platforms, or use builder oci")
    for name in set(config.gates.staging) - set(_STAGING):
        message = f"mlship.yaml: gates.staging.{name}: a replay has no such metric"
        near = difflib.get_close_matches(name, _STAGING, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(_STAGING)}"
        raise ConfigError(message, hint=hint)
    for name, target in config.targets.items():
        _check_target(f"targets.{name}", target)


def _check_target(key: str, target: TargetConfig) -> None:
    if (target.kind == "gke") != (target.gke is not None):
        message = f"mlship.yaml: {key}: kind gke and the section gke go together"
        hint = f"{key}: {{kind: gke, gke: {{project: ..., location: ..., cluster: ...}}}}"
        raise ConfigError(message, hint=hint)
    if target.kind == "local":
        return
    if target.sticky_header is not None:
        message = f"mlship.yaml: {key}.sticky_header: a Gateway cannot keep clients on one side"
        raise ConfigError(message, hint="take it away, or use a target of kind local")
    if target.port:
        message = f"mlship.yaml: {key}.port: the Gateway's listeners have the ports"
        raise ConfigError(message, hint=f"take it away; {key}.kubernetes.gateway names the Gateway")
    most = target.kubernetes.max_replicas
    if most is not None and most < max(target.replicas, target.challenger_replicas):
        message = f"mlship.yaml: {key}.kubernetes.max_replicas is less than the replicas asked for"
        raise ConfigError(message, hint=f"give at least {target.replicas}, or take it away")
