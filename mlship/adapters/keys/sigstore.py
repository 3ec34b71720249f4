"""Bundles of Sigstore are verified against roots that are pinned in a file, without the network.

The library sigstore verifies those of public repositories: certificates, their log, and the log of
signatures. It is imported when a machine verifies a bundle for the first time. Those of private
repositories have no entry in a log, see `mlship.adapters.keys.timestamped`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from mlship import files
from mlship.adapters.keys import certificates, timestamped
from mlship.adapters.keys.certificates import Bundle, refused
from mlship.adapters.keys.verified import Kept
from mlship.domain import digests
from mlship.domain.identity import MOST, Attested, shown
from mlship.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from cryptography import x509
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier

_LARGEST: Final = 1_000_000
"""Bytes of a file with roots."""
_LISTS: Final = ("tlogs", "certificateAuthorities", "ctlogs", "timestampAuthorities")
_MAKE: Final = "run `gh attestation trusted-root > trusted_root.jsonl` and name that file"


class _Root(NamedTuple):
    """A root, and what verifies bundles with entries in its logs, if it has logs."""

    trusted: "TrustedRoot"
    logged: "Verifier | None"


class Bundles:
    """The port `mlship.domain.identity.Identify`.

    Args:
        root: the file with the roots, a JSON document a line, as `gh attestation trusted-root`
            prints them.
        kept: the bundles that were verified before.
    """

    def __init__(self, root: Path, kept: Kept) -> None:
        self._path, self._kept = root, kept
        self._roots = b""
        self._parsed: list[_Root] = []

    def __call__(self, data: bytes) -> Attested:
        """Return what a bundle attests.

        Raises:
            IntegrityError: it attests nothing.
            ConfigError: the file with the roots cannot be used, or the library is missing.
        """
        if len(data) > MOST:
            raise refused(f"it has {len(data)} bytes, and may have {MOST}")
        bundle = certificates.read(data)
        certificate = certificates.certificate(bundle)
        identity = certificates.identity(certificate)
        roots = digests.of_bytes(self._read())
        digest = digests.of_value(["bundle", roots, digests.of_bytes(data)])
        if digest not in self._kept:
            self._parsed = self._parsed or _parsed(self._roots)
            _verify(self._parsed, data, bundle, certificate)
            self._kept.add([digest])
        envelope = bundle.envelope
        return Attested(
            identity=identity, payload_type=envelope.payload_type, payload=envelope.payload
        )

    def _read(self) -> bytes:
        if not self._roots:
            try:
                self._roots = files.read_regular(self._path, _LARGEST)
            except OSError as error:
                message = f"cannot read {self._path}, the roots of Sigstore: {error.strerror}"
                raise ConfigError(message, hint=f"{_MAKE} as trust.root") from error
        return self._roots


def _verify(
    roots: "Sequence[_Root]", data: bytes, bundle: Bundle, certificate: "x509.Certificate"
) -> None:
    """Verify a bundle.

    Raises:
        IntegrityError: no root shows that it is valid.
    """
    logged = bool(bundle.material.entries)
    reason = f"trust.root has no root for one {'with' if logged else 'without'} an entry in a log"
    for root in roots:
        if bool(root.logged) is not logged:
            continue
        try:
            if root.logged:
                _verify_logged(root.logged, data, bundle, certificate)
            else:
                timestamped.verify(root.trusted, bundle, certificate)
        except IntegrityError as error:
            reason = error.message
        except Exception as error:  # noqa: BLE001 (whatever fails, it is not verified)
            reason = shown(str(error).strip().split("\n")[0]) or type(error).__name__
        else:
            return
    raise refused(reason)


def _parsed(roots: bytes) -> "list[_Root]":
    """Return the roots of a file.

    Raises:
        ConfigError: it has none, or the library is missing.
    """
    try:
        from sigstore.errors import Error
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier
        from sigstore_models.trustroot.v1 import TrustedRoot as Document
    except ImportError as error:
        message = "bundles of Sigstore are verified by the package sigstore, which is missing"
        raise ConfigError(message, hint="install mlship-cd[identity]") from error
    found = []
    try:
        for line in roots.splitlines():
            # The form of protobuf leaves out lists that are empty; the library wants them.
            fields = dict.fromkeys(_LISTS, ()) | msgspec.json.decode(line, type=dict[str, Any])
            root = TrustedRoot(Document.from_json(msgspec.json.encode(fields)))
            found.append(_Root(root, Verifier(trusted_root=root) if fields["tlogs"] else None))
    except (ValueError, Error) as error:
        message = "the file that trust.root names has no roots of Sigstore"
        raise ConfigError(message, hint=_MAKE) from error
    if not found:
        raise ConfigError("the file that trust.root names is empty", hint=_MAKE)
    return found


class _Verified:
    """Keeps the certificate that the library has verified; who it names is judged elsewhere."""

    def __init__(self) -> None:
        self.certificate: x509.Certificate | None = None

    def verify(self, cert: "x509.Certificate") -> None:
        """Take the certificate."""
        self.certificate = cert


def _verify_logged(
    verifier: "Verifier", data: bytes, bundle: Bundle, certificate: "x509.Certificate"
) -> None:
    from sigstore.models import Bundle as Document

    verified = _Verified()
    said = verifier.verify_dsse(Document.from_json(data), verified)
    # The library reads more forms than this package: both have to see the same.
    if verified.certificate != certificate or said != (
        bundle.envelope.payload_type,
        bundle.envelope.payload,
    ):
        raise refused("it can be read in two ways")
