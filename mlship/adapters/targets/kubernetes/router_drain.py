"""The preStop hook of a router's pod: it ends when no client is connected any more.

The image runs this file as a script, so it imports nothing of mlship. Its arguments are the path of
Envoy's admin socket, for how many seconds new connections may still arrive, and for how many more
it waits until all are closed.
"""

import http.client
import socket
import sys
import time

_CONNECTIONS = "http.router.downstream_cx_active"
_PAUSE = 0.1


class _Admin(http.client.HTTPConnection):
    """A connection to Envoy's admin interface on a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=2)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def drain(path: str, arriving: float, closing: float) -> None:
    """Make clients close their connections, and return when they have.

    Args:
        path: of the admin socket.
        arriving: seconds in which the pod still gets new connections.
        closing: seconds after that for the remaining connections.
    """
    started = time.monotonic()
    # From now on, each response tells its client to close the connection.
    _ask(path, "POST", "/healthcheck/fail")
    time.sleep(arriving)
    while _connections(path) and time.monotonic() - started < arriving + closing:
        time.sleep(_PAUSE)


def _connections(path: str) -> int:
    text = _ask(path, "GET", f"/stats?filter=^{_CONNECTIONS}$")
    return int(text.rpartition(":")[2] or 0)


def _ask(path: str, method: str, where: str) -> str:
    admin = _Admin(path)
    try:
        admin.request(method, where)
        return admin.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        admin.close()


if __name__ == "__main__":
    drain(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
