"""Where keys are: in a variable of the environment, or in the user's folder of settings.

    ~/.config/mlship/keys/machine.pem             of this user here, made when it is first needed
    ~/.config/mlship/keys/projects/<project>.pem  of a project, made by `mlship keys new`

Beside each is the public key, in a file `.pub`. The folder is `$XDG_CONFIG_HOME/mlship/keys` where
that variable is set.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlship import files
from mlship.adapters.keys.ed25519 import PrivateKey, generate
from mlship.domain.digests import Digest
from mlship.domain.public_keys import key_id
from mlship.errors import ConfigError, ConflictError, UnavailableError

if TYPE_CHECKING:
    from mlship.adapters.keys.kms import KmsKey

VARIABLE: Final = "MLSHIP_SIGNING_KEY"
"""The environment variable with a private key in PEM, which is a secret; or with the name of a key
in Cloud KMS, see `mlship.adapters.keys.kms`."""

_KMS: Final = "gcpkms:"
_MOST: Final = 10_000
"""Bytes of a file with a key; an Ed25519 key has 119."""


def of_user(environment: Mapping[str, str], variable: str, default: str) -> Path:
    """Return mlship's folder among the user's files of a kind (XDG base directories).

    Args:
        environment: the environment variables.
        variable: which may name the folder of that kind.
        default: that folder, in the user's home.
    """
    home = environment.get("HOME") or "~"
    return Path(environment.get(variable) or f"{home}/{default}").expanduser() / "mlship"


class Keys:
    """The keys of a project's signers on this machine.

    Args:
        project: its name.
        environment: the environment variables.
    """

    def __init__(self, project: str, environment: Mapping[str, str]) -> None:
        self._variable = environment.get(VARIABLE, "")
        self.folder = of_user(environment, "XDG_CONFIG_HOME", ".config") / "keys"
        self.project = self.folder / "projects" / f"{project}.pem"
        self.machine = self.folder / "machine.pem"
        self.where = VARIABLE if self._variable else str(self.project)

    def own(self) -> "PrivateKey | KmsKey | None":
        """Return the key that somebody gave to the project here; `None` without one.

        Raises:
            ConfigError: it cannot be read, or others may read it.
        """
        return self._named or _read(self.project)

    @cached_property
    def _named(self) -> "PrivateKey | KmsKey | None":
        """The key of the variable."""
        if self._variable.startswith(_KMS):
            from mlship.adapters.keys import kms

            return kms.named(self._variable.strip())
        if not self._variable:
            return None
        # A variable may have any bytes; the decoding of the environment is undone.
        return PrivateKey(self._variable.encode(errors="surrogateescape"), VARIABLE)

    def of_machine(self) -> PrivateKey | None:
        """Return this machine's key; `None` if it was never needed.

        Raises:
            ConfigError: it cannot be read, or others may read it.
        """
        return _read(self.machine)

    def public(self) -> tuple[str, ...]:
        """Return the public keys of those that sign here. A key in a file is not loaded for it.

        Raises:
            ConfigError: a key cannot be read.
        """
        own = self._named
        named = ((own.public if own else "") or _public(self.project), _public(self.machine))
        return tuple(key for key in named if key)

    def new(self) -> PrivateKey:
        """Make a key for the project.

        Raises:
            ConflictError: there is one.
            UnavailableError: the folder cannot be written.
        """
        if not _create(self.project):
            message = f"there is a key of this project already: {self.project}"
            hint = "to replace it, move that file, run this again, and keep both in `trust.signers`"
            raise ConflictError(message, hint=hint)
        return PrivateKey(self.project.read_bytes(), str(self.project))


class MachineSigning:
    """The port Signing with this machine's key, which is made with the first signature."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    @property
    def key(self) -> Digest:
        """The id of the key."""
        return self._private.key

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        return self._private.sign(message)

    @cached_property
    def _private(self) -> PrivateKey:
        private = self._keys.of_machine()
        if private is None:
            # Another process may make it at the same time: one of both is kept, and is read.
            _create(self._keys.machine)
            private = self._keys.of_machine()
        if private is None:
            raise _unwritable(self._keys.machine, "it disappeared")
        return private


def _read(path: Path) -> PrivateKey | None:
    try:
        data = files.read_regular(path, _MOST)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"cannot read the key {path}: {error.strerror}"
        raise ConfigError(message, hint="make it readable for you alone") from error
    if not data.strip():
        message = f"the file of a private key is empty: {path}"
        hint = "restore it from a backup, or remove it: `mlship keys new` makes a project's key, "
        hint += "and the key of this machine is made when it is needed"
        raise ConfigError(message, hint=hint)
    if not files.is_private(path):
        message = f"other users of this machine may read the private key {path}"
        hint = f"run `chmod 600 {path}`; if somebody else may have read it, make a new one"
        raise ConfigError(message, hint=hint)
    return PrivateKey(data, str(path))


def _public(path: Path) -> str:
    """Return the public key of a file with a private one; empty without such a file."""
    if not path.exists():
        return ""
    beside = path.with_suffix(".pub")
    try:
        text = files.read_regular(beside, _MOST).decode().strip()
        key_id(text)
    except (OSError, ValueError, ConfigError):
        private = _read(path)
        text = private.public if private else ""
        with suppress(OSError):
            files.write_atomically(beside, f"{text}\n".encode(), mode=0o644)
    return text


def _create(path: Path) -> bool:
    """Make a file with a new key, whole or not at all; return whether there was none."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        files.make_private(path.parent)
        files.write_atomically(draft, generate(), mode=0o600)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        files.sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    return True


def _unwritable(path: Path, reason: str) -> UnavailableError:
    message = f"cannot write the key {path}, which signs evidence: {reason}"
    hint = f"make its folder writable, or set {VARIABLE} to a private key in PEM"
    return UnavailableError(message, hint=hint)
