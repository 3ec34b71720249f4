"""api-keys: add, list and remove the API keys of a target, in the file that its replicas read."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from mlship import files
from mlship.config.project import Config, TargetConfig
from mlship.domain import api_keys
from mlship.domain.api_keys import ApiKeys
from mlship.errors import ConfigError, NotFoundError, UnavailableError

OPEN: Final = "it answers whoever reaches its load balancer"
_NEXT: Final = "run the command as the owner of the file, and make its folder writable"


class KeyPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a target's keys.

    Attributes:
        apply: the command that brings it into the cluster; empty for a local target.
    """

    path: Path
    apply: str = ""


def place_of(config: Config, root: Path, target: str) -> KeyPlace:
    """Return where a target has its API keys.

    Raises:
        ConfigError: there is no such target, or it has no setting `api_keys`.
    """
    settings = config.targets.get(target)
    if settings is None:
        known = ", ".join(config.targets)
        raise ConfigError(f"there is no target {target[:40]}", hint=f"use one of: {known}")
    if settings.api_keys is None:
        hint = f"in mlship.yaml, set targets.{target}.api_keys: {api_keys.FILE}"
        raise ConfigError(f"target {target} has no file of API keys", hint=hint)
    path = root / settings.api_keys
    return KeyPlace(path=path, apply="" if settings.kind == "local" else _apply(settings, path))


def add(place: KeyPlace, name: str, now: datetime) -> str:
    """Add a key, and return it: it is not kept anywhere.

    Raises:
        ConfigError: the name is invalid, or the file is damaged.
        ConflictError: there is a key of this name.
        UnavailableError: the file cannot be locked or written.
    """
    token = api_keys.new_token()
    with _locked(place) as path:
        _write(path, _keys_in(path).with_key(name, token, now))
    return token


def remove(place: KeyPlace, name: str) -> None:
    """Remove a key.

    Raises:
        ConfigError: the file is damaged.
        NotFoundError: there is no key of this name.
        UnavailableError: the file cannot be locked or written.
    """
    with _locked(place) as path:
        _write(path, _keys_in(path).without(name))


def keys_in(place: KeyPlace) -> ApiKeys:
    """Return the keys of a target.

    Raises:
        NotFoundError: there is no file yet, with which no replica starts.
        ConfigError: the file cannot be read.
    """
    try:
        return api_keys.read(place.path)
    except ConfigError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        message = f"there is no file of API keys at {place.path}"
        hint = "`mlship api-keys add NAME` creates it"
        raise NotFoundError(message, hint=hint) from error


def openness(config: TargetConfig, name: str) -> tuple[str, str] | None:
    """Return that a target answers others than this machine without a key, and the next action."""
    if config.kind == "local" or config.kubernetes.api_keys_secret is not None:
        return None  # a local target listens on the loopback interface only
    hint = f"set targets.{name}.kubernetes.api_keys_secret, see `mlship guide api-keys`; or keep "
    return f"{OPEN}, without an API key", f"{hint}others away from the load balancer"


def _apply(settings: TargetConfig, path: Path) -> str:
    own = settings.kubernetes
    source = shlex.quote(f"{api_keys.FILE}={path}")
    chosen = {"--kubeconfig": own.kubeconfig, "--context": own.context}
    options = [f"{name} {shlex.quote(value)}" for name, value in chosen.items() if value]
    kubectl = " ".join(["kubectl", *options, "--namespace", own.namespace])
    return (
        f"{kubectl} create secret generic {own.api_keys_secret} --from-file={source} "
        f"--dry-run=client --output yaml | {kubectl} apply --filename -"
    )


def _keys_in(path: Path) -> ApiKeys:
    try:
        return api_keys.read(path)
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return ApiKeys(keys=())
        raise


@contextmanager
def _locked(place: KeyPlace) -> Iterator[Path]:
    """Lock the folder of the file, behind links, and return where the file is."""
    path = Path(os.path.realpath(place.path))
    with files.locked(path.parent, waits=True) as is_locked:
        if not is_locked:
            message = f"cannot lock {path.parent}, the folder of the API keys"
            hint = "create the folder, or move the file to a file system that has locks (flock)"
            raise UnavailableError(message, hint=hint)
        yield path


def _write(path: Path, keys: ApiKeys) -> None:
    try:
        files.write_atomically(path, keys.encoded(), keeps_access=True)
    except OSError as error:
        message = f"cannot write the API keys to {path}: {error.strerror}"
        raise UnavailableError(message, hint=_NEXT) from error
