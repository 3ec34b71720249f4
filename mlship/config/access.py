"""Who may ask the releases of a target, and by which protocol."""

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from mlship.errors import ConfigError


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The certificate of a local target's load balancer. Both files are read again on a change."""

    certificate: Annotated[
        str, Meta(description="file with the certificate in PEM, then those that issued it")
    ]
    key: Annotated[str, Meta(description="file with its key in PEM, without a password")]


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client of a target needs."""

    api_keys: Annotated[
        str | None,
        Meta(
            description="file of API keys, which `mlship api-keys` writes: only requests with one "
            "of them are answered; in a cluster together with `kubernetes.api_keys_secret`; "
            "default: all are"
        ),
    ] = None
    tls: Annotated[
        TlsConfig | None,
        Meta(
            description="requests by https only (TLS 1.2 or later); kind local only, in a cluster "
            "see `kubernetes.tls_secret`"
        ),
    ] = None


_Target = TypeVar("_Target", bound=Access)


def absolute(target: _Target, root: Path) -> _Target:
    """Return a target with the paths of its files, which are relative to the project's folder."""
    keys, tls = target.api_keys, target.tls
    if tls is not None:
        tls = TlsConfig(certificate=str(root / tls.certificate), key=str(root / tls.key))
    return replace(target, api_keys=str(root / keys) if keys is not None else None, tls=tls)


def check(
    key: str, target: Access, *, secret: str | None, tls_secret: str | None, tls_is_at: str | None
) -> None:
    """Check the settings of a target in a cluster, whose pods see no file of this machine.

    Args:
        key: of the target, `targets.production`.
        target: its settings.
        secret: its `kubernetes.api_keys_secret`.
        tls_secret: its `kubernetes.tls_secret`.
        tls_is_at: what has the certificate; `None` if it is mlship's own load balancer.

    Raises:
        ConfigError: it has a file of API keys and no Secret, a certificate in files, or one in a
            Secret for a load balancer that is not mlship's own.
    """
    if target.api_keys is not None and secret is None:
        message = f"mlship.yaml: {key}.api_keys: its pods get the file from a Secret, and none is "
        hint = f"set {key}.kubernetes.api_keys_secret to its name; see `mlship guide api-keys`"
        raise ConfigError(f"{message}named", hint=hint)
    if target.tls is not None:
        message = f"mlship.yaml: {key}.tls: only targets of kind local have it; in a cluster, "
        message += f"{tls_is_at or 'the Secret in kubernetes.tls_secret'} has the certificate"
        raise ConfigError(message, hint="remove it; see `mlship guide api-keys`")
    if tls_secret is not None and tls_is_at is not None:
        message = (
            f"mlship.yaml: {key}.kubernetes.tls_secret: it is for mlship's own load balancer; "
        )
        message += f"here, {tls_is_at} has the certificate"
        raise ConfigError(message, hint="remove it; see `mlship guide api-keys`")
