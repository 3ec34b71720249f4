"""The ASGI app: passes requests to a Service, waits for the log, and sends responses."""

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlship.errors import UnavailableError
from mlship.runtime import http
from mlship.runtime.faults import Fault
from mlship.runtime.http import BODY_BYTES, Pending, Request, Response
from mlship.runtime.service import Service

LOG_SECONDS = 10.0
"""How long a response waits for the prediction log, whose disk or database may hang."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class App:
    """A minimal ASGI 3 app for one Service.

    A fast model runs in the thread of the event loop, with the least overhead. A slow model runs in
    a separate thread, so that probes are answered meanwhile.

    Attributes:
        active: number of open requests.
        last: the event loop's time of the latest request that was not a probe.
    """

    def __init__(self, service: Service) -> None:
        self.active = 0
        self.last = 0.0
        self._service = service
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        self.active += 1
        if not scope["path"].startswith("/v2/health/"):
            self.last = asyncio.get_running_loop().time()
        try:
            request = Request(
                method=scope["method"],
                path=scope["path"],
                headers={
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in scope["headers"]
                },
                body=await _body(receive),
            )
            await _send(send, await self._answer(request))
        finally:
            self.active -= 1

    async def _answer(self, request: Request) -> Response:
        try:
            pending = await self._begin(request)
            if pending.written is None:
                return self._service.finish(pending, None)
            try:
                async with asyncio.timeout(LOG_SECONDS):
                    await asyncio.wrap_future(pending.written)
            except TimeoutError:
                return self._service.finish(pending, _log_timeout())
            except Exception as error:  # noqa: BLE001 (any error of the log's disk)
                return self._service.finish(pending, error)
            return self._service.finish(pending, None)
        except Exception as error:  # noqa: BLE001 (an internal error gets a response too)
            traceback.print_exc(file=sys.stderr)
            fault = Fault(message=f"internal error: {type(error).__name__}")
            return http.of_fault(fault, 500)

    async def _begin(self, request: Request) -> Pending:
        if self._service.is_quick or request.method != "POST":
            return self._service.begin(request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._service.begin, request)


def _log_timeout() -> UnavailableError:
    message = f"the prediction log was not written within {LOG_SECONDS:g} seconds"
    return UnavailableError(message, hint="check its disk or database, then retry the request")


async def _body(receive: Receive) -> bytes:
    """Return the body; stop reading if it is too large."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body") and len(body) <= BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
    return body


async def _send(send: Send, response: Response) -> None:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.items()
    ]
    headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
