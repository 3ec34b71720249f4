"""One process of the generator: an asyncio loop that sends its share of the requests.

All requests of a run are due at fixed times. A user is a connection that sends one request at a
time; a request that finds no free user waits, and the wait counts.
"""

import asyncio
import os
import select
import selectors
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from mlship.adapters.load.share import Share
from mlship.domain import api_keys, tls
from mlship.domain.histogram import Histogram
from mlship.domain.load import TIMEOUT, Moment, Progress

_REPORT_SECONDS: Final = 0.25
_NAMES: Final = 100
_JSON: Final = {"content-type": "application/json"}


class Meter:
    """Counts what became of requests, until it is reported."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._errors: dict[int, Counter[str]] = {}
        self._latencies: dict[int, Histogram] = {}
        self._late = Histogram()

    def late(self, seconds: float) -> None:
        """Count how much later than due a request was handled."""
        self._late.record(seconds)

    def ended(self, due: float, now: float, error: str) -> None:
        """Count a request that ended, from the time when it was due."""
        second = int(due - self._start)
        errors = self._errors.setdefault(second, Counter())
        latencies = self._latencies.setdefault(second, Histogram())
        if error:
            errors[error] += 1
        if error in ("", TIMEOUT):
            latencies.record(now - due)

    def taken(self) -> Progress:
        """Return what was counted since the last call."""
        moments = tuple(
            Moment(second=second, errors=dict(errors), latencies=self._latencies[second].counts)
            for second, errors in self._errors.items()
        )
        late, self._late = self._late.counts, Histogram()
        self._errors, self._latencies = {}, {}
        return Progress(moments=moments, late=late)


class Sender:
    """Sends one share of a plan in an event loop."""

    def __init__(
        self, share: Share, session: aiohttp.ClientSession, clock: Callable[[], float]
    ) -> None:
        self._share, self._session, self._clock = share, session, clock
        self._bodies = [body.encode() for body in share.plan.bodies]
        self._due: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        self.meter = Meter(share.start)

    async def run(self) -> None:
        """Send all requests; return when each has ended or was given up."""
        users = [asyncio.create_task(self._user(number)) for number in range(self._share.users)]
        await self._schedule()
        for _ in users:
            self._due.put_nowait(None)
        await asyncio.gather(*users)

    async def _schedule(self) -> None:
        """Put each request into the queue when it is due, and measure how late that was."""
        share = self._share
        for number in range(share.first, share.plan.count, share.step):
            due = share.start + number / share.plan.rate
            # Also without a delay, so that users get their turn.
            await asyncio.sleep(max(0.0, due - self._clock()))
            late = self._clock() - due
            self.meter.late(late)
            if late > share.plan.timeout:
                # It will not catch up, and this run has no verdict.
                return
            self._due.put_nowait((number, due))

    async def _user(self, number: int) -> None:
        share = self._share
        # A load balancer may take numbers from 0 to 99 only.
        name = str((share.first + number * share.step) % _NAMES)
        header = share.plan.user_header
        headers = {**_JSON, **api_keys.header(share.api_key), **({header: name} if header else {})}
        while (request := await self._due.get()) is not None:
            place, due = request
            error = await self._send(self._bodies[place % len(self._bodies)], due, headers)
            self.meter.ended(due, self._clock(), error)

    async def _send(self, body: bytes, due: float, headers: dict[str, str]) -> str:
        """Send a request, and return the kind of its error; empty if it succeeded."""
        left = due + self._share.plan.timeout - self._clock()
        if left <= 0:
            return TIMEOUT
        timeout = aiohttp.ClientTimeout(total=left)
        try:
            async with self._session.post(
                self._share.plan.url, data=body, headers=headers, timeout=timeout
            ) as response:
                await response.read()
        except TimeoutError:
            return TIMEOUT
        except aiohttp.ClientConnectorError as error:
            return f"no connection: {_reason(error.os_error)}"
        except (aiohttp.ClientError, OSError) as error:
            return f"no response: {type(error).__name__}"
        return "" if response.ok else f"HTTP {response.status}"


def _reason(error: OSError) -> str:
    """Return the same text for each error of a kind: asyncio's own text has the port."""
    if isinstance(error, ssl.SSLError):  # its number is one of OpenSSL, not of the system
        return f"TLS: {tls.reason_of(error)}"
    number = error.errno
    # The name of a host that is not known has a number below zero.
    text = os.strerror(number) if number and number > 0 else error.strerror
    return text or type(error).__name__


class Precise(selectors.DefaultSelector):
    """Waits with the precision of select(2), because that of epoll is a millisecond."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; see selectors."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


async def _send(share: Share, report: Callable[[Progress], None]) -> None:
    trust = tls.client_context(Path(share.certificate)) if share.certificate else True
    connector = aiohttp.TCPConnector(limit=0, force_close=False, ssl=trust)
    cookies = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=cookies) as session:
        sender = Sender(share, session, time.monotonic)
        sending = asyncio.create_task(sender.run())
        while not sending.done():
            await asyncio.wait([sending], timeout=_REPORT_SECONDS)
            report(sender.meter.taken())
        sending.result()


def _report(progress: Progress) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(progress) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Read a share and the time of the start from stdin, send, and report on stdout."""
    share = msgspec.json.decode(sys.stdin.buffer.readline(), type=Share)
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    start = float(sys.stdin.buffer.readline())
    share = msgspec.structs.replace(share, start=start)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Precise())) as runner:
        runner.run(_send(share, _report))


if __name__ == "__main__":
    main()
