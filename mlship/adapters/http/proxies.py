"""The proxy of a request: the environment's, and never for this machine itself."""

import ipaddress
from collections.abc import Mapping
from typing import Final

import httpx

from mlship.adapters.http.addresses import parsed
from mlship.errors import ConfigError, shown

_SCHEMES: Final = {"http", "https", "socks5", "socks5h"}


def proxy_for(url: httpx.URL, environment: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for a request; `None` for a direct connection.

    HTTPS_PROXY or HTTP_PROXY by the scheme of the request, else ALL_PROXY; a name in lower case
    wins. A value without a scheme means `http://`. NO_PROXY lists hosts without a proxy, as curl
    and Go read it: `*`, a name (with its subdomains), `.name`, an address, a network `10.0.0.0/8`,
    each but a network also with a port. Loopback addresses never have a proxy.

    Raises:
        ConfigError: the variable is not the URL of a proxy.
    """
    for name in (f"{url.scheme}_proxy", "all_proxy"):
        value = _variable(environment, name)
        if value:
            if is_loopback(url.host) or _is_excluded(url, _variable(environment, "no_proxy")):
                return None
            return _checked(value, name.upper())
    return None


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or address alone."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _variable(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def _checked(value: str, name: str) -> str:
    url = value if "://" in value else f"http://{value}"
    try:
        reason = "" if parsed(url).scheme in _SCHEMES else "its scheme is not that of a proxy"
    except ValueError as error:
        reason = str(error)
    if reason:
        message = f"{name} is not the URL of a proxy: {shown(url)}: {reason}"
        raise ConfigError(message, hint=f"set {name} to http://host:port, or unset it")
    return url


def _is_excluded(url: httpx.URL, listed: str) -> bool:
    host = url.host.rstrip(".").lower()
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    entries = listed.lower().replace(",", " ").split()
    return any(entry == "*" or _fits(host, port, entry) for entry in entries)


def _fits(host: str, port: int | None, entry: str) -> bool:
    address = _address(host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, wanted = _split_port(entry)
    if wanted is not None and wanted != port:
        return False
    if address is not None:
        return address == _address(name)
    name = name.removeprefix("*").removeprefix(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split `name:port`; an IPv6 address has a port only after brackets."""
    name, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (":" not in name or name.endswith("]")):
        return name, int(port)
    return entry, None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
