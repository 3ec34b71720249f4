"""Values in Protobuf, with the schemas of a registry."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from mlship.domain.bundle import Bundle, Kind
from mlship.domain.columns import Columns
from mlship.errors import ConfigError, NotFoundError
from mlship.runtime.faults import Fault
from mlship.runtime.stream import fields
from mlship.runtime.stream.formats import ID, RELEASE, named
from mlship.runtime.stream.registry import Registry, framed, unframed

_FIRST_MESSAGE: Final = b"\x00"
"""The place of a message in its file, where it is the first one."""


class Protobuf:
    """Messages of Protobuf; the schema of the outputs is registered when it is made.

    Args:
        registry: has the schemas; it must give descriptors (`format=serialized`).
        subject: of the schema of outputs.
        bundle: the manifest.
        release: the name of the release.

    Raises:
        ConfigError: protobuf is missing, or the registry refuses the schema of outputs.
    """

    def __init__(self, registry: Registry, subject: str, bundle: Bundle, release: str) -> None:
        self._library = _library()
        self._registry = registry
        self._release = release
        self._classes: dict[tuple[int, ...], Any] = {}
        self._columns = fields.names([field.name for field in bundle.schema.inputs])
        outputs = fields.names([field.name for field in bundle.schema.outputs])
        self._names = {column: name for name, column in outputs.items()}
        file = self._file(bundle, outputs)
        self._message = self._class(file, (0,))
        schema = base64.b64encode(file.SerializeToString()).decode()
        self._number = registry.register(subject, schema, "PROTOBUF")

    def decode(self, value: bytes) -> dict[str, Any] | Fault:
        """Return the row of a value, or why it is none; a field that is not set is missing or null.

        Raises:
            UnavailableError: the registry does not answer.
            ConfigError: the registry gives no descriptor.
        """
        try:
            number, data = unframed(value)
            places, start = _places(data)
            message = self._known(number, places)()
            message.ParseFromString(data[start:])
        except NotFoundError as error:
            return Fault(message=error.message)
        except (ValueError, LookupError, TypeError, self._library.error) as error:
            return Fault(message=f"the value is not Protobuf: {error or type(error).__name__}")
        return {
            self._columns.get(field.name, field.name): _plain(message, field)
            for field in message.DESCRIPTOR.fields
        }

    def encode(self, outputs: Columns, ids: Sequence[str]) -> list[bytes]:
        """Return the value for each row of outputs."""
        encoded = []
        for row in named(outputs, ids, self._release).rows():
            message = self._message()
            for column, value in row.items():
                if value is not None:
                    setattr(message, self._names.get(column, column), value)
            data = message.SerializeToString(deterministic=True)
            encoded.append(framed(self._number, _FIRST_MESSAGE + data))
        return encoded

    def _known(self, number: int, places: tuple[int, ...]) -> Any:
        """Return the class of a message of a schema in the registry."""
        known = self._classes.get((number, *places))
        if known is None:
            text = self._registry.schema(number, is_serialized=True)
            file = self._library.descriptors.FileDescriptorProto()
            try:
                file.ParseFromString(base64.b64decode(text, validate=True))
            except (binascii.Error, self._library.error) as error:
                message = f"the registry gives schema {number} as no descriptor"
                hint = "use a registry that knows format=serialized, as Confluent's does"
                raise ConfigError(message, hint=hint) from error
            known = self._classes[(number, *places)] = self._class(file, places)
        return known

    def _class(self, file: Any, places: Sequence[int]) -> Any:
        """Return the class of a message, by its places in the file and in other messages."""
        pool = self._library.pool()
        pool.AddSerializedFile(file.SerializeToString())
        found = file.message_type[places[0]]
        name = f"{file.package}.{found.name}".lstrip(".")
        for place in places[1:]:
            found = found.nested_type[place]
            name += f".{found.name}"
        return self._library.message_class(pool.FindMessageTypeByName(name))

    def _file(self, bundle: Bundle, names: Mapping[str, str]) -> Any:
        """Return the descriptor of the file with the message of outputs."""
        kinds = {field.name: field.kind for field in bundle.schema.outputs}
        types = self._library.descriptors.FieldDescriptorProto
        numbers: Mapping[Kind, int] = {
            "number": types.TYPE_DOUBLE,
            "integer": types.TYPE_INT64,
            "text": types.TYPE_STRING,
            "boolean": types.TYPE_BOOL,
        }
        file = self._library.descriptors.FileDescriptorProto()
        file.name, file.syntax = "prediction.proto", "proto3"
        file.package = f"mlship.{fields.name_of(bundle.name)}"
        message = file.message_type.add(name="Prediction")
        own = {name: types.TYPE_STRING for name in (ID, RELEASE) if name not in names}
        all_ = own | {name: numbers[kinds[column]] for name, column in names.items()}
        for number, (name, kind) in enumerate(all_.items(), 1):
            # Each knows whether it is set: a missing output is not 0.
            message.oneof_decl.add(name=f"_{name}")
            message.field.add(
                name=name,
                number=number,
                type=kind,
                label=types.LABEL_OPTIONAL,
                proto3_optional=True,
                oneof_index=number - 1,
            )
        return file


def _places(data: bytes) -> tuple[tuple[int, ...], int]:
    """Return the places of the message that a value has, and where its bytes begin."""
    count, start = _number(data, 0)
    if count == 0:
        return (0,), start
    places: tuple[int, ...] = ()
    while len(places) < count:
        place, start = _number(data, start)
        places += (place,)
    if not places or min(places) < 0:
        message = "the place of its message is negative"
        raise ValueError(message)
    return places, start


def _number(data: bytes, start: int) -> tuple[int, int]:
    """Return a number in zigzag encoding, and where it ends."""
    found = shift = 0
    for place in range(start, len(data)):
        found |= (data[place] & 0x7F) << shift
        if data[place] < 0x80:
            return (found >> 1) ^ -(found & 1), place + 1
        shift += 7
    message = "it ends in the place of its message"
    raise ValueError(message)


def _plain(message: Any, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    return value if isinstance(value, int | float | str | bool) else str(value)


class _Library(NamedTuple):
    """What is used of protobuf.

    Attributes:
        descriptors: the messages that describe messages.
        pool: makes a set of descriptors.
        message_class: returns the class of a descriptor.
        error: what reading raises.
    """

    descriptors: Any
    pool: Any
    message_class: Any
    error: type[Exception]


def _library() -> _Library:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        from google.protobuf.message import DecodeError
    except ImportError as error:
        message = "stream.format protobuf needs the package protobuf, which is not installed"
        raise ConfigError(message, hint="install the extra: mlship-cd[kafka]") from error
    make = message_factory.GetMessageClass
    return _Library(descriptor_pb2, descriptor_pool.DescriptorPool, make, DecodeError)
