"""The service of a model: it answers requests, for the server and for tests in process."""

import re
import sys
import traceback
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import monotonic, perf_counter
from typing import Literal

import msgspec

from mlship import __version__
from mlship.domain import digests
from mlship.domain.prediction import Prediction
from mlship.errors import MlshipError, UnavailableError
from mlship.runtime import decoder, http, openapi, page
from mlship.runtime.dialects import Call, Predictions, v2
from mlship.runtime.dialects.routes import routes
from mlship.runtime.exchange import Exchange, Reply
from mlship.runtime.faults import Fault, RefusedRequest
from mlship.runtime.http import Pending, Request, Response
from mlship.runtime.jobs import Answer, Computer, Job, Refused
from mlship.runtime.metrics import CONTENT_TYPE, Metrics
from mlship.runtime.options import Identity
from mlship.runtime.record import Record

State = Literal["starting", "ready", "failed", "draining"]
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
    ) -> None:
        self.state: State = "starting"
        self.failure = ""
        self._model = model
        self._identity = identity
        self._record = record
        self._clock = clock
        self._new_id = new_id
        self._timeout = timeout
        self._names = [field.name for field in model.bundle.schema.inputs]
        bundle = model.bundle
        self._version = digests.short(identity.release)
        self._page = page.render(bundle, identity.name)
        self._openapi = openapi.document(bundle, identity.name, self._version)
        self.metrics = metrics or Metrics(
            name=bundle.name,
            release=identity.name,
            slot=identity.slot,
            format=bundle.model.format,
        )
        path = f"/v2/models/{bundle.name}"
        self._gets: dict[str, Callable[[], Response]] = {
            "/": lambda: Response(status=307, headers={"location": "docs"}, body=b""),
            "/docs": self._docs,
            "/openapi.json": lambda: http.of_json(self._openapi),
            "/metrics": self._metrics,
            "/v2": self._server,
            "/v2/health/live": lambda: http.of_json({"live": True}),
            "/v2/health/ready": self._ready,
            path: self._metadata,
            f"{path}/ready": self._ready,
            f"{path}/versions/{self._version}": self._metadata,
            f"{path}/versions/{self._version}/ready": self._ready,
        }
        self._dialects = routes(bundle, identity.name, self._version)

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
        started = perf_counter()
        try:
            result = self._route(request, started, reply)
            if isinstance(result, Exchange):
                return result
            pending = result
        except Exception as error:  # noqa: BLE001 (an internal error gets a response too)
            path = request.path
            route = path if path in self._dialects else "other"
            pending = Pending(response=self._response_to(error), route=route, started=started)
        reply(self._finished(pending))
        return None

    def _response_to(self, error: BaseException) -> Response:
        """Return the response for an error, whose status says whose it is."""
        if isinstance(error, RefusedRequest):
            extra = {"connection": "close"} if error.status == 413 else {}
            if error.retry_after is not None:
                extra["retry_after"] = str(error.retry_after)
            return http.of_fault(error.fault, error.status, **extra)
        if isinstance(error, MlshipError):
            return http.of_error(error, 503 if isinstance(error, UnavailableError) else 500)
        traceback.print_exception(error, file=sys.stderr)
        return http.of_fault(Fault(message=f"internal error: {type(error).__name__}"), 500)

    def _finished(self, pending: Pending) -> Response:
        """Return the response with the headers that all have, and count it."""
        response = pending.response
        response.headers["mlship-release"] = self._identity.name
        if self.state == "draining":
            response.headers["connection"] = "close"
        self.metrics.answered(pending.route, response.status, perf_counter() - pending.started)
        return response

    def _route(self, request: Request, started: float, reply: Reply) -> Pending | Exchange:
        path = request.path
        if path not in self._dialects:
            path = path.rstrip("/") or "/"
        if path in self._dialects:
            if request.method != "POST":
                return self._not_allowed(request, path, "POST", started)
            http.check_body(request)
            if self.state in ("starting", "failed"):
                return Pending(response=self._ready(), route=path, started=started)
            call = self._dialects[path](request)
            return self._predict(call, request, (path, started), reply)
        if path in self._gets:
            if request.method not in ("GET", "HEAD"):
                return self._not_allowed(request, path, "GET, HEAD", started)
            response = self._gets[path]()
            if request.method == "HEAD":
                length = {"content-length": str(len(response.body))}
                response = msgspec.structs.replace(
                    response, body=b"", headers=response.headers | length
                )
            return Pending(response=response, route=path, started=started)
        bundle = self._model.bundle
        hint = f"the model is {bundle.name}, version {self._version}; see /docs"
        raise RefusedRequest(f"path {path[:200]} not found", hint=hint, status=404)

    def _not_allowed(self, request: Request, path: str, allow: str, started: float) -> Pending:
        message = f"method {request.method[:20]} is not allowed for {path}"
        fault = Fault(message=message, hint=f"use {allow}")
        return Pending(response=http.of_fault(fault, 405, allow=allow), route=path, started=started)

    def _predict(
        self, call: Call, request: Request, at: tuple[str, float], reply: Reply
    ) -> Exchange:
        deadline = monotonic() + self._seconds(request)
        rows = decoder.check(call.rows, self._model.bundle.schema)
        exchange = Exchange(request, self._request_id(request), call, at, reply)
        job = Job(rows, deadline, partial(self._computed, exchange), exchange.request_id)
        exchange.submit(self._model, job, rows)
        return exchange

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
                response = http.of_fault(answer.fault, answer.status)
                self._answer(exchange, response)
                return
            exchange.seconds = exchange.elapsed()
            exchange.outputs = answer.outputs()
            request_id = exchange.request_id
            ids = [f"{request_id}.{number}" for number in range(len(answer.rows))]
            response = exchange.call.encode(Predictions(exchange.outputs, ids, request_id))
            response.headers["x-request-id"] = request_id
            if self._record is None:
                self._written(exchange, response, None)
                return
            written = self._record.append(self._predictions(exchange, ids))
        except Exception as error:  # noqa: BLE001 (an internal error gets a response too)
            self._answer(exchange, self._response_to(error))
            return
        written.add_done_callback(
            lambda written: self._written(exchange, response, written.exception())
        )

    def _predictions(self, exchange: Exchange, ids: Sequence[str]) -> list[Prediction]:
        time = self._clock()
        latency_ms = round(exchange.seconds * 1e3, 4)
        return [
            Prediction(
                id=id_,
                release=self._identity.release,
                slot=self._identity.slot,
                time=time,
                inputs=dict(zip(self._names, row, strict=True)),
                outputs=outputs,
                latency_ms=latency_ms,
                shadow=exchange.is_shadow,
            )
            for id_, row, outputs in zip(ids, exchange.rows, exchange.outputs, strict=True)
        ]

    def _written(self, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        """Answer a request whose predictions are durable, or status 503 if they could not be."""
        if isinstance(error, MlshipError):
            response = http.of_error(error, 503)
        elif error is not None:
            response = http.of_fault(Fault(message=f"the prediction log failed: {error}"), 503)
        else:
            self.metrics.predicted(len(exchange.outputs), shadow=exchange.is_shadow)
        self._answer(exchange, response)

    def _answer(self, exchange: Exchange, response: Response) -> None:
        pending = Pending(response=response, route=exchange.route, started=exchange.started)
        exchange.reply(self._finished(pending))

    def _request_id(self, request: Request) -> str:
        header = request.headers.get("x-request-id", "")
        if len(header) == 36:
            try:
                return str(uuid.UUID(header))
            except ValueError:
                pass
        return self._new_id()

    def _ready(self) -> Response:
        health = self._model.health()
        state = self.state if health.is_ready or self.state != "ready" else "restarting"
        body = {
            "name": self._model.bundle.name,
            "ready": state == "ready",
            "state": state,
            "release": self._identity.release,
            "slot": self._identity.slot,
            "bundle": self._model.digest,
            "restarts": health.restarts,
            "hung": health.hung,
        }
        if state == "ready":
            return http.of_json(body)
        message = self.failure or f"the model is {state}"
        hint = "train again in the serving environment" if self.failure else "retry later"
        return http.of_json({**body, "error": Fault(message=message, hint=hint)}, 503)

    def _server(self) -> Response:
        return http.of_json({"name": "mlship", "version": __version__, "extensions": []})

    def _metadata(self) -> Response:
        bundle = self._model.bundle
        return http.of_json(
            {
                "name": bundle.name,
                "versions": [self._version],
                "platform": bundle.model.format,
                "inputs": v2.metadata(bundle.schema.inputs),
                "outputs": v2.metadata(bundle.schema.outputs),
                "parameters": {
                    "release": self._identity.name,
                    "id": self._identity.release,
                    "bundle": self._model.digest,
                },
            }
        )

    def _docs(self) -> Response:
        headers = {"content-type": "text/html; charset=utf-8", "cache-control": "no-cache"}
        return Response(status=200, headers=headers, body=self._page)

    def _metrics(self) -> Response:
        headers = {"content-type": CONTENT_TYPE}
        return Response(status=200, headers=headers, body=self.metrics.text())
