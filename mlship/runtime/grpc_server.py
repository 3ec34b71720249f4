"""The gRPC server of a replica: each method is a request of the same Service.

What a method says of the server and of the model is the page of the same meaning; `ModelInfer` is a
route with a dialect of its own. So checks, ids, log and metrics are those of HTTP. The message of a
call without a valid API key is not read, unless it is a probe. The number of calls at once is
bounded, and that of messages that arrive at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from mlship.errors import UnavailableError
from mlship.runtime.dialects.grpc_messages import SERVICE, messages
from mlship.runtime.dialects.v2_grpc import MEDIA, ROUTE
from mlship.runtime.http import BODY_BYTES, Request, Response

Answer = Callable[[Request], Awaitable[Response]]
Admits = Callable[[str, Mapping[str, str]], bool]

CALLS: Final = 256
"""With so many calls at once, more are refused."""
READS = 16
"""So many messages arrive at once, each of up to `BODY_BYTES`; others wait at their clients."""
BUSY_SECONDS = 2.0
"""How long a message may take to arrive while others wait for their turn."""
MESSAGE_SECONDS = 10.0
"""How long a message may take to arrive: without an end, calls that send none would take all."""

_PAGES: Final[Mapping[str, tuple[str, str]]] = {
    "ServerLive": ("GET", "/v2/health/live"),
    "ServerReady": ("GET", "/v2/health/ready"),
    "ModelReady": ("GET", "{model}/ready"),
    "ServerMetadata": ("GET", "/v2"),
    "ModelMetadata": ("GET", "{model}"),
    "ModelConfig": ("GET", "{model}/config"),
    "ModelStatistics": ("GET", "{model}/stats"),
    "RepositoryIndex": ("POST", "/v2/repository/index"),
}
"""The page that answers a method; `{model}` is the path of the model in the request."""
_PROBES: Final = ("ServerLive", "ServerReady", "ModelReady")
"""These need no API key."""
_WRAPPED: Final = {"ModelConfig": "config", "RepositoryIndex": "models"}
"""The field of a response that has the whole page."""
_HEADERS: Final = ("x-request-id", "traceparent", "tracestate", "authorization", "x-api-key")
"""The metadata of a call that are headers of its request."""
_CODES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def check_installed() -> None:
    """Check that gRPC's libraries are installed.

    Raises:
        UnavailableError: they are not.
    """
    try:
        import google.protobuf  # noqa: F401
        import grpc.aio  # noqa: F401
    except ImportError as error:
        message = f"--grpc-port needs the package {error.name}"
        hint = "install mlship-cd[grpc]; for an image, add grpcio and protobuf to requirements.txt"
        raise UnavailableError(message, hint=hint) from error


async def start(answer: Answer, admits: Admits, host: str, port: int) -> Any:
    """Listen on a port; return the server, which has `stop(seconds)`.

    Args:
        answer: answers one request, and never raises.
        admits: returns whether a request with this path and these headers has a valid API key.
        host: the address to listen on.
        port: 0 takes a free one.

    Raises:
        UnavailableError: the port is in use.
    """
    import grpc

    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", BODY_BYTES),
            ("grpc.so_reuseport", 1),
        ],
        maximum_concurrent_rpcs=CALLS,
    )
    server.add_generic_rpc_handlers((_Methods(answer, admits, Reading()),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        message = f"cannot listen on {address} for gRPC"
        raise UnavailableError(message, hint="use another --grpc-port") from error
    await server.start()
    return server


class _Methods:
    """The methods of the service; gRPC asks for one before it reads the message of a call."""

    def __init__(self, answer: Answer, admits: Admits, reading: "Reading") -> None:
        import grpc

        self._admits = admits
        methods = {name: _page(name, answer, *page) for name, page in _PAGES.items()}
        methods["ModelInfer"] = _infer(answer)
        self._handlers = {
            f"/{SERVICE}/{name}": grpc.stream_unary_rpc_method_handler(reading.before(method))
            for name, method in methods.items()
        }
        pages = {**_PAGES, "ModelInfer": ("POST", ROUTE)}
        self._closed = {}
        for name in pages.keys() - set(_PROBES):
            method, path = pages[name]
            path = path.format(model="/v2/models")
            refusal = grpc.stream_unary_rpc_method_handler(_refusal(answer, method, path))
            self._closed[f"/{SERVICE}/{name}"] = (path, refusal)

    def service(self, call: Any) -> Any:
        """Return the handler of a call; `None` if there is no such method."""
        if call.method in self._closed:
            path, refusal = self._closed[call.method]
            if not self._admits(path, _known(call.invocation_metadata)):
                return refusal
        return self._handlers.get(call.method)


class Reading:
    """Reads the messages of calls, a few at a time: how large one is, is known when it is there.

    The methods are those of a stream, which asks for a message: one of a single message is not
    called before that has arrived. On the wire, they are the same.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(READS)

    def before(
        self, method: Callable[[bytes, Any], Awaitable[bytes]]
    ) -> Callable[[Any, Any], Awaitable[bytes]]:
        """Return a method that reads its message within a time, then does what this one does."""

        async def called(_: Any, context: Any) -> bytes:
            return await method(await self._message(context), context)

        return called

    async def _message(self, context: Any) -> bytes:
        import grpc

        try:
            await asyncio.wait_for(self._places.acquire(), MESSAGE_SECONDS)
        except TimeoutError:
            text = "too many messages arrive at once; retry later"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        seconds = BUSY_SECONDS if self._places.locked() else MESSAGE_SECONDS
        try:
            message: bytes = await asyncio.wait_for(context.read(), seconds)
        except TimeoutError:
            text = f"the message did not arrive within {seconds:g} seconds"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, text)
        finally:
            self._places.release()
        if message is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
        return message


def _refusal(answer: Answer, method: str, path: str) -> Callable[[Any, Any], Awaitable[bytes]]:
    """Return what answers a call that has no valid API key, without its message."""
    import grpc

    async def refuse(_: Any, context: Any) -> bytes:
        headers = _known(context.invocation_metadata())
        response = await answer(Request(method=method, path=path, headers=headers))
        if response.status == 200:  # its key was added meanwhile
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the API keys changed; try again")
        await _abort(context, response)
        return b""

    return refuse


def _infer(answer: Answer) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def infer(body: bytes, context: Any) -> bytes:
        headers = {**_known(context.invocation_metadata()), "content-type": MEDIA}
        waiting = answer(Request(method="POST", path=ROUTE, headers=headers, body=body))
        del body  # its rows are counted, and it would be kept beside them
        response = await waiting
        await context.send_initial_metadata(
            [
                (name, value)
                for name, value in response.headers.items()
                if name.startswith(("mlship-", "x-request-id"))
            ]
        )
        if response.status != 200:
            await _abort(context, response)
        return response.body

    return infer


def _page(
    name: str, answer: Answer, method: str, path: str
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    import grpc
    from google.protobuf import json_format, message

    received, sent = messages()[f"{name}Request"], messages()[f"{name}Response"]

    async def page(body: bytes, context: Any) -> bytes:
        try:
            place = _path(received.FromString(body), path)
        except message.DecodeError:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"the body is not a {name}Request"
            )
        headers = _known(context.invocation_metadata())
        response = await answer(Request(method=method, path=place, headers=headers))
        document = msgspec.json.decode(response.body)
        if response.status != 200 and not (name.endswith("Ready") and "ready" in document):
            await _abort(context, response)
        if name in _WRAPPED:
            document = {_WRAPPED[name]: document}
        filled = json_format.ParseDict(document, sent(), ignore_unknown_fields=True)
        serialized: bytes = filled.SerializeToString()
        return serialized

    return page


def _known(metadata: Iterable[tuple[str, Any]] | None) -> dict[str, str]:
    """Return the metadata of a call that are headers of a request, too."""
    sent = {name.lower(): str(value) for name, value in metadata or ()}
    return {name: sent[name] for name in _HEADERS if name in sent}


def _path(request: Any, path: str) -> str:
    if "{model}" not in path:
        return path
    if not request.name and path.endswith("/stats"):
        return "/v2/models/stats"
    version = f"/versions/{request.version}" if request.version else ""
    return path.format(model=f"/v2/models/{request.name}{version}")


async def _abort(context: Any, response: Response) -> None:
    import grpc

    code = getattr(grpc.StatusCode, _CODES.get(response.status, "INTERNAL"))
    error = msgspec.json.decode(response.body)["error"]
    await context.abort(code, error if isinstance(error, str) else error["message"])
