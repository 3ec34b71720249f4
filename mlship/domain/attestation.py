"""Attestations: signed statements about an image, as Sigstore bundles.

A bundle (https://docs.sigstore.dev/about/bundle, version 0.3) has a DSSE envelope and the id of the
key that signed it, so that other tools verify what mlship attests, and mlship what they do.
"""

import base64
import binascii
from typing import Any, Final

import msgspec

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.dsse import IN_TOTO, Envelope, Signature, Signing
from mlship.domain.dsse import read as read_envelope
from mlship.domain.dsse import seal as seal_envelope
from mlship.domain.evidence import STATEMENT_TYPE
from mlship.domain.untrusted import decoded
from mlship.errors import IntegrityError

BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""The media type of a bundle, and what it is as a document of an image."""

SBOM: Final = "https://cyclonedx.org/bom"
"""The type of a statement whose predicate is a CycloneDX document."""

_KEY_BYTES: Final = 32

CONTENT: Final = "dev.sigstore.bundle.content"
PREDICATE: Final = "dev.sigstore.bundle.predicateType"
"""Annotations with which tools list bundles; nobody verifies them."""

_STATEMENTS: Final = (STATEMENT_TYPE, "https://in-toto.io/Statement/v0.1")


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """A statement about one image that was read; its signature is not verified.

    Attributes:
        image: the digest of the image.
        kind: the type of the predicate.
        predicate: what is said, as JSON.
        envelope: the statement with its signature.
        key: the id of the key that signed it, as the bundle names it; `None` if it names none.
    """

    image: Digest
    kind: str
    predicate: dict[str, Any]
    envelope: Envelope
    key: Digest | None

    def by(self, key: Digest) -> tuple[Digest, Envelope]:
        """Return the envelope as one that a key signed, with the digest of its bytes."""
        signature = msgspec.structs.replace(self.envelope.signatures[0], keyid=key)
        envelope = msgspec.structs.replace(self.envelope, signatures=(signature,))
        return digests.of_bytes(envelope.data), envelope


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    hint: str = ""


class _Material(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    public_key: _Key | None = None


class _Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature; its `keyid` is not written, as other tools compute it in other ways."""

    sig: bytes


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: tuple[_Signature, ...]


class _Bundle(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    type: str = msgspec.field(name="_type")
    subject: tuple[_Subject, ...]
    predicate_type: str
    predicate: dict[str, Any]


_BUNDLE: Final = msgspec.json.Decoder(_Bundle)
_STATEMENT: Final = msgspec.json.Decoder(_Statement)


def statement(name: str, image: Digest, kind: str, predicate: object) -> bytes:
    """Return a statement about an image, as canonical JSON.

    Args:
        name: of the image's repository, for people.
        image: its digest.
        kind: the type of the predicate, a URL.
        predicate: what is said.
    """
    subject = {"name": name, "digest": {"sha256": image.removeprefix("sha256:")}}
    return digests.canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [subject],
            "predicateType": kind,
            "predicate": predicate,
        }
    )


def seal(statement: bytes, by: Signing) -> bytes:
    """Return a signed statement as a bundle; the same statement and key give the same bytes.

    Raises:
        ConfigError: the key cannot be read.
    """
    envelope = read_envelope(seal_envelope(statement, by))
    hint = base64.b64encode(bytes.fromhex(by.key.removeprefix("sha256:"))).decode()
    bundle = _Bundle(
        media_type=BUNDLE,
        verification_material=_Material(public_key=_Key(hint=hint)),
        dsse_envelope=_Envelope(
            payload=envelope.payload,
            payload_type=envelope.payloadType,
            signatures=(_Signature(sig=envelope.signatures[0].sig),),
        ),
    )
    return msgspec.json.encode(bundle)


def read(data: bytes) -> Attestation:
    """Return the statement of a bundle; its signature is not verified.

    Raises:
        IntegrityError: it is no bundle of this version with one signature by a key, or its
            statement is not about exactly one image.
    """
    try:
        bundle = decoded(_BUNDLE.decode, data)
        envelope = bundle.dsse_envelope
        said = decoded(_STATEMENT.decode, envelope.payload)
    except msgspec.DecodeError as error:
        raise _refused(f"it cannot be read: {error}") from error
    if bundle.media_type != BUNDLE:
        raise _refused(f"it is a {bundle.media_type[:100]!r}")
    if bundle.verification_material.public_key is None:
        raise _refused("it is signed with a certificate, not with a key")
    if envelope.payload_type != IN_TOTO or said.type not in _STATEMENTS:
        raise _refused("it has no in-toto Statement")
    if len(envelope.signatures) != 1:
        raise _refused(f"it has {len(envelope.signatures)} signatures, not one")
    if len(said.subject) != 1:
        raise _refused(f"its statement is about {len(said.subject)} subjects, not one image")
    sha256 = said.subject[0].digest.get("sha256", "")
    key = _key(bundle.verification_material.public_key.hint)
    return Attestation(
        image=digests.parse(f"sha256:{sha256}"),
        kind=said.predicate_type,
        predicate=said.predicate,
        envelope=Envelope(
            payload=envelope.payload,
            payloadType=envelope.payload_type,
            signatures=(Signature(keyid=key or Digest(""), sig=envelope.signatures[0].sig),),
        ),
        key=key,
    )


def _key(hint: str) -> Digest | None:
    """Return the id of the key that a bundle hints at; tools may write any text there."""
    try:
        raw = base64.b64decode(hint, validate=True)
    except (binascii.Error, ValueError):
        return None
    return Digest(f"sha256:{raw.hex()}") if len(raw) == _KEY_BYTES else None


def _refused(reason: str) -> IntegrityError:
    return IntegrityError(f"not an attestation: {reason}", hint="attach it again")
