"""Addresses of servers and proxies: checked before anything is connected."""

from typing import Final

import httpx

_LABEL: Final = 63
"""The longest part of a host's name between two dots (RFC 1035, section 2.3.4)."""
_PORTS: Final = range(1, 65536)


def parsed(address: str) -> httpx.URL:
    """Return an absolute URL that a connection can be opened to.

    Raises:
        ValueError: there is none; the text is the reason, and quotes nothing of the address, which
            may hold a password.
    """
    try:
        url = httpx.URL(address)
        host, name = url.host, url.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError("it is not a URL") from error
    if not url.scheme or not host:
        raise ValueError("it is not a URL")
    if url.port is not None and url.port not in _PORTS:
        raise ValueError(f"its port {url.port} is not from {_PORTS[0]} to {_PORTS[-1]}")
    if not all(0 < len(label) <= _LABEL for label in name.removesuffix(".").split(".")):
        raise ValueError(f"the parts of its host name must have from 1 to {_LABEL} characters")
    return url
