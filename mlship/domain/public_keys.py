"""Public keys as texts, and their ids."""

import base64
import binascii
import hashlib
import re
from typing import Final

from mlship.domain.digests import Digest
from mlship.errors import ConfigError

KEY: Final = r"^ed25519:[A-Za-z0-9+/]{43}=(?!\n)$"
"""A public key with which records are signed: `ed25519:` and its 32 bytes, in base64."""

_P256: Final = r"^p256:[A-Za-z0-9+/]{86}==(?!\n)$"
"""A key of another tool: `p256:` and the 64 bytes of its point, in base64."""

_PEM: Final = re.compile(
    r"\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]{40,400})-----END PUBLIC KEY-----\s*"
)

# What stands before the bytes of a key in its DER form: RFC 8410, and RFC 5480 for an uncompressed
# point of the curve P-256.
_STARTS: Final = {
    "ed25519": bytes.fromhex("302a300506032b6570032100"),
    "p256": bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
}


def der(public: str) -> bytes:
    """Return a public key in DER form.

    Raises:
        ConfigError: it is no public key.
    """
    if not re.fullmatch(KEY, public) and not re.fullmatch(_P256, public):
        raise ConfigError(f"{public[:80]!r} is no public key", hint="`mlship keys show` prints one")
    kind, _, text = public.partition(":")
    return _STARTS[kind] + base64.b64decode(text)


def key_id(public: str) -> Digest:
    """Return the id of a public key: the SHA-256 of its DER form, as other tools compute it.

    Raises:
        ConfigError: it is no public key.
    """
    return Digest("sha256:" + hashlib.sha256(der(public)).hexdigest())


def pem(public: str) -> str:
    """Return a public key in PEM, as other tools read it.

    Raises:
        ConfigError: it is no public key.
    """
    text = base64.b64encode(der(public)).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def of_pem(text: str, where: str) -> str:
    """Return the public key in a PEM text, as a tool such as cosign writes it.

    Args:
        text: the PEM text.
        where: it is from, for errors.

    Raises:
        ConfigError: it has none, or one of another kind than Ed25519 and P-256.
    """
    match = _PEM.fullmatch(text)
    hint = "give a file with one public key in PEM, of the kind Ed25519 or ECDSA P-256"
    if match is None:
        raise ConfigError(f"{where} has no public key in PEM", hint=hint)
    try:
        data = base64.b64decode("".join(match[1].split()), validate=True)
    except binascii.Error as error:
        raise ConfigError(f"{where} has no public key in PEM", hint=hint) from error
    for kind, start in _STARTS.items():
        if data.startswith(start):
            public = f"{kind}:{base64.b64encode(data.removeprefix(start)).decode()}"
            der(public)
            return public
    raise ConfigError(f"the key in {where} is neither Ed25519 nor ECDSA P-256", hint=hint)
