"""The service of a model: it answers requests, for the server and for tests in process."""

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Literal

import msgspec

from mlship.domain import digests
from mlship.domain.predicted import Ids, Predicted
from mlship.errors import MlshipError, UnavailableError
from mlship.runtime import column_check, encodings, http, memory, metrics_page, openapi, page
from mlship.runtime.dialects import Predictions, descriptions, v2_grpc
from mlship.runtime.dialects.routes import routes
from mlship.runtime.exchange import Answered, Exchange, Reply
from mlship.runtime.faults import Fault, RefusedRequest, show
from mlship.runtime.http import Pending, Request, Response
from mlship.runtime.jobs import Answer, Computer, Job, Refused
from mlship.runtime.keys import REALM, KeyFile
from mlship.runtime.metrics import Metrics
from mlship.runtime.options import Identity
from mlship.runtime.readiness import Readiness
from mlship.runtime.record import Record, Writing
from mlship.runtime.refusals import reason_of
from mlship.runtime.statistics import Statistics
from mlship.runtime.unlogged import Unlogged

State = Literal["starting", "ready", "failed", "draining"]
_INDEX = "/v2/repository/index"
"""A page that clients get by POST."""
TIMEOUT = "mlship-timeout"
"""The header with the seconds that a client waits."""
TIMEOUT_SECONDS = 30.0
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Service:
    """Answers requests to one model.

    Args:
        model: a loaded bundle, in this process or in workers.
        identity: included in every response and in every logged prediction.
        record: the prediction log; `None` logs nothing, for tests in process.
        clock: returns the current time with a time zone.
        new_id: creates the id of a request that has none.
        timeout: the seconds until a request must be computed.
        metrics: of this process; by default new ones.
        note: shows a line to the operator.
    """

    def __init__(
        self,
        model: Computer,
        identity: Identity,
        record: Record | None,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        timeout: float = TIMEOUT_SECONDS,
        metrics: Metrics | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state: State = "starting"
        self.failure = ""
        self._model = model
        self._identity = identity
        self._record = record
        self._unlogged = Unlogged(note)
        self._clock = clock
        self._new_id = new_id
        self._timeout = timeout
        self._answer_bytes = memory.answer_bytes(model.bundle.schema.outputs)
        self._version = digests.short(identity.release)
        self._page = page.render(model.bundle, identity.name)
        self._openapi = openapi.document(model.bundle, identity.name, self._version)
        self.metrics = metrics or Metrics(model.bundle, release=identity.name, slot=identity.slot)
        self._keys: KeyFile | None = None
        self._statistics = Statistics()
        self._observe: Callable[[Answered], None] | None = None
        self._pages = self._all_pages()
        self._dialects = routes(model.bundle, identity.name, self._version)

    def _all_pages(self) -> dict[str, Callable[[], Response]]:
        """Return what answers each path that predicts nothing."""
        name = self._model.bundle.name
        pages: dict[str, Callable[[], Response]] = {
            "/": lambda: Response(status=307, headers={"location": "docs"}, body=b""),
            "/docs": self._docs,
            "/openapi.json": lambda: http.of_json(self._openapi),
            metrics_page.PATH: lambda: metrics_page.page(self.metrics),
            "/ping": self._ready,
            "/health": self._ready,
            "/v1/models": lambda: http.of_json({"models": [name]}),
            f"/v1/models/{name}": self._ready,
            "/v2": lambda: http.of_json(descriptions.server()),
            "/v2/health/live": lambda: http.of_json({"live": True}),
            "/v2/health/ready": self._ready,
            "/v2/models/stats": self._stats,
            _INDEX: self._index,
        }
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{self._version}"):
            pages |= {
                path: self._metadata,
                f"{path}/ready": self._ready,
                f"{path}/config": lambda: http.of_json(descriptions.config(self._model.bundle)),
                f"{path}/stats": self._stats,
            }
        return pages

    def observe(self, hear: Callable[[Answered], None]) -> None:
        """Have a function hear of each response before it is sent."""
        self._observe = hear

    def enable_grpc(self) -> None:
        """Answer the requests that the gRPC server passes on."""
        bundle, name = self._model.bundle, self._identity.name
        self._dialects[v2_grpc.ROUTE] = v2_grpc.dialect(bundle, name, self._version)

    def move_metrics(self) -> None:
        """Have no page of metrics: a port of their own has."""
        del self._pages[metrics_page.PATH]
        del self._openapi["paths"][metrics_page.PATH]

    def require_keys(self, keys: KeyFile) -> None:
        """Answer only requests with one of these keys, and probes."""
        self._keys = keys
        self.metrics.add(keys)
        self._openapi = openapi.with_keys(self._openapi, self._is_probe)

    def admits(self, path: str, headers: Mapping[str, str]) -> bool:
        """Return whether a request would not be refused for its key."""
        return self.knows(headers) or self._is_probe(path)

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Return whether a client has a valid key, or needs none."""
        return self._keys is None or bool(self._keys.known(headers))

    def key_of(self, headers: Mapping[str, str]) -> str:
        """Return the name of a request's key; empty if none is required, or it has none."""
        return self._keys.known(headers) if self._keys is not None else ""

    def _is_probe(self, path: str) -> bool:
        """Return whether a path says no more than whether the server is ready.

        Whatever is not named here needs a key, also paths that do not exist.
        """
        path = path.rstrip("/")
        return path == "/v2/health/live" or self._pages.get(path) == self._ready

    def warm_up(self, folder: Path) -> None:
        """Predict the golden examples with a model in this process; become ready if it gives them.

        Raises:
            IntegrityError: the golden examples cannot be read.
        """
        from mlship.runtime import golden

        self.settle(golden.difference(self._model, golden.read(folder)))  # type: ignore[arg-type]  # a Model, when this is called

    def settle(self, failure: str) -> None:
        """Become ready, or failed if there is a reason."""
        self.failure = failure
        self.state = "failed" if failure else "ready"

    def drain(self) -> None:
        """Stop being ready; requests that still arrive are answered."""
        self.state = "draining"

    def handle(self, request: Request) -> Response:
        """Return the response to a request when its predictions are durable.

        For a model in this process: what waits for workers would wait for itself.
        """
        responses: SimpleQueue[Response] = SimpleQueue()
        self.begin(request, responses.put)
        return responses.get()

    def begin(self, request: Request, reply: Reply) -> Exchange | None:
        """Answer a request, at once or when its rows are computed and its predictions are durable.

        Returns:
            What can be cancelled; `None` if it was answered at once.
        """
        started = monotonic()
        try:
            if self._keys is not None and not self._is_probe(request.path):
                self._keys.name_of(request.headers)
            pending = self._route(request, started, reply)
            if isinstance(pending, Exchange):
                return pending
        except Exception as error:  # noqa: BLE001 (an internal error gets a response too)
            path = request.path
            route = path if path in self._dialects else "other"
            pending = Pending(response=self._response_to(error, path), route=route, started=started)
        reply(self._finished(pending.response, (pending.route, pending.started), request))
        return None

    def _response_to(self, error: BaseException, path: str) -> Response:
        """Return the response for an error, whose status says whose it is."""
        if isinstance(error, RefusedRequest):
            extra = {"connection": "close"} if error.status == 413 else {}
            if error.status == 401:
                extra["www_authenticate"] = REALM
            if error.retry_after is not None:
                extra["retry_after"] = str(error.retry_after)
            return http.of_fault(error.fault, error.status, path, reason=error.reason, **extra)
        if isinstance(error, MlshipError):
            status = 503 if isinstance(error, UnavailableError) else 500
            return http.of_error(error, status, path)
        show(error)
        fault = Fault(message=f"internal error: {type(error).__name__}")
        return http.of_fault(fault, 500, path)

    def _finished(
        self,
        response: Response,
        at: tuple[str, float],
        request: Request,
        exchange: Exchange | None = None,
    ) -> Response:
        """Return the response with the headers that all have, and count it."""
        route, started = at
        response.headers["mlship-release"] = self._identity.name
        if self.state == "draining":
            response.headers["connection"] = "close"
        seconds = monotonic() - started
        self.metrics.answered(route, response.status, seconds)
        if response.status != 200 and route in self._dialects:
            self._statistics.failed(seconds)
            self.metrics.refused(reason_of(response))
        if self._observe is not None:
            self._observe(Answered(request, response, *at, seconds, exchange))
        return response

    def _route(self, request: Request, started: float, reply: Reply) -> Pending | Exchange:
        path = request.path
        if path not in self._dialects:
            path = path.rstrip("/") or "/"
        if path in self._dialects:
            if request.method != "POST":
                return self._not_allowed(request, path, "POST", started)
            if self.state in ("starting", "failed"):
                return Pending(response=self._ready(path), route=path, started=started)
            return self._predict(request, (path, started), reply)
        if path in self._pages:
            allowed = ("POST",) if path == _INDEX else ("GET", "HEAD")
            if request.method not in allowed:
                return self._not_allowed(request, path, ", ".join(allowed), started)
            response = encodings.compressed(self._shown(path, request.headers), request)
            if request.method == "HEAD":
                length = {"content-length": str(len(response.body))}
                response = msgspec.structs.replace(
                    response, body=b"", headers=response.headers | length
                )
            return Pending(response=response, route=path, started=started)
        hint = f"the model is {self._model.bundle.name}, version {self._version}; see /docs"
        raise RefusedRequest(f"path {path[:200]} not found", hint=hint, status=404)

    def _shown(self, path: str, headers: Mapping[str, str]) -> Response:
        """Return the page of a path; without a valid key, a probe says no more than it must."""
        show = self._pages[path]
        if show == self._ready and not self.knows(headers):
            return self._ready(is_stranger=True)
        return show()

    def _not_allowed(self, request: Request, path: str, allow: str, started: float) -> Pending:
        message = f"method {request.method[:20]} is not allowed for {path}"
        fault = Fault(message=message, hint=f"use {allow}")
        response = http.of_fault(fault, 405, path, allow=allow)
        return Pending(response=response, route=path, started=started)

    def _predict(self, request: Request, at: tuple[str, float], reply: Reply) -> Exchange:
        self._admit(request)
        plain = encodings.plain(request)
        if plain is not request:  # a small body may have become a large one
            self._admit(plain)
        call = self._dialects[at[0]](plain)
        now = monotonic()
        deadline, limit = now + self._seconds(request), now + self._timeout
        rows = column_check.check(call.rows, self._model.bundle.schema)
        name, size = self._request_id(request), rows.size * self._answer_bytes
        size += memory.size_of(rows, len(plain.body))
        exchange = Exchange(request, name, call.encode, *at, reply)
        job = Job(rows, deadline, partial(self._computed, exchange), name, limit, size)
        exchange.submit(self._model, job, rows)
        return exchange

    def _admit(self, request: Request) -> None:
        """Refuse a large body for which there is no room, before it is decoded."""
        if len(request.body) > memory.SMALL_BODY:
            self._model.admit(len(request.body))

    def _seconds(self, request: Request) -> float:
        """Return how long the client waits: the header may only shorten the setting."""
        header = request.headers.get(TIMEOUT)
        if header is None:
            return self._timeout
        if not _SECONDS.fullmatch(header) or not float(header):
            message = f"the header {TIMEOUT} is {header[:40]}, expected seconds"
            raise RefusedRequest(message, field=TIMEOUT, hint="send a number such as 2.5")
        return min(self._timeout, float(header))

    def _computed(self, exchange: Exchange, answer: Answer) -> None:
        """Log what was computed for a request, or answer why nothing was."""
        try:
            if isinstance(answer, Refused):
                response = http.of_fault(
                    answer.fault, answer.status, exchange.route, reason=answer.reason
                )
                self._answer(exchange, response)
                return
            exchange.seconds = exchange.elapsed()
            exchange.outputs = answer.outputs()
            request_id = exchange.request_id
            ids = Ids(request_id, range(exchange.outputs.size))
            response = exchange.encode(Predictions(exchange.outputs, ids, request_id))
            response = encodings.compressed(response, exchange.request)
            response.headers["x-request-id"] = request_id
            if self._record is None:
                self._succeeded(exchange, response)
                return
            written = self._record.append(self._predicted(exchange))
        except UnavailableError as error:
            self._answer(exchange, self._unlogged.response(error, exchange.route))
            return
        except Exception as error:  # noqa: BLE001 (an internal error gets a response too)
            self._answer(exchange, self._response_to(error, exchange.route))
            return
        written.add_done_callback(partial(self._written, exchange, response))

    def _predicted(self, exchange: Exchange) -> Predicted:
        return Predicted(
            request_id=exchange.request_id,
            release=self._identity.release,
            slot=self._identity.slot,
            time=self._clock(),
            inputs=exchange.rows,
            outputs=exchange.outputs,
            latency_ms=round(exchange.seconds * 1e3, 4),
            shadow=exchange.is_shadow,
        )

    def _written(self, exchange: Exchange, response: Response, written: Writing) -> None:
        """Answer a request whose predictions are durable, or status 503 if they could not be."""
        error = written.exception()
        if error is None:
            self._succeeded(exchange, response)
        else:
            self._answer(exchange, self._unlogged.response(error, exchange.route))

    def _succeeded(self, exchange: Exchange, response: Response) -> None:
        outputs, seconds = exchange.outputs, exchange.elapsed()
        self.metrics.predicted(outputs, shadow=exchange.is_shadow, waited=exchange.waited)
        self._statistics.succeeded(outputs.size, seconds, exchange.seconds, self._clock())
        self._answer(exchange, response)

    def _answer(self, exchange: Exchange, response: Response) -> None:
        at = (exchange.route, exchange.started)
        exchange.reply(self._finished(response, at, exchange.request, exchange))
        exchange.end()

    def _request_id(self, request: Request) -> str:
        header = request.headers.get("x-request-id", "")
        if len(header) == 36:
            try:
                return str(uuid.UUID(header))
            except ValueError:
                pass
        return self._new_id()

    def _ready(self, path: str = "/v2/", *, is_stranger: bool = False) -> Response:
        health = self._model.health()
        state = self.state if health.is_ready or self.state != "ready" else "restarting"
        ids = (self._model.bundle.name, self._model.digest)
        readiness = Readiness(health, state, self.failure)
        return readiness.response(self._identity, ids, path, is_stranger=is_stranger)

    def _metadata(self) -> Response:
        ids = (self._identity.release, self._model.digest)
        bundle, name = self._model.bundle, self._identity.name
        return http.of_json(descriptions.model(bundle, name, self._version, ids))

    def _stats(self) -> Response:
        name = self._model.bundle.name
        return http.of_json({"model_stats": [self._statistics.document(name, self._version)]})

    def _index(self) -> Response:
        name = self._model.bundle.name
        state = self.state if self._model.health().is_ready else "restarting"
        return http.of_json(descriptions.index(name, self._version, state, self.failure))

    def _docs(self) -> Response:
        headers = {"content-type": "text/html; charset=utf-8", "cache-control": "no-cache"}
        return Response(status=200, headers=headers, body=self._page)
