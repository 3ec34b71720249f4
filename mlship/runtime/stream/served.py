"""Releases that are asked over HTTP: those whose pods answer requests in the same cluster.

Each message is a request of its own with the id of its prediction, so that the checks, the log and
the outputs are those of `/predict`, and a message that is read again has the id that it had.
"""

import http.client
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec

from mlship.domain.stream import Plan, Settings, Side
from mlship.domain.stream_cluster import Place
from mlship.errors import CredentialsError, UnavailableError
from mlship.runtime.faults import Fault
from mlship.runtime.stream.cluster_route import PORT
from mlship.runtime.stream.formats import ID, RELEASE, Json
from mlship.runtime.stream.link import Results, Values

_THREADS: Final = 16
_MOST_ON_A_CONNECTION: Final = 500
"""A connection stays with one pod: a new one may go to a new pod."""
_MOST_FAILURES: Final = 3
"""So often a model may fail on a message before it is a dead letter."""
_PAUSES: Final = (0.02, 0.1, 0.5, 1.0)
_OK, _BAD, _FAILED = 200, (400, 413, 415, 422), 500
_REFUSED: Final = (401, 403)
_HIDDEN: Final = ".0"
"""The number of the row in the id of a prediction, which a request's id does not have."""


class Answer(NamedTuple):
    """What came of a request."""

    status: int
    body: bytes


Ask = Callable[[Side, bytes, str, bool], Answer]
"""Sends one row to a release: its body, the id of the request, and whether it is a copy.

It raises OSError or HTTPException if no pod answers.
"""


class Services:
    """The Services of slots, each thread with a connection of its own.

    Args:
        place: of the Services.
        key: an API key; empty for none.
        seconds: the time limit of a request.
    """

    def __init__(self, place: Place, key: str, seconds: float) -> None:
        self._place = place
        self._headers = {"content-type": "application/json", **({"x-api-key": key} if key else {})}
        self._seconds = seconds
        self._own = threading.local()

    def ask(self, side: Side, body: bytes, request_id: str, is_copy: bool) -> Answer:  # noqa: FBT001 (see Ask)
        """Send a row; see `Ask`."""
        connections: dict[str, tuple[http.client.HTTPConnection, int]]
        connections = self._own.__dict__.setdefault("connections", {})
        host = self._place.service(side.slot)
        connection, used = connections.pop(side.slot, (None, 0))
        if connection is None or used >= _MOST_ON_A_CONNECTION:
            if connection is not None:
                connection.close()
            connection, used = http.client.HTTPConnection(host, PORT, timeout=self._seconds), 0
        # A server knows a copy by its host, as from the load balancer.
        named = {"host": f"{host}-shadow"} if is_copy else {}
        try:
            headers = {**self._headers, "x-request-id": request_id, **named}
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.read())
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        connections[side.slot] = connection, used + 1
        return answer


class Served:
    """Answers batches by the pods of releases: what a worker computes with.

    Args:
        settings: of the stream.
        ask: sends a row.
        pause: waits between two attempts.
    """

    def __init__(
        self, settings: Settings, ask: Ask, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._seconds = settings.compute_seconds
        self._ask = ask
        self._pause = pause
        self._wanted: Plan | None = None
        self._pool = ThreadPoolExecutor(_THREADS)
        self._json = Json("")

    def want(self, plan: Plan) -> None:
        """Want a plan, whose releases run already: it was written when they were ready."""
        self._wanted = plan

    def arrived(self, *, wait: bool = False) -> Plan | None:  # noqa: ARG002 (nothing is loaded)
        """Return the plan that was wanted, once."""
        plan, self._wanted = self._wanted, None
        return plan

    def compute(self, asked: Mapping[str, tuple[Side, Values]]) -> dict[str, Results]:
        """Return the results of batches.

        Raises:
            UnavailableError: a release does not answer in time; no message is to blame.
            CredentialsError: it wants an API key.
        """
        futures = {
            slot: [
                self._pool.submit(self._one, side, value, id_, values.shadow)
                for id_, value in zip(values.ids, values.values, strict=True)
            ]
            for slot, (side, values) in asked.items()
        }
        results = {}
        for slot, waiting in futures.items():
            found = [future.result() for future in waiting]
            faults = {
                place: (each.message, _column(each.field))
                for place, each in enumerate(found)
                if isinstance(each, Fault)
            }
            outputs = [None if isinstance(each, Fault) else each for each in found]
            results[slot] = Results(outputs, faults)
        return results

    def _one(self, side: Side, value: bytes | None, id_: str, is_copy: bool) -> bytes | Fault:  # noqa: FBT001 (of a pool)
        """Return the output for a message, or why it gets none."""
        if value is None:
            return Fault(message="the message has no value")
        row = self._json.decode(value)
        if isinstance(row, Fault):
            return row
        # In a list: a row with a column `rows` is a row, too.
        body, request_id = b"[%b]" % value, id_.removesuffix(_HIDDEN)
        deadline, failures = time.monotonic() + self._seconds, 0
        for number in count():
            answer = self._attempt(side, body, request_id, is_copy)
            result = _result(answer, side, id_)
            if result is not None:
                return result
            failures += answer.status == _FAILED
            if failures == _MOST_FAILURES:
                return Fault(message=f"the model fails: {_fault(answer).message}")
            if time.monotonic() > deadline:
                message = f"{side.name} did not answer within {self._seconds:g} s"
                message += f": {_fault(answer).message}"
                raise UnavailableError(message, hint="see `mlship status`")
            self._pause(_PAUSES[min(number, len(_PAUSES) - 1)])
        raise AssertionError  # pragma: no cover (count does not end)

    def _attempt(self, side: Side, body: bytes, request_id: str, is_copy: bool) -> Answer:  # noqa: FBT001 (as Ask)
        """Ask once; no answer is one with the status 0."""
        try:
            return self._ask(side, body, request_id, is_copy)
        except (OSError, http.client.HTTPException) as error:
            told = {"message": str(error) or type(error).__name__}
            return Answer(0, msgspec.json.encode(told))


def _result(answer: Answer, side: Side, id_: str) -> bytes | Fault | None:
    """Return what a response says of the message; `None` if it says nothing of it.

    Raises:
        CredentialsError: the release wants an API key.
    """
    if answer.status == _OK:
        return _output(answer.body, side, id_)
    if answer.status in _BAD:
        return _fault(answer)
    if answer.status in _REFUSED:
        message = f"{side.name} refuses requests of the stream: {_fault(answer).message}"
        hint = "put an API key into the Secret of the pods as MLSHIP_API_KEY"
        raise CredentialsError(message, hint=hint)
    return None


def _output(body: bytes, side: Side, id_: str) -> bytes:
    """Return the value of an output, with the fields that a stream without a cluster gives."""
    prediction: dict[str, Any] = msgspec.json.decode(body)["predictions"][0]
    outputs = {name: value for name, value in prediction.items() if name != "id"}
    return msgspec.json.encode({ID: id_, RELEASE: side.name, **outputs})


def _fault(answer: Answer) -> Fault:
    """Return what an error response says."""
    try:
        told = msgspec.json.decode(answer.body)
        return Fault(message=str(told["message"]), field=str(told.get("field") or ""))
    except (msgspec.MsgspecError, LookupError, TypeError, AttributeError):
        return Fault(message=f"status {answer.status}")


def _column(field: str) -> str:
    return field.partition(".")[2] if field.startswith("rows[") else field
