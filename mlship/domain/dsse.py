"""DSSE envelopes: a payload with the signature of who made it.

The signed bytes name the payload's type (https://github.com/secure-systems-lab/dsse, 1.0.2). One
payload and one signature have one envelope: any other form of it is refused, so that nobody can
make a second record of a signed one.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.untrusted import decoded

IN_TOTO: Final = "application/vnd.in-toto+json"
"""The type of a payload that is an in-toto Statement."""


class Signing(Protocol):
    """Signs with one key."""

    @property
    def key(self) -> Digest:
        """The id of the key, see `mlship.domain.public_keys.key_id`."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message: the same one for the same message.

        Raises:
            ConfigError: the key cannot be read.
        """


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature, and the id of the key that made it."""

    keyid: Digest
    sig: bytes


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A payload and its signature."""

    payload: bytes
    payloadType: str  # noqa: N815 (the name in the format)
    signatures: tuple[Signature, ...]

    @property
    def message(self) -> bytes:
        """The bytes that were signed."""
        return encoded(self.payloadType, self.payload)

    @property
    def data(self) -> bytes:
        """The envelope as JSON: the bytes that were read."""
        return _written(self.payloadType, self.payload, self.signatures)


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)


def encoded(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding of a payload: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, by: Signing, payload_type: str = IN_TOTO) -> bytes:
    """Return a payload in an envelope, as JSON.

    Raises:
        ConfigError: the key cannot be read.
    """
    signature = Signature(keyid=by.key, sig=by.sign(encoded(payload_type, payload)))
    return _written(payload_type, payload, (signature,))


def is_envelope(data: bytes) -> bool:
    """Return whether bytes are an envelope rather than a bare Statement."""
    return data.startswith(b'{"payload"')


def read(data: bytes) -> Envelope:
    """Return an envelope with one signature, which is not verified.

    Raises:
        msgspec.DecodeError: it is none, or not in the form in which `seal` writes it.
    """
    envelope = decoded(_ENVELOPE.decode, data)
    if len(envelope.signatures) != 1:
        raise msgspec.DecodeError(f"it has {len(envelope.signatures)} signatures, not one")
    if _written(envelope.payloadType, envelope.payload, envelope.signatures) != data:
        raise msgspec.DecodeError("it was written in another form")
    return envelope


def _written(payload_type: str, payload: bytes, signatures: Sequence[Signature]) -> bytes:
    envelope = Envelope(payload=payload, payloadType=payload_type, signatures=tuple(signatures))
    return msgspec.json.encode(envelope, order="deterministic")
