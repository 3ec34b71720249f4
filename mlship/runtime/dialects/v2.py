"""The Open Inference Protocol, version 2, over HTTP: JSON, with binary tensors where wanted.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md,
and Triton's extensions for binary tensor data and classification.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mlship.domain.bundle import Bundle, Schema
from mlship.runtime import elements, http
from mlship.runtime.dialects import Call, Dialect, Predictions, tensors
from mlship.runtime.dialects.outputs import Output, Outputs, refuse_shared_memory
from mlship.runtime.dialects.tensors import Tensor
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.http import Request, Response

HEADER_LENGTH: Final = "inference-header-content-length"
"""The header with the length of the JSON part of a body; binary tensors follow it."""
_SIZE: Final = "binary_data_size"


class InputTensor(msgspec.Struct, kw_only=True):
    """A tensor of a request, as its JSON part has it."""

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
    """The JSON part of `POST /v2/models/{name}/infer`."""

    inputs: list[InputTensor]
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
    outputs = Outputs(bundle)

    def decode(request: Request) -> Call:
        header, binary = _parts(request)
        elements.check_json(header, len(bundle.schema.inputs))
        infer = _decode(header)
        rows = tensors.to_columns(_tensors(infer, binary), bundle.schema)
        wanted = [(output.name, output.parameters) for output in infer.outputs]
        selected = outputs.select(wanted, infer.parameters)
        id_ = infer.id

        def encode(predictions: Predictions) -> Response:
            answer = {
                "model_name": bundle.name,
                "model_version": version,
                "id": predictions.request_id if id_ is None else id_,
                "parameters": {"release": release, "predictions": list(predictions.ids)},
            }
            return _response(answer, outputs.tensors(selected, predictions.outputs))

        return Call(rows, encode)

    return decode


def example(schema: Schema) -> dict[str, Any]:
    """Return a request with one row, from the examples in the schema."""
    return {
        "inputs": [
            {
                "name": field.name,
                "shape": [1],
                "datatype": tensors.datatype_of(field),
                "data": [field.example],
            }
            for field in schema.inputs
        ]
    }


def _parts(request: Request) -> tuple[bytes, memoryview]:
    """Return the JSON part of the body, and its binary part."""
    body = memoryview(request.body)
    length = request.headers.get(HEADER_LENGTH)
    if length is None:
        http.check_media(request, http.JSON, http.BINARY)
        return request.body, body[len(body) :]
    if not (length.isascii() and length.isdigit() and len(length) < 20) or int(length) > len(body):
        message = f"{HEADER_LENGTH} is {length[:20]}, and the body has {len(body):,} bytes"
        hint = "send the length of the JSON part of the body"
        raise RefusedRequest(message, field=HEADER_LENGTH, hint=hint)
    return bytes(body[: int(length)]), body[int(length) :]


def _decode(header: bytes) -> InferRequest:
    try:
        return _decoder.decode(header)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        raise RefusedRequest(
            text, field=path.rstrip("`"), hint="see /docs for an example request"
        ) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        hint = "send a JSON object with `inputs`"
        raise RefusedRequest(f"the body is not JSON: {error}", hint=hint) from None


def _tensors(infer: InferRequest, binary: memoryview) -> list[Tensor]:
    """Return the tensors of a request; those with a size have the next bytes of the binary part."""
    found = []
    start = 0
    for number, sent in enumerate(infer.inputs):
        place = f"inputs[{number}]"
        refuse_shared_memory(sent.parameters, place)
        raw: memoryview | None = None
        if _SIZE in sent.parameters:
            raw = _slice(sent, binary, start, place)
            start += len(raw)
        found.append(Tensor(sent.name, sent.datatype, sent.shape, place, sent.data, raw))
    if start != len(binary):
        message = f"the body has {len(binary) - start:,} bytes of no tensor"
        hint = f"give each binary tensor its {_SIZE}, and {HEADER_LENGTH} its value"
        raise RefusedRequest(message, field="inputs", hint=hint)
    return found


def _slice(sent: InputTensor, binary: memoryview, start: int, place: str) -> memoryview:
    size = sent.parameters[_SIZE]
    field = f"{place}.parameters.{_SIZE}"
    if type(size) is not int or size < 0 or start + size > len(binary):
        message = f"{sent.name[:80]} has a {_SIZE} that does not fit: "
        message += f"the body has {len(binary) - start:,} more bytes"
        hint = f"send the tensor's bytes after the JSON part, and its length as {HEADER_LENGTH}"
        raise RefusedRequest(message, field=field, hint=hint)
    if sent.data is not None:
        message = f"{sent.name[:80]} has both `data` and binary data"
        raise RefusedRequest(message, field=place, hint="send one of them")
    return binary[start : start + size]


def _response(answer: dict[str, Any], outputs: Sequence[Output]) -> Response:
    described, blobs = [], []
    for output in outputs:
        tensor: dict[str, Any] = {
            "name": output.name,
            "shape": output.shape,
            "datatype": output.datatype,
        }
        if output.is_binary:
            blobs.append(tensors.to_bytes(output.values, output.datatype, output.name))
            tensor["parameters"] = {_SIZE: len(blobs[-1])}
        else:
            tensor["data"] = output.values
        described.append(tensor)
    response = http.of_json({**answer, "outputs": described})
    if not blobs:
        return response
    headers = {"content-type": http.BINARY, HEADER_LENGTH: str(len(response.body))}
    return Response(status=200, headers=headers, body=b"".join([response.body, *blobs]))
