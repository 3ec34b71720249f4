"""The Open Inference Protocol, version 2, over gRPC: the messages of `ModelInfer`.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_grpc.md
"""

from collections.abc import Sequence
from typing import Any, Final

from mlship.domain.bundle import Bundle, Value
from mlship.runtime import elements, http
from mlship.runtime.dialects import Call, Dialect, Predictions, grpc_elements, tensors
from mlship.runtime.dialects.grpc_messages import SERVICE, messages
from mlship.runtime.dialects.outputs import Output, Outputs, refuse_shared_memory
from mlship.runtime.dialects.tensors import Tensor
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.http import Request, Response
from mlship.runtime.memory import SMALL_BODY

ROUTE: Final = f"/{SERVICE}/ModelInfer"
MEDIA: Final = "application/grpc"

_SMALL: Final = {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32)}
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    **{name: "uint_contents" if name[0] == "U" else "int_contents" for name in _SMALL},
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    tensors.BYTES: "bytes_contents",
}
"""The field of a tensor's contents for each datatype; other datatypes are sent as bytes."""
_MISSING: Final = {"FP64": float("nan"), tensors.BYTES: b""}


def dialect(bundle: Bundle, release: str, version: str) -> Dialect:
    """Return the dialect of `ModelInfer`; bodies are messages without the frame of gRPC.

    A response has raw contents if the request has: that is how clients say which they read.

    Args:
        bundle: the served bundle.
        release: the name of the release, which responses have as a parameter.
        version: the version of the model in responses.
    """
    outputs, columns = Outputs(bundle), len(bundle.schema.inputs)
    request_class = messages()["ModelInferRequest"]

    def decode(request: Request) -> Call:
        http.check_media(request, MEDIA)
        most = elements.limit(columns)
        if len(request.body) > SMALL_BODY:
            elements.check(grpc_elements.count(request.body, most), columns)
        infer = _decode(request.body, request_class)
        if infer.model_name != bundle.name or infer.model_version not in ("", version):
            hint = f"the model is {bundle.name}, version {version}"
            message = f"model {infer.model_name[:80]} {infer.model_version[:20]} not found"
            raise RefusedRequest(message, hint=hint, status=404)
        rows = tensors.to_columns(_tensors(infer), bundle.schema)
        wanted = [(output.name, _parameters(output.parameters)) for output in infer.outputs]
        selected = outputs.select(wanted, _parameters(infer.parameters))
        is_raw, id_ = bool(infer.raw_input_contents), infer.id

        def encode(predictions: Predictions) -> Response:
            answer = messages()["ModelInferResponse"](
                model_name=bundle.name,
                model_version=version,
                id=id_ or predictions.request_id,
            )
            answer.parameters["release"].string_param = release
            answer.parameters["predictions"].string_param = ",".join(predictions.ids)
            _add_outputs(answer, outputs.tensors(selected, predictions.outputs), is_raw=is_raw)
            body: bytes = answer.SerializeToString()
            return Response(status=200, headers={"content-type": MEDIA}, body=body)

        return Call(rows, encode)

    return decode


def _decode(body: bytes, message: Any) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(body)
    except DecodeError:
        hint = "send a message of open_inference_grpc.proto"
        raise RefusedRequest("the body is not a ModelInferRequest", hint=hint) from None


def _tensors(infer: Any) -> list[Tensor]:
    raws: Sequence[bytes] = infer.raw_input_contents
    if raws and len(raws) != len(infer.inputs):
        message = f"the request has {len(infer.inputs)} inputs and {len(raws)} raw contents"
        hint = "send raw contents for each input, or for none"
        raise RefusedRequest(message, field="raw_input_contents", hint=hint)
    found = []
    for number, sent in enumerate(infer.inputs):
        place = f"inputs[{number}]"
        refuse_shared_memory(_parameters(sent.parameters), place)
        shape = list(sent.shape)
        if raws:
            if sent.HasField("contents"):
                message = f"{sent.name[:80]} has both contents and raw contents"
                raise RefusedRequest(message, field=place, hint="send one of them")
            tensor = Tensor(sent.name, sent.datatype, shape, place, raw=raws[number])
        else:
            data = _contents(sent, place)
            tensor = Tensor(sent.name, sent.datatype, shape, place, data=data)
        found.append(tensor)
    return found


def _contents(sent: Any, place: str) -> list[Any]:
    """Return the values of a tensor; NaN is a missing value, as in raw contents."""
    field = _CONTENTS.get(sent.datatype)
    if field is None:
        message = f"{sent.name[:80]} has datatype {sent.datatype[:20]}, "
        message += "for which contents have no field"
        raise RefusedRequest(message, field=f"{place}.datatype", hint="send raw contents")
    values = list(getattr(sent.contents, field))
    if sent.datatype == tensors.BYTES:
        return [tensors.text_of(value, sent.name, place) for value in values]
    if sent.datatype in ("FP32", "FP64"):
        return [value if value == value else None for value in values]  # noqa: PLR0124 (NaN is not itself)
    return values


def _parameters(sent: Any) -> dict[str, Any]:
    return {
        name: getattr(value, chosen)
        for name, value in sent.items()
        if (chosen := value.WhichOneof("parameter_choice"))
    }


def _add_outputs(answer: Any, outputs: Sequence[Output], *, is_raw: bool) -> None:
    for output in outputs:
        tensor = answer.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if is_raw:
            raw = tensors.to_bytes(output.values, output.datatype, output.name)
            answer.raw_output_contents.append(raw)
            continue
        field = _CONTENTS[output.datatype]
        values = [_typed(value, output) for value in output.values]
        getattr(tensor.contents, field).extend(values)


def _typed(value: Value, output: Output) -> Any:
    """Return a value as the contents have it; a missing number is NaN, a missing text is empty."""
    if value is None:
        if output.datatype not in _MISSING:
            message = f"output {output.name} has missing values, "
            message += f"which {output.datatype} cannot carry"
            raise RefusedRequest(message, field="outputs", hint="request this output over HTTP")
        return _MISSING[output.datatype]
    return str(value).encode() if output.datatype == tensors.BYTES else value
