"""API keys of a served model: who may ask it. A file has their names and hashes, never a key.

A key is a random token of 256 bits. So its plain SHA-256 is enough: there is nothing to guess that
a salt or a slow hash would have to protect.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from mlship.errors import ConfigError, ConflictError, NotFoundError

KEY: Final = "MLSHIP_API_KEY"
"""The environment variable from which mlship's own clients take a key."""
FILE: Final = "api-keys.json"
"""The name of the file in a Secret, and of that in the examples."""
_PREFIX: Final = "mlship_"
"""By it, scanners find a key that was committed."""
_BYTES: Final = 32
_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}(?!\n)$"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The name of a key, which logs and metrics show, its hash, and when it was added."""

    name: Annotated[str, Meta(pattern=_NAME)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]
    added: datetime


class ApiKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that a server accepts. Without any, it answers nobody."""

    keys: tuple[ApiKey, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys."""
        return tuple(key.name for key in self.keys)

    def name_of(self, token: str) -> str:
        """Return the name of a key; empty if there is none. It takes as long for any token."""
        digest, name = hash_of(token), ""
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                name = key.name
        return name

    def with_key(self, name: str, token: str, added: datetime) -> "ApiKeys":
        """Return the keys with one more.

        Raises:
            ConfigError: the name is invalid.
            ConflictError: there is a key of this name.
        """
        if not re.search(_NAME, name):
            message = f"invalid name of a key: {name[:80]!r}"
            hint = "use lower-case letters, digits, '.', '_' and '-', at most 63: team-web"
            raise ConfigError(message, hint=hint)
        if name in self.names:
            hint = f"add one of another name, give it to the clients, then remove {name}"
            raise ConflictError(f"there is a key {name} already", hint=hint)
        return ApiKeys(keys=(*self.keys, ApiKey(name=name, sha256=hash_of(token), added=added)))

    def without(self, name: str) -> "ApiKeys":
        """Return the keys without one.

        Raises:
            NotFoundError: there is no key of this name.
        """
        if name not in self.names:
            known = ", ".join(self.names) or "none"
            raise NotFoundError(f"there is no key {name[:80]}", hint=f"the keys are: {known}")
        return ApiKeys(keys=tuple(key for key in self.keys if key.name != name))

    def encoded(self) -> bytes:
        """Return the contents of a file."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def decoded(data: bytes, place: str) -> ApiKeys:
    """Return the keys in the contents of a file.

    Raises:
        ConfigError: it is not such a file; the message names the place.
    """
    try:
        keys = msgspec.json.decode(data, type=ApiKeys)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{place} is not a file of API keys: {error}", hint=_AGAIN) from error
    if twice := _repeated(keys.names):
        raise ConfigError(f"{place} has two keys {twice}", hint=_AGAIN)
    return keys


def read(path: Path) -> ApiKeys:
    """Return the keys in a file.

    Raises:
        ConfigError: it cannot be read, or is not such a file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"cannot read the API keys in {path}: {error.strerror}"
        hint = "write the file with `mlship api-keys add NAME`; on Kubernetes, put it into the "
        raise ConfigError(message, hint=f"{hint}Secret as {FILE}") from error
    return decoded(data, str(path))


def new_token() -> str:
    """Return a new key."""
    return f"{_PREFIX}{secrets.token_urlsafe(_BYTES)}"


def header(token: str) -> dict[str, str]:
    """Return the header of a request with a key; none if it is empty."""
    return {"authorization": f"Bearer {token}"} if token else {}


def hash_of(token: str) -> str:
    """Return the hash of a key."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _repeated(names: Sequence[str]) -> str:
    return next((name for place, name in enumerate(names) if name in names[:place]), "")


_AGAIN: Final = "restore the file, or write another one with `mlship api-keys add NAME`"
