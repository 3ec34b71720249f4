"""Certificates for tests: valid, expired, not valid yet."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = timedelta(days=1)


def write(
    folder: Path, name: str = "iris.example.org", *, since: timedelta = -DAY, until: timedelta = DAY
) -> bytes:
    """Write certificate.pem and key.pem, by renaming; return the certificate.

    Args:
        folder: gets the files.
        name: that the certificate is for.
        since: when it becomes valid, from now.
        until: when it expires, from now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM)
    own = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for file, data in (("key.pem", own), ("certificate.pem", text)):
        (folder / f".{file}").write_bytes(data)
        (folder / f".{file}").replace(folder / file)
    return text
