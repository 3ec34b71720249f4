"""Certificates for tests: valid, expired, not valid yet."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = timedelta(days=1)


class Authority:
    """Issues certificates; who trusts its own trusts each of them."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _named("Authority")

    def write(self, path: Path) -> None:
        """Write its certificate."""
        signed = _signed(self.key, self.name, (-DAY, DAY), self, is_authority=True)
        path.write_bytes(_pem(signed))


def write(
    folder: Path,
    name: str = "iris.example.org",
    *,
    since: timedelta = -DAY,
    until: timedelta = DAY,
    authority: Authority | None = None,
) -> bytes:
    """Write certificate.pem and key.pem, by renaming; return the certificate.

    Args:
        folder: gets the files.
        name: that the certificate is for.
        since: when it becomes valid, from now.
        until: when it expires, from now.
        authority: who issues it; by default, its own key signs it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    text = _pem(_signed(key, _named(name), (since, until), authority))
    own = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for file, data in (("key.pem", own), ("certificate.pem", text)):
        (folder / f".{file}").write_bytes(data)
        (folder / f".{file}").replace(folder / file)
    return text


def _signed(
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    valid: tuple[timedelta, timedelta],
    authority: Authority | None,
    *,
    is_authority: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName(str(each.value)) for each in subject]  # its only attribute is its name
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.name if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(authority.key if authority else key, hashes.SHA256())
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
