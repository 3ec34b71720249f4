"""Public keys of OpenSSH, as in files `id_ed25519.pub`: Ed25519 keys only.

An agent signs with such a key what it is given, so the same signature comes out as with any other
Ed25519 key. Keys of other kinds (RSA, ECDSA, and those of security keys, whose signatures have
another form) are refused.
"""

import base64
import re
from typing import Final

from mlship.errors import ConfigError

KIND: Final = "ssh-ed25519"

BLOB: Final = r"AAAAC3NzaC1lZDI1NTE5AAAAI[A-P][A-Za-z0-9+/]{42}"
"""The base64 of the kind and of the 32 bytes of a key, each with its length (RFC 8709)."""

LINE: Final = rf"{KIND} {BLOB}( [^\x00-\x1f\x7f]*)?"
"""A public key in one line. The comment at its end says nothing."""

_START: Final = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"


def parse(line: str) -> str:
    """Return the public key of a line in mlship's own form, see `mlship.domain.public_keys.KEY`.

    Raises:
        ConfigError: it is no Ed25519 key of OpenSSH.
    """
    if not re.fullmatch(LINE, line):
        raise ConfigError(f"{line[:80]!r} is no {KIND} key", hint=f"make one: ssh-keygen -t {KIND}")
    raw = base64.b64decode(line.split(" ")[1])
    return f"ed25519:{base64.b64encode(raw[-32:]).decode()}"


def blob(public: str) -> bytes:
    """Return a public key in mlship's own form as the bytes that OpenSSH has."""
    return _START + base64.b64decode(public.removeprefix("ed25519:"))


def line(public: str) -> str:
    """Return a public key in mlship's own form as a line of OpenSSH."""
    return f"{KIND} {base64.b64encode(blob(public)).decode()}"
