"""Requests at a constant rate, sent when they are due, whatever became of those before."""

import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from mlship.steps.replay import kept


class Load:
    """Sends requests; `answers` counts them by status, or by the name of the error."""

    def __init__(
        self, url: str, rate: float, patience: float, trust: ssl.SSLContext | bool
    ) -> None:
        self.answers: Counter[str] = Counter()
        self.acknowledged: list[str] = []
        self._url = url
        self._rate = rate
        self._patience = patience
        self._trust = trust
        self._ended = threading.Event()

    @property
    def failed(self) -> dict[str, int]:
        """What was not answered with 200."""
        return {what: count for what, count in self.answers.items() if what != "200"}

    def send(self, client: httpx.Client) -> None:
        try:
            response = client.post(self._url, json={})
            self.answers[str(response.status_code)] += 1
            if response.is_success:
                self.acknowledged.append(response.json()["id"])
        except httpx.HTTPError as error:
            self.answers[type(error).__name__] += 1

    def run(self) -> None:
        with (
            httpx.Client(timeout=self._patience, limits=kept(), verify=self._trust) as client,
            ThreadPoolExecutor(32) as pool,
        ):
            due = time.monotonic()
            while not self._ended.is_set():
                pool.submit(self.send, client)
                due += 1 / self._rate
                time.sleep(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        self._ended.set()


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
