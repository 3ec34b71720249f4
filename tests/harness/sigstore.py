"""An authority like Sigstore's, for tests: it issues certificates, keeps logs, tells the time."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from mlship.domain import dsse
from mlship.domain.sessions import PREDICATE_TYPE
from tests.harness.samples import NOON

DAY: Final = timedelta(days=1)
FULCIO: Final = "1.3.6.1.4.1.57264.1"
REPOSITORY: Final = "https://github.com/ada/iris"
WORKFLOW: Final = f"{REPOSITORY}/.github/workflows/main.yml@refs/heads/main"
CLAIMS: Final[Mapping[int, str]] = {
    8: "https://token.actions.githubusercontent.com",
    9: WORKFLOW,
    11: "github-hosted",
    12: REPOSITORY,
    14: "refs/heads/main",
    15: "1234",
    17: "5678",
    18: WORKFLOW,
    20: "push",
    23: "production",
}
"""What a certificate says of a job, by the number of the extension."""

_START: Final = datetime(2020, 1, 1, tzinfo=UTC)
_KEY: Final = ec.ECDSA(hashes.SHA256())


class Authority:
    """Issues bundles.

    Args:
        logs: whether it has logs, as for public repositories; otherwise it tells the time.
        until: when the certificates of the authority itself expire.
        keys: its own; by default, new ones.
    """

    def __init__(
        self,
        *,
        logs: bool = True,
        until: datetime = NOON + 3_650 * DAY,
        keys: Sequence[ec.EllipticCurvePrivateKey] = (),
    ) -> None:
        self.logs = logs
        self._until = until
        own = keys or [_key() for _ in range(5)]
        self._root, self._inner, self._clock, self._log, self._issued = own
        root = self._issue("root", self._root, self._root, "root")
        inner = self._issue("inner", self._inner, self._root, "root")
        self.chain = [inner, root]
        clock = self._issue("clock", self._clock, self._root, "root", clock=True)
        self.times = [clock, root]

    @classmethod
    def kept(cls, folder: Path) -> "Authority":
        """Return the authority of a folder, which several processes know."""
        paths = [folder / f"{number}.pem" for number in range(5)]
        for path in paths:
            if not path.exists():
                path.write_bytes(
                    _key().private_bytes(
                        serialization.Encoding.PEM,
                        serialization.PrivateFormat.PKCS8,
                        serialization.NoEncryption(),
                    )
                )
        keys = [serialization.load_pem_private_key(path.read_bytes(), None) for path in paths]
        return cls(keys=[key for key in keys if isinstance(key, ec.EllipticCurvePrivateKey)])

    def root(self) -> bytes:
        """Return what has to be pinned, as a line."""
        found: dict[str, Any] = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "certificateAuthorities": [_authority(self.chain)],
        }
        if self.logs:
            found |= {"tlogs": [_log(self._log)], "ctlogs": [_log(self._issued)]}
        else:
            found |= {"timestampAuthorities": [_authority(self.times)]}
        return msgspec.json.encode(found) + b"\n"

    def bundle(
        self,
        payload: bytes,
        claims: Mapping[int, str] = CLAIMS,
        *,
        subject: str = WORKFLOW,
        time: datetime = NOON,
        kind: str = dsse.IN_TOTO,
        logged: bytes | None = None,
        after: timedelta = timedelta(seconds=1),
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
    ) -> dict[str, Any]:
        """Return a bundle in JSON types.

        Args:
            payload: that a job lets the authority attest.
            claims: what the certificate says, as in `CLAIMS`.
            subject: that it names.
            time: from which it is valid, for ten minutes.
            kind: the type of the payload.
            logged: the payload of the entry in the log; by default, this one.
            after: how long after that time the signature is made.
            purpose: of the certificate.
        """
        key = _key()
        certificate = self._of_job(key, claims, subject, time, purpose)
        signature = key.sign(dsse.encoded(kind, payload), _KEY)
        material: dict[str, Any] = {"certificate": {"rawBytes": _text(_der(certificate))}}
        if self.logs:
            entry = self._entry(logged or payload, signature, certificate, time + after)
            material["tlogEntries"] = [entry]
        else:
            answer = {"signedTimestamp": _text(self._answer(signature, time + after))}
            material["timestampVerificationData"] = {"rfc3161Timestamps": [answer]}
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payload": _text(payload),
                "payloadType": kind,
                "signatures": [{"sig": _text(signature)}],
            },
        }

    def _issue(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        by: ec.EllipticCurvePrivateKey,
        issuer: str,
        *,
        clock: bool = False,
    ) -> x509.Certificate:
        builder = _builder(key, by, _named(name), _named(issuer), _START, self._until)
        builder = builder.add_extension(x509.BasicConstraints(not clock, None), critical=True)
        builder = builder.add_extension(_usage(authority=not clock), critical=True)
        if clock:
            purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
            builder = builder.add_extension(purposes, critical=True)
        return builder.sign(by, hashes.SHA256())

    def _of_job(
        self,
        key: ec.EllipticCurvePrivateKey,
        claims: Mapping[int, str],
        subject: str,
        time: datetime,
        purpose: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        end = time + timedelta(minutes=10)
        nobody, issuer = x509.Name([]), _named("inner")
        builder = _builder(key, self._inner, nobody, issuer, time, end)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        purposes = x509.ExtendedKeyUsage([purpose])
        builder = builder.add_extension(purposes, critical=False)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(subject)])
        builder = builder.add_extension(names, critical=True)
        for number, value in claims.items():
            oid = x509.ObjectIdentifier(f"{FULCIO}.{number}")
            text = _tagged(0x0C, value.encode())
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, text), critical=False)
        if not self.logs:
            return builder.sign(self._inner, hashes.SHA256())
        before = builder.sign(self._inner, hashes.SHA256())
        oid = ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS
        listed = x509.UnrecognizedExtension(oid, self._seen(before, time))
        return builder.add_extension(listed, critical=False).sign(self._inner, hashes.SHA256())

    def _seen(self, certificate: x509.Certificate, time: datetime) -> bytes:
        """Return what the log of certificates says of one that is not issued yet (RFC 6962)."""
        issuer = hashlib.sha256(_spki(self._inner)).digest()
        inner = certificate.tbs_certificate_bytes
        at = int(time.timestamp() * 1000).to_bytes(8)
        entry = b"\0\1" + issuer + len(inner).to_bytes(3) + inner
        signature = self._issued.sign(b"\0\0" + at + entry + b"\0\0", _KEY)
        log = hashlib.sha256(_spki(self._issued)).digest()
        said = b"\0" + log + at + b"\0\0" + b"\4\3" + len(signature).to_bytes(2) + signature
        listed = len(said).to_bytes(2) + said
        return _tagged(0x04, len(listed).to_bytes(2) + listed)

    def _entry(
        self, payload: bytes, signature: bytes, certificate: x509.Certificate, time: datetime
    ) -> dict[str, Any]:
        """Return an entry of a log of signatures with nothing else in it."""
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        digest = hashlib.sha256(payload).hexdigest()
        body = msgspec.json.encode(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": digest},
                    "payloadHash": {"algorithm": "sha256", "value": digest},
                    "signatures": [{"signature": _text(signature), "verifier": _text(pem)}],
                },
            }
        )
        log = hashlib.sha256(_spki(self._log)).digest()
        at = int(time.timestamp())
        leaf = hashlib.sha256(b"\0" + body).digest()
        note = f"log.example.org\n1\n{_text(leaf)}\n"
        signed = log[:4] + self._log.sign(note.encode(), _KEY)
        promise = {"body": _text(body), "integratedTime": at, "logID": log.hex(), "logIndex": 0}
        promised = self._log.sign(msgspec.json.encode(promise), _KEY)
        return {
            "logIndex": "0",
            "logId": {"keyId": _text(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(at),
            "inclusionPromise": {"signedEntryTimestamp": _text(promised)},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _text(leaf),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.example.org {_text(signed)}\n"},
            },
            "canonicalizedBody": _text(body),
        }

    def _answer(self, signature: bytes, time: datetime) -> bytes:
        """Return what an authority for times says of a signature (RFC 3161, RFC 5652)."""
        sha256 = _tagged(0x30, _oid("2.16.840.1.101.3.4.2.1"))
        kind = _oid("1.2.840.113549.1.9.16.1.4")
        at = time.astimezone(UTC).strftime("%Y%m%d%H%M%SZ")
        imprint = _tagged(0x30, sha256, _tagged(0x04, hashlib.sha256(signature).digest()))
        said = _tagged(
            0x30, _number(1), _oid("1.2.3"), imprint, _number(7), _tagged(0x18, at.encode())
        )
        digest = _tagged(0x04, hashlib.sha256(said).digest())
        kinds = _tagged(0x30, _oid("1.2.840.113549.1.9.3"), _tagged(0x31, kind))
        digests = _tagged(0x30, _oid("1.2.840.113549.1.9.4"), _tagged(0x31, digest))
        signed = self._clock.sign(_tagged(0x31, kinds, digests), _KEY)
        clock = self.times[0]
        number = _number(clock.serial_number)
        signer = _tagged(
            0x30,
            _number(1),
            _tagged(0x30, clock.issuer.public_bytes(), number),
            sha256,
            _tagged(0xA0, kinds, digests),
            _tagged(0x30, _oid("1.2.840.10045.4.3.2")),
            _tagged(0x04, signed),
        )
        content = _tagged(0x30, kind, _tagged(0xA0, _tagged(0x04, said)))
        data = _tagged(
            0x30,
            _number(3),
            _tagged(0x31, sha256),
            content,
            _tagged(0xA0, _der(clock)),
            _tagged(0x31, signer),
        )
        token = _tagged(0x30, _oid("1.2.840.113549.1.7.2"), _tagged(0xA0, data))
        return _tagged(0x30, _tagged(0x30, _number(0)), token)


def statement(predicate: bytes, digest: str, /, **changes: Any) -> bytes:
    """Return what `actions/attest` signs for a predicate and the digest of its subject."""
    said = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "key", "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": msgspec.json.decode(predicate),
    }
    return msgspec.json.encode(said | changes)


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    issuer: x509.Name,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    own, its = (x509.SubjectKeyIdentifier.from_public_key(each.public_key()) for each in (key, by))
    above = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(its)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(end)
    return builder.add_extension(own, critical=False).add_extension(above, critical=False)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(chain: list[x509.Certificate]) -> dict[str, Any]:
    return {
        "subject": {"organization": "example.org", "commonName": "Authority"},
        "uri": "https://ca.example.org",
        "certChain": {"certificates": [{"rawBytes": _text(_der(each))} for each in chain]},
        "validFor": {"start": "2020-01-01T00:00:00Z"},
    }


def _log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    return {
        "baseUrl": "https://log.example.org",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": _text(_spki(key)),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        },
        "logId": {"keyId": _text(hashlib.sha256(_spki(key)).digest())},
    }


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _tagged(tag: int, *parts: bytes) -> bytes:
    """Return a value in DER."""
    data = b"".join(parts)
    short = 0x80
    if len(data) < short:
        return bytes([tag, len(data)]) + data
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8)
    return bytes([tag, short | len(length)]) + length + data


def _number(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    data = bytes([40 * first + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.insert(0, number & 0x7F | 0x80)
        data += bytes(groups)
    return _tagged(0x06, data)
