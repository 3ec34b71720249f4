"""Kubeconfigs: read, merged by kubectl's rules, and a context of them.

The format: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
The rules of merging: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from mlship.errors import ConfigError
from mlship.files import read_pipe, read_regular

LARGEST = 8 << 20
_PIPE_SECONDS = 10.0
_DEEPEST = 64
_NODES = 200_000
"""How many values a file may have after its aliases are expanded, whatever its size."""
_KINDS = {
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
_HINT = "correct the kubeconfig, or fetch it again"
_SMALLER = (
    "`kubectl config view --minify --flatten --context NAME > FILE` writes one context; "
    "set kubernetes.kubeconfig to that file"
)
_T = TypeVar("_T")


class Cluster(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A cluster of a kubeconfig; fields that are not set are empty."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    disable_compression: bool = False
    extensions: list[dict[str, Any]] = []


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """An environment variable of a credential plugin."""

    name: str
    value: str = ""


class PluginSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The section `exec` of a user: a program that prints credentials."""

    command: str = ""
    api_version: str = ""
    args: list[str] = []
    env: list[Variable] = []
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: Literal["", "Never", "IfAvailable", "Always"] = ""


class User(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A user of a kubeconfig; fields that are not set are empty."""

    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    username: str = ""
    password: str = ""
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    impersonate: str = msgspec.field(name="as", default="")
    as_uid: str = ""
    as_groups: list[str] = []
    as_user_extra: dict[str, list[str]] = {}
    auth_provider: dict[str, Any] | None = None
    exec: PluginSettings | None = None


class _Context(msgspec.Struct, frozen=True, kw_only=True):
    cluster: str = ""
    user: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """The file and the place of an entry, for errors and relative paths."""

    file: Path
    context: str = ""
    entry: str = ""

    def error(self, text: str, hint: str = _HINT) -> ConfigError:
        """Return the error of a field; `text` starts with the field's name."""
        parts = [f"kubeconfig {self.file}"]
        parts += [f"context {self.context}"] if self.context else []
        parts += [self.entry] if self.entry else []
        return ConfigError(plain(": ".join([*parts, text])), hint=hint)

    def path(self, name: str) -> Path:
        """Return a path in the file, which is relative to the file's folder."""
        return self.file.absolute().parent / name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A context with its cluster and its user, and their places."""

    context: str
    cluster: Cluster
    cluster_origin: Origin
    user: User
    user_origin: Origin


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
    file: Path
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    contexts: Mapping[str, _Entry]
    clusters: Mapping[str, _Entry]
    users: Mapping[str, _Entry]
    current: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kubeconfig:
    """Several merged files: the first file with an entry of a name defines it.

    Attributes:
        files: those that exist; their contexts, clusters and users by name.
        current: the current context of the first file that has one; empty where none has.
    """

    files: tuple[Path, ...]
    contexts: Mapping[str, _Entry]
    clusters: Mapping[str, _Entry]
    users: Mapping[str, _Entry]
    current: str

    @property
    def name(self) -> str:
        """The files, for people."""
        return ":".join(map(str, self.files))


def paths(variable: str) -> list[Path]:
    """Return the files in the variable KUBECONFIG, each once."""
    return [expanded(name) for name in dict.fromkeys(variable.split(os.pathsep)) if name]


def expanded(name: str) -> Path:
    """Return a path; `~` at its start is the home folder, if there is one."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 (Path.expanduser raises without a home)


def load(files: Sequence[Path]) -> Kubeconfig:
    """Read and merge files; one that does not exist is skipped, as kubectl does.

    Raises:
        ConfigError: none exists, or one is not a kubeconfig that can be read.
    """
    documents = [(path, _document(path)) for path in files]
    read = [_sections(path, document) for path, document in documents if document is not None]
    if not read:
        names = " or ".join(plain(str(path)) for path in files)
        hint = "set kubernetes.kubeconfig or KUBECONFIG to the file that kubectl uses"
        raise ConfigError(f"no kubeconfig: {names} does not exist", hint=hint)
    # The first entry of a name counts as a whole: entries are never mixed.
    return Kubeconfig(
        files=tuple(file.path for file in read),
        contexts={name: each for file in reversed(read) for name, each in file.contexts.items()},
        clusters={name: each for file in reversed(read) for name, each in file.clusters.items()},
        users={name: each for file in reversed(read) for name, each in file.users.items()},
        current=next((file.current for file in read if file.current), ""),
    )


def choose(kubeconfig: Kubeconfig, context: str | None) -> Choice:
    """Return the context of that name; without one, the only context.

    Raises:
        ConfigError: there is no such context, there are several, or it lacks what is needed.
    """
    contexts = kubeconfig.contexts
    known = plain(", ".join(_marked(name, kubeconfig.current) for name in sorted(contexts)))
    if context is None and len(contexts) == 1:
        context = next(iter(contexts))
    if not contexts:
        message = f"kubeconfig {kubeconfig.name} has no contexts"
        raise ConfigError(message, hint="fetch the kubeconfig again")
    if context is None:
        message = f"kubeconfig {kubeconfig.name} has several contexts, and the target names none"
        raise ConfigError(message, hint=f"set kubernetes.context to one of them: {known}")
    if context not in contexts:
        message = plain(f"kubeconfig {kubeconfig.name} has no context {context}")
        raise ConfigError(message, hint=f"it has {known}; correct kubernetes.context")
    entry = contexts[context]
    origin = Origin(file=entry.file, context=context)
    chosen = _converted(entry.values, _Context, origin)
    cluster = _referenced(kubeconfig.clusters, "cluster", chosen.cluster, origin)
    user = _referenced(kubeconfig.users, "user", chosen.user, origin)
    cluster_origin = Origin(file=cluster.file, context=context, entry=f"cluster {chosen.cluster}")
    user_origin = Origin(file=user.file, context=context, entry=f"user {chosen.user}")
    return Choice(
        context=context,
        cluster=_converted(cluster.values, Cluster, cluster_origin),
        cluster_origin=cluster_origin,
        user=_converted(user.values, User, user_origin),
        user_origin=user_origin,
    )


def plain(text: str, longest: int = 1000) -> str:
    """Return a text that is safe to print: without escape sequences, and not too long."""
    kept = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(
        each if each.isprintable() or each in "\n\t" else f"U+{ord(each):04X}" for each in kept
    )


def _marked(name: str, current: str) -> str:
    return f"{name} (current)" if name == current else name


def _referenced(entries: Mapping[str, _Entry], kind: str, name: str, origin: Origin) -> _Entry:
    if not name:
        raise origin.error(f"{kind} is missing")
    if name not in entries:
        raise origin.error(f"{kind}: there is no {kind} {name}")
    return entries[name]


def _converted(values: Mapping[str, Any], kind: type[_T], origin: Origin) -> _T:
    try:
        return msgspec.convert(_set(values), kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        field = path.strip("`").removeprefix("$").strip(".")
        raise origin.error(f"{field}: {_explained(text)}") from error


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are set: `args: null`, which kubectl writes, means no `args`."""
    return {
        name: _set(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def _explained(text: str) -> str:
    text = text.replace(" | null", "")
    for technical, words in _KINDS.items():
        text = text.replace(f"`{technical}`", words)
    return f"{text[:1].lower()}{text[1:]}".replace("`", "")


def _document(path: Path) -> Mapping[str, Any] | None:
    """Return the contents of a file; `None` if it does not exist."""
    try:
        if path.is_fifo():
            data = read_pipe(path, LARGEST + 1, _PIPE_SECONDS)
        else:
            data = read_regular(path, LARGEST + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or str(error)
        hint = "set kubernetes.kubeconfig or KUBECONFIG to the file that kubectl uses"
        raise ConfigError(plain(f"cannot read kubeconfig {path}: {why}"), hint=hint) from error
    origin = Origin(file=path)
    if len(data) > LARGEST:
        raise origin.error(f"is larger than {LARGEST >> 20} MiB", _SMALLER)
    document = _parsed(data, origin)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise origin.error(f"expected a mapping, got {_kind(document)}")
    return document


def _parsed(data: bytes, origin: Origin) -> Any:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = count = 0
    try:
        text = data.decode("utf-8-sig")
        # The C loader is recursive: many levels crash the process.
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            count += isinstance(event, yaml.NodeEvent)
            if depth > _DEEPEST:
                raise origin.error("is nested too deeply")
        document = yaml.load(text, Loader=loader)  # noqa: S506 (it is a SafeLoader)
    except UnicodeDecodeError as error:
        raise origin.error("is not UTF-8 text") from error
    except yaml.YAMLError as error:
        # Its message quotes lines of the file, which has secrets.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not allowed characters"
        raise origin.error(f"is not valid YAML: {problem}{where}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise origin.error(f"is not valid YAML: {type(error).__name__}") from error
    _check_aliases(document, max(count, _NODES), origin)
    return document


def _check_aliases(document: Any, most: int, origin: Origin) -> None:
    """Refuse aliases that make a document infinite or very large: a loop, or nested lists.

    Args:
        document: its values are counted as often as aliases repeat them.
        most: the largest count; a file without aliases has no more values than nodes.
        origin: of the file.
    """
    waiting = [(document, 0)]
    for _ in range(most + 1):
        if not waiting:
            return
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise origin.error("an alias refers to itself")
        children = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list | tuple):
            waiting += [(child, depth + 1) for child in children]
    message = f"its aliases expand to more than {most:,} values"
    raise origin.error(message, "write the values out instead of YAML aliases")


def _sections(path: Path, document: Mapping[str, Any]) -> _File:
    origin = Origin(file=path)
    kind = document.get("kind") or "Config"
    if kind != "Config":
        raise origin.error(f"kind: expected Config, got {kind}", "name a kubeconfig")
    current = document.get("current-context") or ""
    if not isinstance(current, str):
        raise origin.error(f"current-context: expected a string, got {_kind(current)}")
    return _File(
        path=path,
        contexts=_entries(document, "contexts", "context", origin),
        clusters=_entries(document, "clusters", "cluster", origin),
        users=_entries(document, "users", "user", origin),
        current=current,
    )


def _entries(
    document: Mapping[str, Any], section: str, key: str, origin: Origin
) -> dict[str, _Entry]:
    items = document.get(section) or []
    if not isinstance(items, list):
        raise origin.error(f"{section}: expected a list, got {_kind(items)}")
    entries: dict[str, _Entry] = {}
    for index, item in enumerate(items):
        field = f"{section}[{index}]"
        if not isinstance(item, dict):
            raise origin.error(f"{field}: expected a mapping, got {_kind(item)}")
        name, values = item.get("name"), item.get(key) or {}
        if not isinstance(name, str) or not name:
            problem = "is missing" if not name else f"expected a string, got {_kind(name)}"
            raise origin.error(f"{field}.name: {problem}")
        if not isinstance(values, dict):
            raise origin.error(f"{field} ({name}).{key}: expected a mapping, got {_kind(values)}")
        if name in entries:
            raise origin.error(f"{section}: two entries have the name {name}")
        entries[name] = _Entry(file=origin.file, values=values)
    return entries


def _kind(value: Any) -> str:
    names = {bool: "true or false", str: "a string", int: "a number", float: "a number"}
    names |= {list: "a list", dict: "a mapping", type(None): "nothing"}
    return names.get(type(value), f"a {type(value).__name__}")
