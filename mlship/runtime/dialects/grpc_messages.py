"""The messages of the Open Inference Protocol over gRPC, built when the process starts.

Names, numbers and types of the fields are those of
https://github.com/kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto,
and, for configuration, statistics and repository, of Triton's protocol. They are in a pool of their
own, so that a client's generated code may be loaded beside them.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

PACKAGE: Final = "inference"
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"

_PARAMETERS: Final = "map InferParameter"
_OF_MODEL: Final = {"name": (1, "string"), "version": (2, "string")}
_TENSOR: Final = {
    "name": (1, "string"),
    "datatype": (2, "string"),
    "shape": (3, "repeated int64"),
}
_MESSAGES: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": (1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": (1, "bool")},
    "ModelReadyRequest": _OF_MODEL,
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {
        "name": (1, "string"),
        "version": (2, "string"),
        "extensions": (3, "repeated string"),
    },
    "ModelMetadataRequest": _OF_MODEL,
    "ModelMetadataResponse": {
        "name": (1, "string"),
        "versions": (2, "repeated string"),
        "platform": (3, "string"),
        "inputs": (4, "repeated TensorMetadata"),
        "outputs": (5, "repeated TensorMetadata"),
    },
    "TensorMetadata": _TENSOR,
    "InferParameter": {
        "bool_param": (1, "one bool"),
        "int64_param": (2, "one int64"),
        "string_param": (3, "one string"),
        "double_param": (4, "one double"),
        "uint64_param": (5, "one uint64"),
    },
    "InferTensorContents": {
        "bool_contents": (1, "repeated bool"),
        "int_contents": (2, "repeated int32"),
        "int64_contents": (3, "repeated int64"),
        "uint_contents": (4, "repeated uint32"),
        "uint64_contents": (5, "repeated uint64"),
        "fp32_contents": (6, "repeated float"),
        "fp64_contents": (7, "repeated double"),
        "bytes_contents": (8, "repeated bytes"),
    },
    "InferTensor": {
        **_TENSOR,
        "parameters": (4, _PARAMETERS),
        "contents": (5, "InferTensorContents"),
    },
    "InferRequestedOutput": {"name": (1, "string"), "parameters": (2, _PARAMETERS)},
    "ModelInferRequest": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, _PARAMETERS),
        "inputs": (5, "repeated InferTensor"),
        "outputs": (6, "repeated InferRequestedOutput"),
        "raw_input_contents": (7, "repeated bytes"),
    },
    "ModelInferResponse": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, _PARAMETERS),
        "outputs": (5, "repeated InferTensor"),
        "raw_output_contents": (6, "repeated bytes"),
    },
    "RepositoryIndexRequest": {"repository_name": (1, "string"), "ready": (2, "bool")},
    "RepositoryIndexResponse": {"models": (1, "repeated ModelIndex")},
    "ModelIndex": {**_OF_MODEL, "state": (3, "string"), "reason": (4, "string")},
    "ModelConfigRequest": _OF_MODEL,
    "ModelConfigResponse": {"config": (1, "ModelConfig")},
    "ModelConfig": {
        "name": (1, "string"),
        "platform": (2, "string"),
        "max_batch_size": (4, "int32"),
        "input": (5, "repeated ModelInput"),
        "output": (6, "repeated ModelOutput"),
        "backend": (17, "string"),
    },
    "ModelInput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (4, "repeated int64"),
    },
    "ModelOutput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (3, "repeated int64"),
    },
    "ModelStatisticsRequest": _OF_MODEL,
    "ModelStatisticsResponse": {"model_stats": (1, "repeated ModelStatistics")},
    "ModelStatistics": {
        **_OF_MODEL,
        "last_inference": (3, "uint64"),
        "inference_count": (4, "uint64"),
        "execution_count": (5, "uint64"),
        "inference_stats": (6, "InferStatistics"),
    },
    "InferStatistics": {
        name: (number, "StatisticDuration")
        for number, name in enumerate(
            (
                "success",
                "fail",
                "queue",
                "compute_input",
                "compute_infer",
                "compute_output",
                "cache_hit",
                "cache_miss",
            ),
            1,
        )
    },
    "StatisticDuration": {"count": (1, "uint64"), "ns": (2, "uint64")},
}
_DATA_TYPES: Final = (
    *("INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "STRING", "BF16"),
)


@cache
def messages() -> Mapping[str, Any]:
    """Return the class of each message by its name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="mlship/inference.proto", package=PACKAGE, syntax="proto3"
    )
    types = file.enum_type.add(name="DataType")
    for number, name in enumerate(_DATA_TYPES):
        types.value.add(name=f"TYPE_{name}", number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    """Add a field whose kind is a type, perhaps after `repeated`, `map` or `one` of a choice."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    rule, _, type_ = kind.rpartition(" ")
    field = message.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if rule in ("repeated", "map"):
        field.label = FieldDescriptorProto.LABEL_REPEATED
    if rule == "one":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if rule == "map":
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, type_)
        type_ = f"{message.name}.{entry.name}"
    scalar = getattr(FieldDescriptorProto, f"TYPE_{type_.upper()}", None)
    if scalar is not None:
        field.type = scalar
    else:
        is_enum = type_ == "DataType"
        field.type = (
            FieldDescriptorProto.TYPE_ENUM if is_enum else FieldDescriptorProto.TYPE_MESSAGE
        )
        field.type_name = f".{PACKAGE}.{type_}"
