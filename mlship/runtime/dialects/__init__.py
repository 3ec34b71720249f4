"""Dialects: what a route speaks, from a request to rows, and from predictions to a response.

A dialect knows neither the model's computation nor the log nor the server: the Service decodes a
request with it, checks, computes and logs the rows, and lets it encode the response. So validation,
ids and the log are the same for each of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from mlship.domain.columns import Columns
from mlship.domain.predicted import Ids
from mlship.runtime.http import Request, Response


class Predictions(NamedTuple):
    """What the model answered to the rows of one request.

    Attributes:
        outputs: of at least one row.
        ids: the id of each prediction.
        request_id: the id of the request.
    """

    outputs: Columns
    ids: Ids
    request_id: str


Encode: TypeAlias = Callable[[Predictions], Response]


class Call(NamedTuple):
    """A decoded request.

    Attributes:
        rows: at least one, before their values are checked, unless they are a `Table`.
        encode: writes the response; it raises `RefusedRequest` if the requested form cannot carry
            the outputs. It is kept until then, so that it must not lead to what was decoded.
    """

    rows: Sequence[Any] | Columns
    encode: Encode


Dialect: TypeAlias = Callable[[Request], Call]
"""Decodes a request; raises `RefusedRequest` if it is not one of this dialect."""
