"""Addresses of servers and proxies, checked before a connection is opened."""

from typing import Final

import httpx

_LABEL: Final = 63
"""The longest part of a host's name between two dots (RFC 1035, section 2.3.4)."""
_PORTS: Final = range(1, 65536)


def parsed(address: str) -> httpx.URL:
    """Return an absolute URL with a valid host and port.

    Raises:
        ValueError: the address is invalid; the text is the reason and quotes nothing of the
            address, which may have a password.
    """
    try:
        url = httpx.URL(address)
        host, name = url.host, url.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError("it is not a URL") from error
    if not url.scheme or not host:
        raise ValueError("it is not a URL")
    if url.port is not None and url.port not in _PORTS:
        raise ValueError(f"port {url.port} is not between {_PORTS[0]} and {_PORTS[-1]}")
    if not all(0 < len(label) <= _LABEL for label in name.removesuffix(".").split(".")):
        raise ValueError(f"each part of the host name must have 1 to {_LABEL} characters")
    return url
