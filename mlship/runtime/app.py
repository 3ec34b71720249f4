"""The ASGI app: carries requests to a Service and answers back, and waits for the log."""

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
"""An answer waits for the prediction log no longer: its disk or database may be stuck."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class App:
    """A bare ASGI 3 app over one Service.

    A quick model is computed in the event loop's thread, which is the least work; a slow one in
    one thread beside it, so that probes are answered meanwhile.

    Attributes:
        active: requests that are being answered.
        last: the event loop's time of the latest request that was no probe.
    """

    def __init__(self, service: Service) -> None:
        self.active = 0
        self.last = 0.0
        self._service = service
        self._beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

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
                return self._service.finish(pending, _silent())
            except Exception as error:  # noqa: BLE001 (whatever the log's disk raised)
                return self._service.finish(pending, error)
            return self._service.finish(pending, None)
        except Exception as error:  # noqa: BLE001 (a fault of mlship is an answer, too)
            traceback.print_exc(file=sys.stderr)
            fault = Fault(message=f"internal error: {type(error).__name__}")
            return http.of_fault(fault, 500)

    async def _begin(self, request: Request) -> Pending:
        if self._service.is_quick or request.method != "POST":
            return self._service.begin(request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._beside, self._service.begin, request)


def _silent() -> UnavailableError:
    message = f"the prediction log was not written within {LOG_SECONDS:g} seconds"
    return UnavailableError(
        message, hint="look at its disk or database; the request may be repeated"
    )


async def _body(receive: Receive) -> bytes:
    """Return the body, or as much of it as shows that it is too large."""
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
