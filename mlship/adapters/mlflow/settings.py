"""MLflow's environment variables and the address of its server, for the REST client."""

import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Final

import httpx

from mlship.adapters.http.addresses import parsed
from mlship.adapters.http.clients import named_trust, system_trust
from mlship.errors import ConfigError, shown

_TOKEN: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
"""A valid value of a header: ASCII, without control characters and outer spaces."""
_MOST: Final = 1_000_000
_AUTHORITY: Final = "MLFLOW_TRACKING_SERVER_CERT_PATH"
_IDENTITY: Final = "MLFLOW_TRACKING_CLIENT_CERT_PATH"


def address(uri: str) -> str:
    """Return the address of a tracking server.

    Raises:
        ConfigError: it is invalid.
    """
    try:
        parsed(uri)
    except ValueError as error:
        message = f"invalid address of MLflow: {shown(uri)[:200]}: {error}"
        hint = "correct store.uri or MLFLOW_TRACKING_URI: http(s)://HOST:PORT"
        raise ConfigError(message, hint=hint) from error
    return uri


def credentials(environ: Mapping[str, str]) -> tuple[dict[str, str], httpx.Auth | None]:
    """Return the headers and the authentication of the variables.

    Raises:
        ConfigError: a value is invalid; the message does not show it.
    """
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    user, password = (environ.get(name, "") for name in names)
    if user and password:
        for name in names:
            if any("\ud800" <= each <= "\udfff" for each in environ[name]):
                raise ConfigError(f"{name} is not UTF-8 text", hint=f"set {name} again")
        return {}, httpx.BasicAuth(user, password)
    token = environ.get("MLFLOW_TRACKING_TOKEN", "")
    if token and not _TOKEN.fullmatch(token):
        message = "MLFLOW_TRACKING_TOKEN has invalid characters"
        raise ConfigError(message, hint="set it again, without line breaks")
    return {"Authorization": f"Bearer {token}"} if token else {}, None


def number(environ: Mapping[str, str], name: str, otherwise: float, *, least: int = 0) -> float:
    """Return the number in a variable, or a default if it is not set.

    Raises:
        ConfigError: it is not a whole number, or less than the least.
    """
    text = environ.get(name)
    if not text:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) < least:
        kind = "a positive number" if least else "a number"
        message = f"{name} is not {kind}: {text[:80]}"
        raise ConfigError(message, hint=f"set {name} to {kind}, or unset it")
    return float(min(int(text), _MOST))


def trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return the trusted certificates, with the client's own if there is one.

    Raises:
        ConfigError: a file of certificates cannot be read.
    """
    is_insecure = environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    return _context(environ.get(_AUTHORITY, ""), environ.get(_IDENTITY, ""), is_insecure)


@cache
def _context(authority: str, identity: str, is_insecure: bool) -> ssl.SSLContext:  # noqa: FBT001
    """Read the certificates once: it takes longer than a request."""
    if is_insecure:
        context = httpx.create_ssl_context(verify=False)
    elif authority:
        context = named_trust(
            _AUTHORITY, authority, lambda: ssl.create_default_context(cafile=authority)
        )
    elif identity:
        context = ssl.create_default_context()
    else:
        return system_trust()
    if identity:
        named_trust(_IDENTITY, identity, lambda: context.load_cert_chain(identity))
    return context
