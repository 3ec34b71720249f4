"""Values in Avro, with the schemas of a registry."""

import datetime as dt
import io
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from mlship.domain.bundle import Bundle, Field, Kind
from mlship.domain.columns import Columns
from mlship.errors import ConfigError, NotFoundError
from mlship.runtime.faults import Fault
from mlship.runtime.stream import fields
from mlship.runtime.stream.formats import ID, RELEASE, named
from mlship.runtime.stream.registry import Registry, framed, unframed

_TYPES: Final[Mapping[Kind, str]] = {
    "number": "double",
    "integer": "long",
    "text": "string",
    "boolean": "boolean",
}


class Avro:
    """Records of Avro; the schema of the outputs is registered when it is made.

    Args:
        registry: has the schemas.
        subject: of the schema of outputs.
        bundle: the manifest.
        release: the name of the release.

    Raises:
        ConfigError: fastavro is missing, or the registry refuses the schema of outputs.
    """

    def __init__(self, registry: Registry, subject: str, bundle: Bundle, release: str) -> None:
        self._avro = _library()
        self._registry = registry
        self._release = release
        self._readers: dict[int, Any] = {}
        self._columns = fields.names([field.name for field in bundle.schema.inputs])
        self._outputs = fields.names([field.name for field in bundle.schema.outputs])
        schema = _schema(bundle, self._outputs)
        self._schema = self._avro.parse_schema(schema)
        self._number = registry.register(subject, json.dumps(schema), "AVRO")

    def decode(self, value: bytes) -> dict[str, Any] | Fault:
        """Return the row of a value, or why it is none.

        Raises:
            UnavailableError: the registry does not answer.
        """
        try:
            number, data = unframed(value)
            row = self._avro.schemaless_reader(io.BytesIO(data), self._reader(number))
        except NotFoundError as error:
            return Fault(message=error.message)
        except (ValueError, EOFError, LookupError, TypeError, OverflowError) as error:
            return Fault(message=f"the value is not Avro: {error or type(error).__name__}")
        if not isinstance(row, dict):
            return Fault(message="the value is Avro, but not a record")
        return {self._columns.get(str(name), str(name)): _plain(each) for name, each in row.items()}

    def encode(self, outputs: Columns, ids: Sequence[str]) -> list[bytes]:
        """Return the value for each row of outputs."""
        write, encoded = self._avro.schemaless_writer, []
        names = {column: name for name, column in self._outputs.items()}
        for row in named(outputs, ids, self._release).rows():
            data = io.BytesIO()
            write(data, self._schema, {names.get(name, name): each for name, each in row.items()})
            encoded.append(framed(self._number, data.getvalue()))
        return encoded

    def _reader(self, number: int) -> Any:
        known = self._readers.get(number)
        if known is None:
            text = self._registry.schema(number)
            known = self._readers[number] = self._avro.parse_schema(json.loads(text))
        return known


def _schema(bundle: Bundle, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the schema of outputs."""
    kinds = {field.name: field for field in bundle.schema.outputs}
    own = [{"name": name, "type": "string"} for name in (ID, RELEASE) if name not in names]
    return {
        "type": "record",
        "name": "Prediction",
        "namespace": f"mlship.{fields.name_of(bundle.name)}",
        "fields": own + [_field(name, kinds[column]) for name, column in names.items()],
    }


def _field(name: str, field: Field) -> dict[str, Any]:
    kind = _TYPES[field.kind]
    documented = {"name": name} if name == field.name else {"name": name, "doc": field.name}
    if field.nullable:
        return {**documented, "type": ["null", kind], "default": None}
    return {**documented, "type": kind}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: logical types are texts or numbers there."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value


def _library() -> Any:
    try:
        import fastavro
    except ImportError as error:
        message = "stream.format avro needs the package fastavro, which is not installed"
        raise ConfigError(message, hint="install the extra: mlship-cd[kafka]") from error
    return fastavro
