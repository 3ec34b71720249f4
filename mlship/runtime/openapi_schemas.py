"""The schemas of the OpenAPI document: what each body may have, as the dialects read it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mlship.domain.bundle import Bundle, Field, Kind, Schema
from mlship.runtime.dialects import tensors
from mlship.runtime.http import MAX_ROWS

_TYPES: Final[Mapping[Kind, str]] = {
    "number": "number",
    "integer": "integer",
    "text": "string",
    "boolean": "boolean",
}
_LARGEST: Final = 2**63 - 1
_TEXT: Final = {"type": "string"}
_OPEN: Final = {"type": "object"}


def of_bundle(bundle: Bundle) -> dict[str, Any]:
    """Return the schema of each body by its name."""
    return _rows(bundle) | _forms(bundle.schema) | _v2(bundle) | _pages() | _errors()


def ref(schema: str) -> dict[str, str]:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{schema}"}


def _rows(bundle: Bundle) -> dict[str, Any]:
    prediction = _object(bundle.schema.outputs)
    prediction["properties"] = {"id": _TEXT} | prediction["properties"]
    prediction["required"] = ["id", *prediction["required"]]
    return {
        "Row": _object(bundle.schema.inputs) | {"additionalProperties": False},
        "Rows": {
            "oneOf": [
                ref("Row"),
                _list(ref("Row")),
                _closed({"rows": _list(ref("Row"))}),
            ]
        },
        "Prediction": prediction,
        "Predictions": {
            "type": "object",
            "properties": {
                "release": _TEXT,
                "predictions": {"type": "array", "items": ref("Prediction")},
            },
            "required": ["release", "predictions"],
        },
        "Table": {
            "type": "string",
            "description": "CSV in UTF-8 with a header that names the columns; "
            "an empty cell is a missing value.",
        },
    }


def _forms(schema: Schema) -> dict[str, Any]:
    """Return the forms of MLflow and V1."""
    names = [field.name for field in schema.inputs]
    values = {
        "type": "array",
        "description": f"Values in the order of the columns: {', '.join(names)}",
        "prefixItems": [_property(field) for field in schema.inputs],
        "items": False,
        "minItems": len(names),
        "maxItems": len(names),
    }
    split = _closed(
        {"columns": {"const": names}, "data": _list(ref("RowValues"))},
        {"index": {"description": "Ignored."}},
    )
    split["description"] = "The columns may have another order; so have the values of a row then."
    rows = _list({"oneOf": [ref("Row"), ref("RowValues")]})
    beside = {"params": {"description": "Ignored."}}
    return {
        "RowValues": values,
        "Invocation": {
            "oneOf": [
                _closed({"dataframe_split": split}, beside),
                _closed({"dataframe_records": rows}, beside),
                _closed({"instances": rows}, beside),
                _closed({"inputs": rows}, beside),
            ],
            "description": "`inputs` may also be an object with a list of values for each column.",
        },
        "V1Request": _closed({"instances": rows}, {"signature_name": {"description": "Ignored."}}),
    }


def _v2(bundle: Bundle) -> dict[str, Any]:
    selected = {
        "type": "object",
        "properties": {
            "name": {"enum": [field.name for field in bundle.schema.outputs]},
            "parameters": {"type": "object", "description": "`binary_data`, `classification`"},
        },
        "required": ["name"],
    }
    return {
        "Tensor": _tensor(),
        "InferRequest": {
            "type": "object",
            "description": "One tensor of shape [rows] or [rows, 1] for each column, or one of "
            f"shape [rows, {len(bundle.schema.inputs)}] with any name. Binary tensors follow the "
            "JSON part, whose length is in the header Inference-Header-Content-Length.",
            "properties": {
                "id": {"type": ["string", "null"]},
                "parameters": {"type": "object", "description": "Such as `binary_data_output`."},
                "inputs": {"type": "array", "items": ref("Tensor"), "minItems": 1},
                "outputs": {"type": "array", "items": selected},
            },
            "required": ["inputs"],
        },
        "InferAnswer": _infer_answer(),
    }


def _tensor() -> dict[str, Any]:
    sizes = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    return {
        "type": "object",
        "properties": {
            "name": _TEXT,
            "shape": {**sizes, "minItems": 1, "maxItems": 2},
            "datatype": {"enum": list(tensors.DATATYPES)},
            "data": {"type": "array", "description": "Flat, or nested like the shape."},
            "parameters": {"type": "object", "description": "Such as `binary_data_size`."},
        },
        "required": ["name", "shape", "datatype"],
    }


def _infer_answer() -> dict[str, Any]:
    ids = {"release": _TEXT, "predictions": {"type": "array", "items": _TEXT}}
    properties = {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "parameters": {"type": "object", "properties": ids, "required": list(ids)},
        "outputs": {"type": "array", "items": ref("Tensor")},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _pages() -> dict[str, Any]:
    described = {"type": "array", "items": _OPEN}
    return {
        "Readiness": {
            "type": "object",
            "properties": {"name": _TEXT, "ready": {"type": "boolean"}, "state": _TEXT},
            "required": ["name", "ready", "state"],
        },
        "Metadata": {
            "type": "object",
            "properties": {
                "name": _TEXT,
                "versions": {"type": "array", "items": _TEXT},
                "platform": _TEXT,
                "inputs": described,
                "outputs": described,
            },
            "required": ["name", "versions", "platform", "inputs", "outputs"],
        },
        "Document": _OPEN,
        "Documents": described,
    }


def _errors() -> dict[str, Any]:
    fault = {
        "message": _TEXT,
        "field": {"type": "string", "examples": ["rows[3].sepal_length"]},
        "hint": _TEXT,
    }
    error = {"type": "object", "properties": fault, "required": ["message"]}
    return {
        "Error": {"type": "object", "properties": {"error": error}, "required": ["error"]},
        "ErrorText": {
            "type": "object",
            "properties": {"error": _TEXT, "field": _TEXT, "hint": _TEXT},
            "required": ["error"],
        },
    }


def _object(fields: Sequence[Field]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: _property(field) for field in fields},
        "required": [field.name for field in fields],
    }


def _closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": MAX_ROWS}


def _property(field: Field) -> dict[str, Any]:
    kind = _TYPES[field.kind]
    schema: dict[str, Any] = {"type": [kind, "null"] if field.nullable else kind}
    limit = field.limit
    if field.kind == "integer":
        limit = _LARGEST if limit is None else min(int(limit), _LARGEST)
    if limit is not None and field.kind in ("number", "integer"):
        schema |= {"minimum": -limit, "maximum": limit}
    known = field.categories or (field.choices if field.is_closed else ())
    if known:
        schema["enum"] = [*known, None] if field.nullable else list(known)
    elif field.choices:
        schema["description"] = f"values in the training data: {', '.join(field.choices[:20])}"
    if field.example is not None:
        schema["examples"] = [field.example]
    return schema
