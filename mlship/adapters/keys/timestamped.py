"""Bundles without an entry in a log, as jobs of private repositories get them.

GitHub has a certificate authority of its own for them, which no public log knows, and an authority
for times. The library sigstore refuses bundles without an entry in a log, so what it does for
others is done here, by the same packages: the time of the signature, the chain of the certificate
at that time, and the signature itself.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Final

from mlship.adapters.keys.certificates import Bundle, refused
from mlship.domain import dsse

if TYPE_CHECKING:
    from cryptography import x509
    from rfc3161_client import TimeStampResponse
    from sigstore.models import TrustedRoot

_MOST: Final = 32
"""Answers of authorities for times in one bundle."""
_SHORTEST: Final = 2
"""Certificates of an authority for times: its own, and its root's."""


def verify(root: "TrustedRoot", bundle: Bundle, certificate: "x509.Certificate") -> None:
    """Verify a bundle with the authorities of a root.

    Raises:
        IntegrityError: it is not valid; so does any exception of the packages that it uses say.
    """
    time = _time(root, bundle)
    _check_chain(root, certificate, time)
    _check_use(certificate)
    _check_signature(bundle, certificate)


def _time(root: "TrustedRoot", bundle: Bundle) -> datetime:
    """Return when the signature was made, as an authority for times says."""
    from rfc3161_client import decode_timestamp_response

    answers = bundle.material.times.answers
    if not 0 < len(answers) <= _MOST:
        raise refused(f"it has {len(answers)} answers of authorities for times")
    signature = bundle.envelope.signatures[0].sig
    for answer in answers:
        response = decode_timestamp_response(answer.data)
        if _is_answer(root, response, signature):
            return response.tst_info.gen_time
    raise refused("no authority in trust.root says when it was signed")


def _is_answer(root: "TrustedRoot", response: "TimeStampResponse", signature: bytes) -> bool:
    from rfc3161_client import VerificationError, VerifierBuilder

    time = response.tst_info.gen_time
    for authority in root.get_timestamp_authorities():
        chain = authority.certificates(allow_expired=True)
        end = authority.validity_period_end
        if (
            len(chain) < _SHORTEST
            or time < authority.validity_period_start
            or (end and time >= end)
        ):
            continue
        builder = VerifierBuilder().tsa_certificate(chain[0]).add_root_certificate(chain[-1])
        for between in chain[1:-1]:
            builder = builder.add_intermediate_certificate(between)
        try:
            builder.build().verify_message(response, signature)
        except VerificationError:
            continue
        return True
    return False


def _check_chain(root: "TrustedRoot", certificate: "x509.Certificate", time: datetime) -> None:
    """Check that the authority issued a certificate, and that it was valid at a time."""
    from cryptography import x509
    from cryptography.x509 import verification

    # The purpose is not that of a client in TLS: `_check_use` looks at it.
    any_purpose = (x509.ExtendedKeyUsage, verification.Criticality.NON_CRITICAL, None)
    policies = verification.ExtensionPolicy
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(root.get_fulcio_certs()))
        .time(time)
        .extension_policies(
            ca_policy=policies.webpki_defaults_ca().may_be_present(*any_purpose),
            ee_policy=policies.webpki_defaults_ee().may_be_present(*any_purpose),
        )
        .build_client_verifier()
    )
    try:
        verifier.verify(certificate, [])
    except verification.VerificationError as error:
        raise refused(f"its certificate is not of an authority in trust.root: {error}") from error


def _check_use(certificate: "x509.Certificate") -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if not usage.digital_signature or ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise refused("its certificate is not for signatures of code")


def _check_signature(bundle: Bundle, certificate: "x509.Certificate") -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = certificate.public_key()
    sizes: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384()}
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.key_size not in sizes:
        raise refused("the key of its certificate is not one of a known elliptic curve")
    envelope = bundle.envelope
    message = dsse.encoded(envelope.payload_type, envelope.payload)
    try:
        key.verify(envelope.signatures[0].sig, message, ec.ECDSA(sizes[key.curve.key_size]))
    except InvalidSignature as error:
        raise refused("its signature is not by the key of its certificate") from error
