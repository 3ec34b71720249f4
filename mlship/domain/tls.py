"""Certificates for requests to a target: checked before they are used, and trusted by clients."""

import re
import ssl
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from mlship.errors import ConfigError

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_LOCKED: Final = re.compile("^(-----BEGIN ENCRYPTED|Proc-Type: 4,ENCRYPTED)", re.MULTILINE)
"""A key with a password, in PKCS #8 and in the form before it."""
_STEPS: Final = 10
RENEWAL: Final = timedelta(days=14)
"""A certificate that expires sooner is warned of."""
_NEXT: Final = "put a valid certificate and its key there, in PEM and without a password"


@runtime_checkable
class Certified(Protocol):
    """A target whose load balancer may have its certificate from elsewhere than local files."""

    def certificate(self) -> bytes | None:
        """Return it in PEM, before those that issued it; `None` if it speaks HTTP.

        Raises:
            NotFoundError, ConfigError: there is none where the settings say.
        """

    def check_certificate(self) -> datetime | None:
        """Check that clients accept it, and return when it expires; `None` if it speaks HTTP.

        Raises:
            NotFoundError, ConfigError: as above, and as `check`.
        """


def client_context(certificate: Path) -> ssl.SSLContext:
    """Return what a client needs to trust exactly one certificate, whatever name it is for.

    It is the first one in the file: the one of a server, before those that issued it.

    Raises:
        ConfigError: the file has no certificate.
    """
    return context_of(_text(certificate), str(certificate))


def context_of(text: str, name: str) -> ssl.SSLContext:
    """Return the same for a text in PEM; `name` is what errors call it.

    Raises:
        ConfigError: it has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    # The certificate need not be one that issues others.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        block = _BLOCK.search(text)
        if block is None:
            message = f"{name} has no certificate in PEM"
            raise ConfigError(message, hint=_NEXT)
        context.load_verify_locations(cadata=block[0])
    except ssl.SSLError as error:
        message = f"{name} is not a certificate: {reason_of(error)}"
        raise ConfigError(message, hint=_NEXT) from error
    return context


def check(certificate: Path, key: Path) -> datetime:
    """Check that clients accept a certificate with its key, and return when it expires.

    It is checked by a handshake in memory.

    Raises:
        ConfigError: a file cannot be read, the key has a password or is of another certificate, or
            the certificate has expired or is not valid yet.
    """
    return _checked(certificate, key, str(certificate), str(key))


def check_pair(certificate: bytes, key: bytes, name: str) -> datetime:
    """Check the same of what is in a Secret; `name` is what errors call that.

    Raises:
        ConfigError: as `check`.
    """
    # Python's ssl takes a key from a file only. Nobody else may enter this folder.
    with tempfile.TemporaryDirectory(prefix="mlship-tls-") as folder:
        files = Path(folder, "tls.crt"), Path(folder, "tls.key")
        for path, content in zip(files, (certificate, key), strict=True):
            path.write_bytes(content)
        return _checked(*files, f"tls.crt of {name}", f"tls.key of {name}")


def _checked(certificate: Path, key: Path, certificate_name: str, key_name: str) -> datetime:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = context_of(_text(certificate), certificate_name)
    if _LOCKED.search(_text(key)):
        message = f"{key_name} has a password"
        raise ConfigError(message, hint="remove it: `openssl pkey -in KEY -out NEW.pem`")
    try:
        server.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        message = f"{key_name} is not the key of {certificate_name}: {reason_of(error)}"
        raise ConfigError(message, hint=_NEXT) from error
    try:
        return _expiry_by_handshake(server, client)
    except ssl.SSLError as error:
        message = f"clients would refuse {certificate_name}: {reason_of(error)}"
        raise ConfigError(message, hint=f"renew it: {_NEXT}") from error


def reason_of(error: Exception) -> str:
    """Return what TLS says of a failure, without the address or the host that it names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.partition(",")[0]
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return str(reason).replace("_", " ").lower()


def _expiry_by_handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> datetime:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, True)]  # noqa: FBT003 (ssl takes it by position)
    for _ in range(_STEPS):
        waiting = []
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(side)
        if not waiting:
            peer: Mapping[str, Any] = sides[0].getpeercert() or {}
            return datetime.fromtimestamp(ssl.cert_time_to_seconds(peer["notAfter"]), UTC)
    message = "the handshake does not end"
    raise ssl.SSLError(message)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ConfigError(message, hint=_NEXT) from error
