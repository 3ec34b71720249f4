"""Values of streams in Avro and Protobuf, with a registry in memory."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from mlship.domain.bundle import Bundle, Field, Row
from mlship.domain.columns import Columns
from mlship.errors import ConfigError, NotFoundError
from mlship.runtime.faults import Fault
from mlship.runtime.model import Model
from mlship.runtime.stream.avro import Avro
from mlship.runtime.stream.protobuf import Protobuf
from mlship.runtime.stream.registry import Registry, framed
from tests.harness.bundles import COLUMNS, SETOSA, iris_bundle

ROW: Row = {"species": "setosa"} | dict.fromkeys(
    ("probability_setosa", "probability_versicolor", "probability_virginica"), 0.25
)
INPUT = {
    "type": "record",
    "name": "Flower",
    "fields": [{"name": name, "type": ["null", "double"]} for name in COLUMNS],
}


class Schemas(Registry):
    """A registry without a connection."""

    def __init__(self) -> None:
        super().__init__("http://registry")
        self.kept: list[str] = []
        self.subjects: dict[str, int] = {}

    def schema(self, number: int, *, is_serialized: bool = False) -> str:
        if not 0 < number <= len(self.kept):
            raise NotFoundError(f"schema {number} is not in the registry", hint="register it")
        return self.kept[number - 1]

    def register(self, subject: str, schema: str, kind: str) -> int:
        self.kept.append(schema)
        self.subjects[subject] = len(self.kept)
        return len(self.kept)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    iris_bundle(tmp_path / "bundle")
    return Model.load(tmp_path / "bundle", None).bundle


def avro_of(row: Any, number: int, schema: Any = INPUT) -> bytes:
    data = io.BytesIO()
    fastavro.schemaless_writer(data, fastavro.parse_schema(schema), row)
    return framed(number, data.getvalue())


def test_a_record_of_avro_is_a_row_and_outputs_are_records(bundle: Bundle) -> None:
    schemas = Schemas()
    number = schemas.register("in-value", json.dumps(INPUT), "AVRO")
    codec = Avro(schemas, "out-value", bundle, "iris@1")
    assert codec.decode(avro_of(SETOSA, number)) == SETOSA
    assert codec.decode(avro_of({**SETOSA, "petal_width": None}, number)) == {
        **SETOSA,
        "petal_width": None,
    }
    (value,) = codec.encode(Columns.of_rows([ROW]), ["id-1"])
    assert value[:5] == b"\x00" + schemas.subjects["out-value"].to_bytes(4, "big")
    schema = fastavro.parse_schema(json.loads(schemas.kept[-1]))
    read = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
    assert read == {"prediction_id": "id-1", "release": "iris@1"} | ROW


@pytest.mark.parametrize("kind", [Avro, Protobuf])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"{}", "does not begin with the id of a schema"),
        (b"\x00\x00", "does not begin with the id of a schema"),
        (framed(99, b"\x00abc"), "schema 99 is not in the registry"),
        (framed(1, b"\x00"), ""),
        (framed(1, b"\xff\xff\xff"), ""),
    ],
)
def test_a_value_of_another_form_is_a_fault_of_its_message(
    bundle: Bundle, kind: Any, value: bytes, says: str
) -> None:
    codec = kind(Schemas(), "out-value", bundle, "iris@1")  # schema 1 is that of outputs
    found = codec.decode(value)
    if not isinstance(found, Fault):
        # An empty message of Protobuf is one without fields.
        assert kind is Protobuf
        assert set(found.values()) == {None}
        return
    assert says in found.message


def test_columns_with_other_signs_are_fields_and_two_of_one_field_are_refused(
    bundle: Bundle,
) -> None:
    outputs = (Field(name="klasse ä", kind="text", nullable=True), Field(name="9", kind="integer"))
    changed = msgspec.structs.replace(
        bundle, schema=msgspec.structs.replace(bundle.schema, outputs=outputs)
    )
    schemas = Schemas()
    codec = Avro(schemas, "out-value", changed, "iris@1")
    (value,) = codec.encode(Columns.of_rows([{"klasse ä": None, "9": 3}]), ["id-1"])
    schema = fastavro.parse_schema(json.loads(schemas.kept[-1]))
    read: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
    assert read["klasse__"] is None
    assert read["_9"] == 3
    both = (Field(name="a b", kind="text"), Field(name="a-b", kind="text"))
    changed = msgspec.structs.replace(
        bundle, schema=msgspec.structs.replace(bundle.schema, outputs=both)
    )
    with pytest.raises(ConfigError, match="are both the field a_b"):
        Avro(Schemas(), "out-value", changed, "iris@1")


def test_a_message_of_protobuf_is_a_row_and_outputs_are_messages(bundle: Bundle) -> None:
    schemas = Schemas()
    file = descriptor_pb2.FileDescriptorProto(name="in.proto", package="shop", syntax="proto3")
    file.message_type.add(name="Other")
    flower = file.message_type.add(name="Outer").nested_type.add(name="Flower")
    for number, name in enumerate(COLUMNS, 1):
        kind = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE
        label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        flower.field.add(name=name, number=number, type=kind, label=label)
    data = base64.b64encode(file.SerializeToString()).decode()
    number = schemas.register("in-value", data, "PROTOBUF")
    codec = Protobuf(schemas, "out-value", bundle, "iris@1")
    written = message_of(data, "shop.Outer.Flower")(**SETOSA)
    # The place of the message: two steps, the second message, and its first one, in zigzag.
    value = framed(number, b"\x04\x02\x00" + written.SerializeToString())
    assert codec.decode(value) == SETOSA
    (output,) = codec.encode(Columns.of_rows([ROW]), ["id-1"])
    assert output[:6] == b"\x00" + schemas.subjects["out-value"].to_bytes(4, "big") + b"\x00"
    read = message_of(schemas.kept[-1], "mlship.iris.Prediction").FromString(output[6:])
    assert (read.prediction_id, read.release, read.species) == ("id-1", "iris@1", "setosa")
    assert read.probability_virginica == 0.25
    assert codec.decode(output)["species"] == "setosa"  # type: ignore[index]  # it is a row


def message_of(descriptor: str, name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(base64.b64decode(descriptor))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
