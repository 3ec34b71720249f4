"""Requests at a constant rate, sent when they are due, whatever became of those before."""

import json
import select
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

_JSON = {"Content-Type": "application/json"}
_REDIRECTS = 300


class Load:
    """Sends requests; `answers` counts them by status, or by the name that httpx gives the error.

    Each thread keeps a connection. A client of httpx takes five times as long for a request.
    """

    def __init__(
        self, url: str, rate: float, patience: float, trust: ssl.SSLContext | bool
    ) -> None:
        self.answers: Counter[str] = Counter()
        self.acknowledged: list[str] = []
        self._url = urlsplit(url)
        self._rate = rate
        self._patience = patience
        self._trust = trust if isinstance(trust, ssl.SSLContext) else None
        self._ended = threading.Event()
        self._threads = threading.local()
        self._connections: list[HTTPConnection] = []

    @property
    def failed(self) -> dict[str, int]:
        """What was not answered with 200."""
        return {what: count for what, count in self.answers.items() if what != "200"}

    def send(self) -> None:
        connection: HTTPConnection = self._threads.connection
        try:
            fault = _connected(connection)
            if not fault:
                connection.request("POST", self._url.path or "/", b"{}", _JSON)
                response = connection.getresponse()
                body = response.read()
        except TimeoutError:
            fault = "ReadTimeout"
        except (OSError, HTTPException) as error:
            fault = type(error).__name__
        if fault:
            connection.close()
            self.answers[fault] += 1
            return
        self.answers[str(response.status)] += 1
        if response.status < _REDIRECTS:
            self.acknowledged.append(json.loads(body)["id"])

    def run(self) -> None:
        with ThreadPoolExecutor(32, initializer=self._open) as pool:
            due = time.monotonic()
            while not self._ended.is_set():
                pool.submit(self.send)
                due += 1 / self._rate
                time.sleep(max(0.0, due - time.monotonic()))
        for connection in self._connections:
            connection.close()

    def _open(self) -> None:
        host, port = self._url.hostname or "", self._url.port
        made: HTTPConnection
        if self._url.scheme == "https":
            made = HTTPSConnection(host, port, timeout=self._patience, context=self._trust)
        else:
            made = HTTPConnection(host, port, timeout=self._patience)
        self._threads.connection = made
        self._connections.append(made)

    def end(self) -> None:
        self._ended.set()


def _connected(connection: HTTPConnection) -> str:
    """Connect if there is no connection, or it has ended; return the name of the fault."""
    if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
        connection.close()
    try:
        if connection.sock is None:
            connection.connect()
    except TimeoutError:
        return "ConnectTimeout"
    except OSError:
        return "ConnectError"
    return ""


@contextmanager
def load(
    url: str, rate: float = 100, patience: float = 10, trust: ssl.SSLContext | bool = True
) -> Iterator[Load]:
    """Send requests while the block runs; all are answered or failed when it is left.

    Args:
        url: gets them.
        rate: a second.
        patience: the seconds after which a client gives up.
        trust: which certificates a client trusts.
    """
    made = Load(url, rate, patience, trust)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.end()
        thread.join()
