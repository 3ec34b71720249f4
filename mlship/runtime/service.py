"""The service of a model: it answers requests, for the server and for tests in process."""

import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Literal

import msgspec

from mlship import __version__
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.prediction import Prediction
from mlship.errors import MlshipError, UnavailableError
from mlship.runtime import golden, http, metrics, openapi, page
from mlship.runtime.dialects import Call, Predictions, v2
from mlship.runtime.dialects.routes import routes
from mlship.runtime.faults import Fault, RefusedRequest
from mlship.runtime.groups import Written
from mlship.runtime.http import Pending, Request, Response
from mlship.runtime.model import Model
from mlship.runtime.record import Record

State = Literal["starting", "ready", "failed", "draining"]
QUICK_SECONDS = 0.005
"""A model that takes longer for a row runs in a thread beside the event loop."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What is served: the id and the name of the release, and its slot."""

    release: Digest
    name: str
    slot: str


class Service:
    """Answers requests to one model.

    Args:
        model: a loaded bundle.
        identity: included in every response and in every logged prediction.
        record: the prediction log; `None` logs nothing, for tests in process.
        clock: returns the current time with a time zone.
        new_id: creates the id of a request that has none.
    """

    def __init__(
        self,
        model: Model,
        identity: Identity,
        record: Record | None,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self.state: State = "starting"
        self.failure = ""
        self.is_quick = True
        self._model = model
        self._identity = identity
        self._record = record
        self._clock = clock
        self._new_id = new_id
        bundle = model.bundle
        self._version = digests.short(identity.release)
        self._page = page.render(bundle, identity.name)
        self._openapi = openapi.document(bundle, identity.name, self._version)
        self.metrics = metrics.Metrics(
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
        """Predict the golden examples; become ready if the outputs are as expected.

        Raises:
            IntegrityError: the golden examples cannot be read.
        """
        examples = golden.read(folder)
        self.failure = golden.difference(self._model, examples)
        if self.failure:
            self.state = "failed"
            return
        for example in examples[:1]:
            started = perf_counter()
            self._model.predict([example.inputs])
            self.is_quick = perf_counter() - started < QUICK_SECONDS
        self.state = "ready"

    def drain(self) -> None:
        """Stop being ready; requests that still arrive are answered."""
        self.state = "draining"

    def handle(self, request: Request) -> Response:
        """Log the predictions for a request, wait for the disk, and return the response."""
        pending = self.begin(request)
        error = pending.written.exception() if pending.written else None
        return self.finish(pending, error)

    def begin(self, request: Request) -> Pending:
        """Compute the response to a request, and pass its predictions to the log."""
        started = perf_counter()
        try:
            return self._route(request, started)
        except RefusedRequest as refusal:
            extra = {"connection": "close"} if refusal.status == 413 else {}
            response = http.of_fault(refusal.fault, refusal.status, **extra)
        except MlshipError as error:
            status = 503 if isinstance(error, UnavailableError) else 500
            response = http.of_error(error, status)
        route = request.path if request.path in self._dialects else "other"
        return Pending(response=response, route=route, started=started)

    def finish(self, pending: Pending, error: BaseException | None) -> Response:
        """Return the response, or status 503 if its predictions could not be logged."""
        response = pending.response
        if isinstance(error, MlshipError):
            response = http.of_error(error, 503)
        elif error is not None:
            response = http.of_fault(Fault(message=f"the prediction log failed: {error}"), 503)
        elif pending.rows:
            self.metrics.predicted(pending.rows, shadow=pending.is_shadow)
        headers = {**response.headers, "mlship-release": self._identity.name}
        if self.state == "draining":
            headers["connection"] = "close"
        self.metrics.answered(pending.route, response.status, perf_counter() - pending.started)
        return Response(status=response.status, headers=headers, body=response.body)

    def _route(self, request: Request, started: float) -> Pending:
        path = request.path.rstrip("/") or "/"
        if path in self._dialects:
            if request.method != "POST":
                return self._not_allowed(request, path, "POST", started)
            http.check_body(request)
            if self.state in ("starting", "failed"):
                return Pending(response=self._ready(), route=path, started=started)
            return self._predict(self._dialects[path](request), request, (path, started))
        if path in self._gets:
            if request.method not in ("GET", "HEAD"):
                return self._not_allowed(request, path, "GET, HEAD", started)
            response = self._gets[path]()
            if request.method == "HEAD":
                response = msgspec.structs.replace(response, body=b"")
            return Pending(response=response, route=path, started=started)
        bundle = self._model.bundle
        hint = f"the model is {bundle.name}, version {self._version}; see /docs"
        raise RefusedRequest(f"path {path[:200]} not found", hint=hint, status=404)

    def _not_allowed(self, request: Request, path: str, allow: str, started: float) -> Pending:
        message = f"method {request.method[:20]} is not allowed for {path}"
        fault = Fault(message=message, hint=f"use {allow}")
        return Pending(response=http.of_fault(fault, 405, allow=allow), route=path, started=started)

    def _predict(self, call: Call, request: Request, at: tuple[str, float]) -> Pending:
        route, started = at
        checked = self._model.check(call.rows)
        outputs = self._model.compute(checked)
        latency_ms = (perf_counter() - started) * 1e3
        request_id = self._request_id(request)
        ids = [f"{request_id}.{number}" for number in range(len(checked))]
        response = call.encode(Predictions(outputs, ids, request_id))
        response.headers["x-request-id"] = request_id
        is_shadow = http.is_mirrored(request.headers)
        written: Written | None = None
        if self._record is not None:
            time = self._clock()
            written = self._record.append(
                [
                    Prediction(
                        id=id_,
                        release=self._identity.release,
                        slot=self._identity.slot,
                        time=time,
                        inputs=inputs,
                        outputs=row,
                        latency_ms=round(latency_ms, 4),
                        shadow=is_shadow,
                    )
                    for id_, inputs, row in zip(ids, checked, outputs, strict=True)
                ]
            )
        return Pending(
            response=response,
            written=written,
            route=route,
            started=started,
            rows=len(checked),
            is_shadow=is_shadow,
        )

    def _request_id(self, request: Request) -> str:
        header = request.headers.get("x-request-id", "")
        if len(header) == 36:
            try:
                return str(uuid.UUID(header))
            except ValueError:
                pass
        return self._new_id()

    def _ready(self) -> Response:
        body = {
            "name": self._model.bundle.name,
            "ready": self.state == "ready",
            "state": self.state,
            "release": self._identity.release,
            "slot": self._identity.slot,
            "bundle": self._model.digest,
        }
        if self.state == "ready":
            return http.of_json(body)
        message = self.failure or f"the model is {self.state}"
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
        headers = {"content-type": metrics.CONTENT_TYPE}
        return Response(status=200, headers=headers, body=self.metrics.text())
