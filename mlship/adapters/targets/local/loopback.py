"""Ports of the loopback interface."""

import errno
import hashlib
import socket
from collections.abc import Collection

HOST = "127.0.0.1"
# Below the range of ephemeral ports, which systems use for outgoing connections.
_FIRST, _COUNT = 20000, 12000


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    return not obstacle(port)


def listens(port: int, *, seconds: float) -> bool:
    """Return whether a server accepts connections on the port."""
    try:
        socket.create_connection((HOST, port), seconds).close()
    except OSError:
        return False
    return True


def obstacle(port: int) -> str:
    """Return why a server cannot listen on the port now, naming it; empty if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return f"port {port} of {HOST} needs the permissions of an administrator"
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} of {HOST} is already in use by another program"
            return f"port {port} of {HOST} cannot be used: {error.strerror}"
    return ""


def start_of(name: str) -> int:
    """Return the port at which the search for a name starts. It is always the same."""
    return _FIRST + int(hashlib.sha256(name.encode()).hexdigest(), 16) % _COUNT


def free_port(start: int, taken: Collection[int]) -> int:
    """Return the next port after `start` that is free and not in `taken`.

    Raises:
        OSError: there is none.
    """
    for step in range(1, _COUNT):
        port = _FIRST + (start - _FIRST + step) % _COUNT
        if port not in taken and is_free(port):
            return port
    message = f"no free port from {_FIRST} to {_FIRST + _COUNT}"
    raise OSError(message)
