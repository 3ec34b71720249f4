"""Ports of this machine's loopback."""

import hashlib
import socket
from collections.abc import Collection

HOST = "127.0.0.1"
# Below the ports that systems give to outgoing connections, which come and go by themselves.
_FIRST, _COUNT = 20000, 12000


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def start_of(name: str) -> int:
    """Return the port at which the search for a name starts: the same one each time."""
    return _FIRST + int(hashlib.sha256(name.encode()).hexdigest(), 16) % _COUNT


def free_port(start: int, taken: Collection[int]) -> int:
    """Return the next port after `start` that is free and not among those taken.

    Raises:
        OSError: there is none.
    """
    for step in range(1, _COUNT):
        port = _FIRST + (start - _FIRST + step) % _COUNT
        if port not in taken and is_free(port):
            return port
    message = f"no free port from {_FIRST} to {_FIRST + _COUNT}"
    raise OSError(message)
