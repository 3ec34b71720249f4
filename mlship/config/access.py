"""Who may ask the releases of a target."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlship.errors import ConfigError


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
    access_log: Annotated[
        Literal["off", "json"],
        Meta(
            description="a line of JSON for each request on the output of a replica, without "
            "values of features; see `mlship guide watching`"
        ),
    ] = "off"


def check(key: str, target: Access, *, secret: str | None) -> None:
    """Check the settings of a target in a cluster, whose pods see no file of this machine.

    Args:
        key: of the target, `targets.production`.
        target: its settings.
        secret: its `kubernetes.api_keys_secret`.

    Raises:
        ConfigError: it has a file of API keys, and no Secret.
    """
    if target.api_keys is not None and secret is None:
        message = f"mlship.yaml: {key}.api_keys: its pods get the file from a Secret, and none is "
        hint = f"set {key}.kubernetes.api_keys_secret to its name; see `mlship guide api-keys`"
        raise ConfigError(f"{message}named", hint=hint)
