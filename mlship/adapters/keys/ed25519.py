"""Ed25519 keys (RFC 8032), and ECDSA keys of other tools, by the package cryptography.

The package is imported when a key is used.
"""

import base64
from typing import TYPE_CHECKING, Final

from mlship.domain.digests import Digest
from mlship.domain.public_keys import der, key_id
from mlship.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SIGNATURE: Final = 64
"""Bytes of a signature."""


class PrivateKey:
    """The port Signing with a private key in memory.

    Args:
        pem: the private key as PKCS #8 in PEM, without a password; or the key itself.
        where: it is from, for errors.

    Attributes:
        public: the public key, as `mlship.domain.public_keys.KEY`.
        key: its id.

    Raises:
        ConfigError: it is another kind of key, or none.
    """

    def __init__(self, pem: "bytes | Ed25519PrivateKey", where: str) -> None:
        self._private = _loaded(pem, where) if isinstance(pem, bytes) else pem
        self.public = f"ed25519:{_encoded(self._private.public_key().public_bytes_raw())}"
        self.key: Digest = key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        return self._private.sign(message)


def generate() -> bytes:
    """Return a new private key as PKCS #8 in PEM, without a password."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def verify(public: str, message: bytes, signature: bytes) -> bool:
    """Return whether a public key made the signature of a message.

    Records are signed with Ed25519 keys, of which each message has one signature. Other tools sign
    with ECDSA keys, too, of the curve P-256, a digest by SHA-256, and signatures in DER form.

    Args:
        public: the key, see `mlship.domain.public_keys`.
        message: the message.
        signature: of it.

    Raises:
        ConfigError: it is no public key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        loaded = load_der_public_key(der(public))
        if isinstance(loaded, ed25519.Ed25519PublicKey):
            if len(signature) != _SIGNATURE:
                return False
            loaded.verify(signature, message)
            return True
        if isinstance(loaded, ec.EllipticCurvePublicKey):
            loaded.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            return True
    except (InvalidSignature, ValueError):  # a point that is not on the curve
        pass
    return False


def _loaded(pem: bytes, where: str) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    hint = "`mlship keys new` makes a key"
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError as error:
        message = f"the key in {where} is protected by a password, which nobody can type here"
        raise ConfigError(message, hint=hint) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{where} has no private key in PEM", hint=hint) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"the key in {where} is not an Ed25519 key", hint=hint)
    return private


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
