"""SSH keys of people, in files of OpenSSH, by the package cryptography."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlship import files
from mlship.adapters.keys.ed25519 import PrivateKey
from mlship.domain import ssh_keys
from mlship.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_MOST: Final = 20_000
"""Bytes of a file; an Ed25519 key has some 400, of RSA up to 7,000."""
_MAKE: Final = f"make one: ssh-keygen -t {ssh_keys.KIND.removeprefix('ssh-')}"


def load(path: Path, ask: Callable[[Path], str]) -> PrivateKey:
    """Return a private key of a file.

    Args:
        path: of the file.
        ask: returns its passphrase, which is called if it has one.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no Ed25519 key of OpenSSH, the passphrase is wrong, or others may read
            the file.
    """
    data = _read(path)
    if not files.is_private(path):
        message = f"other users of this machine may read the private key {path}"
        hint = f"run `chmod 600 {path}`; if somebody else may have read it, make a new one"
        raise ConfigError(message, hint=hint)
    private = _decoded(data, None, path)
    if private is None:
        private = _decoded(data, ask(path).encode(), path)
    if private is None:
        raise ConfigError(f"the passphrase of {path} is empty", hint="run the command again")
    return PrivateKey(private, str(path))


def load_public(path: Path) -> str:
    """Return the public key of a file `.pub`, as `mlship.domain.public_keys.KEY`.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no Ed25519 key.
    """
    try:
        return ssh_keys.parse(_read(path).decode().strip())
    except (UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{path} has no {ssh_keys.KIND} key", hint=_MAKE) from error


def _read(path: Path) -> bytes:
    try:
        return files.read_regular(path, _MOST)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no key {path}", hint=_MAKE) from error
    except OSError as error:
        message = f"cannot read the key {path}: {error.strerror}"
        raise ConfigError(message, hint="make it readable for you alone") from error


def _decoded(data: bytes, passphrase: bytes | None, path: Path) -> "Ed25519PrivateKey | None":
    """Return a private key; `None` if it has a passphrase and none is given."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        private = load_ssh_private_key(data, password=passphrase)
    except TypeError:
        return None
    except (ValueError, UnsupportedAlgorithm) as error:
        message = f"{path} has no private key of OpenSSH that can be used"
        if passphrase is not None:
            message = f"the passphrase of {path} is wrong, or the file is damaged"
        raise ConfigError(message, hint="run the command again" if passphrase else _MAKE) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"the key in {path} is not an Ed25519 key", hint=_MAKE)
    return private
