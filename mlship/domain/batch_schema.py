"""Whether the columns of files fit a model, before the first row is read.

A type of Arrow fits a kind if HTTP would take its values, or if training has read such values in
that column: timestamps, dates and decimals. Text that is still to be parsed fits every kind.
"""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from mlship.domain.batch import Input
from mlship.domain.bundle import ID, Field, Kind, Schema
from mlship.errors import ConfigError, ProjectError

_INTEGER: Final = re.compile(r"u?int(8|16|32|64)")
_FLOAT: Final = re.compile(r"halffloat|float16|float|float32|double|float64")
_TEXT: Final = re.compile(r"(large_)?string|string_view|large_utf8|utf8")
_DICTIONARY: Final = re.compile(r"dictionary<values=([^,]+), .*>")
_WORDS: Final[dict[Kind, str]] = {
    "number": "numbers",
    "integer": "whole numbers",
    "text": "text",
    "boolean": "booleans",
}


class Misfit(msgspec.Struct, frozen=True):
    """What is wrong with the columns of a file, and the next action."""

    message: str
    hint: str


def misfit(fields: Sequence[Field], each: Input) -> Misfit | None:
    """Return what is wrong with the columns of a file; `None` if they fit."""
    if each.format == "jsonl":
        return None
    columns = dict(each.columns)
    for field in fields:
        kind = columns.get(field.name)
        if kind is None:
            near = difflib.get_close_matches(field.name, columns, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}? Rename it" if near else "add the column to the file"
            return Misfit(f"{each.path} has no column {field.name}", hint)
        if not fits(field, kind):
            message = f"{each.path}: column {field.name} has type {kind}, and the model needs "
            return Misfit(
                message + _WORDS[field.kind], f"write it as {_WORDS[field.kind]}, or cast it"
            )
    return _twice(each, {field.name for field in fields})


def _twice(each: Input, needed: Collection[str]) -> Misfit | None:
    counts = Counter(name for name, _ in each.columns if name in needed)
    twice = next((name for name, count in counts.items() if count > 1), "")
    if not twice:
        return None
    return Misfit(f"{each.path} has the column {twice} twice", "rename one of them")


def fits(field: Field, kind: str) -> bool:
    """Return whether the values of an Arrow type may be values of a field."""
    if dictionary := _DICTIONARY.fullmatch(kind):
        kind = dictionary[1]
    if kind in ("csv", "null"):
        return True
    match field.kind:
        case "number" | "integer":
            is_decimal = field.dtype == "decimal" and kind.startswith("decimal")
            return bool(_INTEGER.fullmatch(kind) or _FLOAT.fullmatch(kind)) or is_decimal
        case "boolean":
            return kind == "bool"
        case "text":
            if field.dtype.startswith("datetime64") or field.dtype == "date":
                return kind.startswith(("timestamp", "date")) or bool(_TEXT.fullmatch(kind))
            return bool(_TEXT.fullmatch(kind))


def check(
    schema: Schema, inputs: Sequence[Input], keep: Sequence[str], own: Sequence[str] = ()
) -> None:
    """Check the columns of all files, and those that are kept.

    Args:
        schema: of the model.
        inputs: the files.
        keep: the columns that are kept.
        own: columns that the batch adds, beside ids.

    Raises:
        ProjectError: a file lacks a column, or a column has a type that does not fit.
        ConfigError: a kept column has the name of an output.
    """
    outputs = {ID, *own, *(field.name for field in schema.outputs)}
    if taken := next((name for name in keep if name in outputs), ""):
        message = f"batch.keep: {taken} is the name of an output"
        raise ConfigError(message, hint="rename the column in the input, or do not keep it")
    for each in inputs:
        fault = misfit(schema.inputs, each)
        if fault is None and each.format != "jsonl":
            lacking = next((name for name in keep if name not in dict(each.columns)), "")
            if lacking:
                fault = Misfit(
                    f"{each.path} has no column {lacking}, which batch.keep names",
                    "correct batch.keep or --keep, or add the column",
                )
            fault = fault or _twice(each, keep)
        if fault is not None:
            raise ProjectError(f"{fault.message}; no row was scored", hint=fault.hint)


def check_key(key: str, inputs: Sequence[Input]) -> None:
    """Check the column by which a split gives rows to sides: the same key must be the same text.

    Raises:
        ProjectError: a file lacks it, has it twice, or it is neither text nor whole numbers.
    """
    for each in inputs:
        if each.format == "jsonl":
            continue
        kind = dict(each.columns).get(key)
        if kind is None:
            fault = Misfit(
                f"{each.path} has no column {key}, which batch.key names",
                "correct batch.key, or add the column",
            )
        elif not is_key(kind):
            fault = Misfit(
                f"{each.path}: the key {key} has type {kind}",
                "write it as text or as whole numbers",
            )
        elif twice := _twice(each, {key}):
            fault = twice
        else:
            continue
        raise ProjectError(f"{fault.message}; no row was scored", hint=fault.hint)


def is_key(kind: str) -> bool:
    """Return whether a column of an Arrow type can be a key: its values have one form as text."""
    if dictionary := _DICTIONARY.fullmatch(kind):
        kind = dictionary[1]
    return kind in ("csv", "null") or bool(_INTEGER.fullmatch(kind) or _TEXT.fullmatch(kind))


def check_outputs(champion: Schema, challenger: Schema, names: Sequence[str]) -> None:
    """Check that the rows of a split are one table, whoever answers them.

    Raises:
        ConfigError: they have other outputs, or an output has the name of a column of a split.
    """
    own, other = (
        {field.name: field.kind for field in schema.outputs} for schema in (champion, challenger)
    )
    if different := sorted(set(own.items()) ^ set(other.items())):
        message = f"champion and challenger have different outputs: {different[0][0]}"
        hint = "use --challenger shadow, which writes the challenger's outputs apart"
        raise ConfigError(message, hint=hint)
    if taken := next((name for name in names if name in own), ""):
        message = f"a split adds the column {taken}, and the model has an output of that name"
        raise ConfigError(message, hint="use --challenger shadow, or rename the output")
