"""What a certificate of Sigstore's authority says about a job, and the bundles that have one.

The extensions are Fulcio's, 1.3.6.1.4.1.57264.1.*:
https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
"""

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from mlship.domain.identity import Identity
from mlship.domain.untrusted import decoded
from mlship.errors import IntegrityError

if TYPE_CHECKING:
    from cryptography import x509

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"

_ISSUER, _REPOSITORY, _REF, _REPOSITORY_ID, _WORKFLOW, _ENVIRONMENT = 8, 12, 14, 15, 18, 23
_UTF8: Final = 0x0C
_LONG: Final = 0x80


class Raw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate in DER."""

    data: bytes = msgspec.field(name="rawBytes")


class Timestamp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer of an authority for times (RFC 3161), in DER."""

    data: bytes = msgspec.field(name="signedTimestamp")


class Timestamps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answers of authorities for times."""

    answers: tuple[Timestamp, ...] = msgspec.field(name="rfc3161Timestamps", default=())


class Material(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shows that a signature is valid."""

    certificate: Raw
    entries: tuple[dict[str, Any], ...] = msgspec.field(name="tlogEntries", default=())
    times: Timestamps = msgspec.field(name="timestampVerificationData", default_factory=Timestamps)


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signature by the key of the certificate."""

    sig: bytes
    keyid: str = ""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A DSSE envelope as bundles have it."""

    payload: bytes
    payload_type: str = msgspec.field(name="payloadType")
    signatures: tuple[Signature, ...]


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle of version 0.3 with an envelope, as `actions/attest` writes it."""

    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = msgspec.field(
        name="mediaType"
    )
    material: Material = msgspec.field(name="verificationMaterial")
    envelope: Envelope = msgspec.field(name="dsseEnvelope")


_BUNDLE: Final = msgspec.json.Decoder(Bundle)


def read(data: bytes) -> Bundle:
    """Return a bundle, which is not verified.

    Raises:
        IntegrityError: it is none of this form.
    """
    try:
        bundle = decoded(_BUNDLE.decode, data)
    except msgspec.DecodeError as error:
        raise refused(
            f"it is no Sigstore bundle of version 0.3 with an envelope: {error}"
        ) from error
    if len(bundle.envelope.signatures) != 1:
        raise refused(f"it has {len(bundle.envelope.signatures)} signatures, not one")
    return bundle


def certificate(bundle: Bundle) -> "x509.Certificate":
    """Return the certificate of a bundle.

    Raises:
        IntegrityError: it is none.
    """
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(bundle.material.certificate.data)
    except ValueError as error:
        raise refused("its certificate cannot be read") from error


def identity(certificate: "x509.Certificate") -> Identity:
    """Return whom a certificate names.

    Raises:
        IntegrityError: it does not say what a certificate for a job says.
    """
    from cryptography import x509

    try:
        found = {each.oid.dotted_string: each.value for each in certificate.extensions}
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise refused("its certificate cannot be read") from error
    names = found.get("2.5.29.17")
    subjects = list(names) if isinstance(names, x509.SubjectAlternativeName) else []
    if len(subjects) != 1 or not isinstance(subjects[0], x509.UniformResourceIdentifier):
        raise refused("its certificate is not that of a job: its subject is no URI")

    def said(number: int, *, needed: bool = True) -> str:
        value = found.get(f"1.3.6.1.4.1.57264.1.{number}")
        if isinstance(value, x509.UnrecognizedExtension):
            return _text(value.value)
        if needed:
            raise refused(f"its certificate is not that of a job: it has no extension {number}")
        return ""

    return Identity(
        issuer=said(_ISSUER),
        subject=subjects[0].value,
        workflow=said(_WORKFLOW),
        repository=said(_REPOSITORY),
        repository_id=said(_REPOSITORY_ID),
        ref=said(_REF),
        environment=said(_ENVIRONMENT, needed=False),
        time=certificate.not_valid_before_utc,
    )


def _text(value: bytes) -> str:
    """Return a UTF8String in DER."""
    length, start = (value[1], 2) if len(value) > 1 else (0, 0)
    if length > _LONG:
        start += length - _LONG
        length = int.from_bytes(value[2:start])
    if not start or value[0] != _UTF8 or len(value) != start + length:
        raise refused("its certificate has an extension of another form")
    try:
        return value[start:].decode()
    except UnicodeDecodeError as error:
        raise refused("its certificate has an extension of another form") from error


def refused(reason: str) -> IntegrityError:
    """Return the error for a bundle that attests nothing."""
    return IntegrityError(reason, hint="do not rely on it; attest the key again")
