"""The page of metrics, and a port that has no other: who asks a model need not see them."""

from collections.abc import Callable, Mapping

from mlship.runtime import encodings, http
from mlship.runtime.faults import Fault
from mlship.runtime.http import Request, Response
from mlship.runtime.metrics import CONTENT_TYPE, Metrics

PATH = "/metrics"


def page(metrics: Metrics) -> Response:
    """Return all metrics."""
    return Response(status=200, headers={"content-type": CONTENT_TYPE}, body=metrics.text())


class MetricsPage:
    """Answers requests for metrics, and no others."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def knows(self, _headers: Mapping[str, str]) -> bool:
        """Return false: no request for metrics needs a body, so that none is kept."""
        return False

    def begin(self, request: Request, reply: Callable[[Response], None]) -> None:
        """Answer a request at once."""
        if request.path.rstrip("/") != PATH:
            fault = Fault(message=f"path {request.path[:200]} not found", hint=f"see {PATH}")
            reply(http.of_fault(fault, 404))
        elif request.method not in ("GET", "HEAD"):
            message = f"method {request.method[:20]} is not allowed for {PATH}"
            reply(http.of_fault(Fault(message=message, hint="use GET"), 405, allow="GET, HEAD"))
        else:
            reply(encodings.compressed(page(self._metrics), request))
