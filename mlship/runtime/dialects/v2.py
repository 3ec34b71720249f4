"""The Open Inference Protocol, version 2, over HTTP with JSON: one tensor per column.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from mlship.domain.bundle import Bundle, Field, Kind, Row, Schema, Value
from mlship.runtime import http
from mlship.runtime.dialects import Call, Dialect, Predictions
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.http import Request, Response

Datatype: TypeAlias = Literal["FP64", "FP32", "INT64", "BOOL", "BYTES"]

_SENT: Mapping[Kind, Datatype] = {
    "number": "FP64",
    "integer": "INT64",
    "text": "BYTES",
    "boolean": "BOOL",
}
_ACCEPTED: Mapping[Kind, frozenset[Datatype]] = {
    "number": frozenset({"FP64", "FP32", "INT64"}),
    "integer": frozenset({"INT64"}),
    "text": frozenset({"BYTES"}),
    "boolean": frozenset({"BOOL"}),
}


class Tensor(msgspec.Struct, kw_only=True):
    """A column of a request or a response."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct, kw_only=True):
    """An output that a request selects by name."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, kw_only=True):
    """The body of `POST /v2/models/{name}/infer`."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Wanted] = []


_decoder = msgspec.json.Decoder(InferRequest)


def dialect(bundle: Bundle, release: str, version: str) -> Dialect:
    """Return the dialect of a model's `infer`.

    Args:
        bundle: the served bundle.
        release: the name of the release, which responses have as a parameter.
        version: the version of the model in responses.
    """
    schema = bundle.schema
    known = [field.name for field in schema.outputs]

    def decode_request(request: Request) -> Call:
        infer = decode(request.body)
        rows = to_rows(infer, schema)
        if not rows:
            raise RefusedRequest("the request has no rows", field="inputs", hint="send a row")
        names = wanted(infer, known)

        def encode(predictions: Predictions) -> Response:
            return http.of_json(
                {
                    "model_name": bundle.name,
                    "model_version": version,
                    "id": infer.id if infer.id is not None else predictions.request_id,
                    "parameters": {"release": release, "predictions": predictions.ids},
                    "outputs": tensors(predictions.outputs, names, schema),
                }
            )

        return Call(rows, encode)

    return decode_request


def decode(body: bytes) -> InferRequest:
    """Decode the body of a request.

    Raises:
        RefusedRequest: it is not JSON, not such a request, or uses the binary extension.
    """
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        raise RefusedRequest(
            text, field=path.rstrip("`"), hint="see /docs for an example request"
        ) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        hint = "send a JSON object with `inputs`"
        raise RefusedRequest(f"the body is not JSON: {error}", hint=hint) from None
    parameters = [
        request.parameters,
        *(tensor.parameters for tensor in request.inputs),
        *(output.parameters for output in request.outputs),
    ]
    if any(name.startswith("binary_data") for names in parameters for name in names):
        message = "the binary tensor extension is not supported"
        raise RefusedRequest(message, field="parameters", hint="send the data as JSON")
    return request


def to_rows(request: InferRequest, schema: Schema) -> list[dict[str, Any]]:
    """Return the rows of a request's tensors, before their values are checked.

    Raises:
        RefusedRequest: a tensor is missing, unknown, a duplicate, or has a wrong shape or datatype;
            the message names it.
    """
    fields = {field.name: field for field in schema.inputs}
    columns: dict[str, list[Any]] = {}
    for place, tensor in enumerate(request.inputs):
        field = fields.get(tensor.name)
        if field is None or tensor.name in columns:
            what = "duplicate" if field else "unknown"
            message = f"{what} tensor {tensor.name[:80]}"
            hint = f"send one tensor for each column: {', '.join(fields)}"
            raise RefusedRequest(message, field=f"inputs[{place}].name", hint=hint)
        columns[tensor.name] = _column(tensor, field, f"inputs[{place}]")
    missing = [name for name in fields if name not in columns]
    if missing:
        hint = f"send one tensor for each column: {', '.join(fields)}"
        raise RefusedRequest(f"missing tensor {missing[0]}", field="inputs", hint=hint)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        message = f"the tensors have different numbers of rows: {lengths}"
        raise RefusedRequest(message, field="inputs", hint="send tensors of the same shape")
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def wanted(request: InferRequest, known: Sequence[str]) -> list[str]:
    """Return the names of the outputs that a request selects; by default all.

    Raises:
        RefusedRequest: the model has no such output.
    """
    names = [output.name for output in request.outputs]
    for place, name in enumerate(names):
        if name not in known:
            hint = f"valid outputs: {', '.join(known)}"
            message = f"unknown output {name[:80]}"
            raise RefusedRequest(message, field=f"outputs[{place}].name", hint=hint)
    return names or list(known)


def tensors(outputs: Sequence[Row], names: Sequence[str], schema: Schema) -> list[dict[str, Any]]:
    """Return one tensor of shape [rows] for each named output."""
    kinds = {field.name: field.kind for field in schema.outputs}
    return [
        {
            "name": name,
            "shape": [len(outputs)],
            "datatype": _SENT[kinds.get(name) or kind_of(outputs[0][name])],
            "data": [row[name] for row in outputs],
        }
        for name in names
    ]


def metadata(fields: Sequence[Field]) -> list[dict[str, Any]]:
    """Return name, datatype and shape of each column; `-1` stands for the number of rows."""
    return [{"name": field.name, "datatype": _SENT[field.kind], "shape": [-1]} for field in fields]


def example(schema: Schema) -> dict[str, Any]:
    """Return a request with one row, from the examples in the schema."""
    return {
        "inputs": [
            {
                "name": field.name,
                "shape": [1],
                "datatype": _SENT[field.kind],
                "data": [field.example],
            }
            for field in schema.inputs
        ]
    }


def kind_of(value: Value) -> Kind:
    """Return the kind of an output that is not in the schema."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return "text" if isinstance(value, str) else "number"


def _column(tensor: Tensor, field: Field, place: str) -> list[Any]:
    if tensor.datatype not in _ACCEPTED[field.kind]:
        accepted = ", ".join(sorted(_ACCEPTED[field.kind]))
        message = f"{tensor.name} has datatype {tensor.datatype[:20]}"
        raise RefusedRequest(message, field=f"{place}.datatype", hint=f"send {accepted}")
    if tensor.data is None:
        raise RefusedRequest(
            f"{tensor.name} has no data", field=place, hint="send the values as JSON in `data`"
        )
    shape = tensor.shape
    is_column = len(shape) in (1, 2) and shape[1:] in ([], [1])
    values = [
        value[0] if isinstance(value, list) and len(shape) == 2 and len(value) == 1 else value
        for value in tensor.data
    ]
    if not is_column or shape[0] != len(values):
        message = f"{tensor.name} has shape {shape[:8]} and {len(values)} values"
        raise RefusedRequest(
            message, field=f"{place}.shape", hint="send the shape [rows] or [rows, 1]"
        )
    return values
