"""The dialects of MLflow and SageMaker (`/invocations`) and of V1 (`:predict`).

Sources: MLflow's scoring server, https://mlflow.org/docs/latest/ml/deployment; SageMaker's
containers, https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html;
KServe's V1 protocol, https://kserve.github.io/website.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from mlship.domain.bundle import Schema
from mlship.domain.columns import Columns
from mlship.runtime import elements, http
from mlship.runtime.dialects import Call, Dialect, Predictions, predict, tables
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.http import Request

_Received: TypeAlias = Sequence[Any] | Columns
_Reader = Callable[[Any, Schema], _Received]


def _records(rows: Any, schema: Schema) -> _Received:
    return tables.of_list(rows, schema, "dataframe_records")


def _split(split: Any, _: Schema) -> _Received:
    return tables.of_split(split, "dataframe_split")


def _instances(rows: Any, schema: Schema) -> _Received:
    return tables.of_list(rows, schema, "instances")


def _inputs(value: Any, schema: Schema) -> _Received:
    if isinstance(value, dict):
        return tables.of_columns(value, "inputs")
    return tables.of_list(value, schema, "inputs")


FORMS: Final[Mapping[str, _Reader]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}
"""The keys of a body, one of which has the rows."""
_BESIDE: Final = frozenset({"params", "signature_name"})


def invocations(schema: Schema, release: str) -> Dialect:
    """Return the dialect of `/invocations`: JSON as MLflow's server takes it, or CSV."""
    return _dialect(schema, release, FORMS)


def v1(schema: Schema, release: str) -> Dialect:
    """Return the dialect of `/v1/models/NAME:predict`."""
    return _dialect(schema, release, {"instances": _instances})


def _dialect(schema: Schema, release: str, forms: Mapping[str, _Reader]) -> Dialect:
    after = b"," + msgspec.json.encode({"release": release})[1:]

    def encode(predictions: Predictions) -> http.Response:
        return predict.response(predictions, b'{"predictions":', after)

    def decode(request: Request) -> Call:
        media = http.check_media(request, http.JSON, tables.CSV)
        if media == tables.CSV:
            rows: _Received = tables.of_csv(request.body, schema)
        else:
            elements.check_json(request.body, len(schema.inputs))
            rows = _rows(tables.decode(request.body), schema, forms)
        http.check_rows(len(rows))
        return Call(rows, tables.to_csv if http.wants(request, tables.CSV) else encode)

    return decode


def _rows(body: Mapping[str, Any], schema: Schema, forms: Mapping[str, _Reader]) -> _Received:
    names = [name for name in body if name not in _BESIDE]
    if len(names) != 1 or names[0] not in forms:
        message = f"the body has the keys {', '.join(name[:40] for name in names[:8])}"
        hint = f"send an object with one of {', '.join(forms)}"
        raise RefusedRequest(message if names else "the body has no rows", hint=hint)
    return forms[names[0]](body[names[0]], schema)
