"""What an ONNX file refers to beyond itself, read from its bytes before a session is made.

An ONNX file is a Protocol Buffers message. Its tensors may lie in other files, by paths that the
file chooses, and its operators may be of libraries. Both are refused, and so is whatever is no
such message: onnxruntime loads another format of its own from the same bytes.

The numbers of fields are those of onnx/onnx.proto.
"""

import re
from collections.abc import Iterator
from typing import Final, NoReturn

from mlship.errors import IntegrityError

_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml")
_MICROSOFT: Final = "com.microsoft"
_OF_MICROSOFT: Final = frozenset(
    {"CDist", "DynamicQuantizeMatMul", "FusedMatMul", "Gelu", "Inverse", "MatMulIntegerToFloat"}
    | {"MurmurHash3", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "Tokenizer", "Unique"}
)
"""Operators that onnxruntime itself has, and that compute from their inputs alone."""

_GRAPH: Final = 7
_MESSAGES: Final = {
    "model": {_GRAPH: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""The fields of each kind of message that are messages to look into, and of what kind."""

_TEXTS: Final = {"node": (4, 7), "function": (1, 10)}
"""The name of an operator or function, and its domain."""

_ELSEWHERE: Final = "the data of a tensor lie in another file"
_REFUSED: Final = {
    ("tensor", 13): _ELSEWHERE,
    ("tensor", 14): _ELSEWHERE,
    ("model", 20): "it has training information",
}
_ORT = b"ORTM"
_FLOATS = re.compile(rb"(?:\x3d.{4})++", re.DOTALL)
_INTEGERS = re.compile(rb"(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])++")
_TEXT = b"|".join(b"%c.{%d}" % (length, length) for length in range(1, 33))
_TEXTS_OF_ATTRIBUTES = re.compile(rb"(?:\x4a(?:" + _TEXT + rb"))++", re.DOTALL)
_LONG = (_FLOATS, _INTEGERS, _TEXTS_OF_ATTRIBUTES)
"""The long fields of a tree ensemble's attributes, skipped at once: 7, 8 and 9."""


class _RefusedError(Exception):
    """Carries why a file is refused."""


def check(data: bytes, name: str) -> None:
    """Refuse a file that refers to other files or libraries, or is no ONNX model.

    Args:
        data: the file.
        name: of the file, for the message.

    Raises:
        IntegrityError: with what it refers to.
    """
    if not is_model(data):
        reason = "it is not an ONNX model"
    else:
        try:
            _Model().look(memoryview(data))
        except _RefusedError as error:
            reason = str(error)
        except (IndexError, UnicodeDecodeError, RecursionError, _MalformedError):
            reason = "it is damaged"
        else:
            return
    hint = "nothing was loaded; export it as one file, with operators of ONNX itself"
    raise IntegrityError(f"{name} was refused: {reason}", hint=hint)


def is_model(data: bytes) -> bool:
    """Tell whether bytes are a message with a graph, as an ONNX file is."""
    try:
        fields = dict(_fields(memoryview(data)))
    except (IndexError, _MalformedError):
        return False
    return data[4:8] != _ORT and not isinstance(fields.get(_GRAPH, 0), int)


class _MalformedError(Exception):
    pass


class _Model:
    def __init__(self) -> None:
        self._functions: set[tuple[str, str]] = set()
        self._operators: set[tuple[str, str]] = set()

    def look(self, data: memoryview) -> None:
        """Look at a whole file."""
        self._visit("model", data)
        for domain, name in sorted(self._operators - self._functions):
            is_known = domain in _DOMAINS or (domain == _MICROSOFT and name in _OF_MICROSOFT)
            if not is_known:
                _refuse(f"it has the operator {name} of {domain or 'ai.onnx'}, a custom one")

    def _visit(self, kind: str, data: memoryview) -> None:
        inner, names = _MESSAGES[kind], _TEXTS.get(kind, ())
        texts: dict[int, str] = {}
        for number, value in _fields(data):
            if (kind, number) in _REFUSED and value != 0:
                _refuse(_REFUSED[kind, number])
            if number in inner:
                self._visit(inner[number], _message(value))
            elif number in names:
                texts[number] = bytes(_message(value)).decode()
        if kind in _TEXTS:
            name, domain = (texts.get(number, "") for number in names)
            (self._operators if kind == "node" else self._functions).add((domain, name))


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise _MalformedError
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield the number and the value of each field of a message."""
    place, end = 0, len(data)
    while place < end:
        for many in _LONG:
            if skipped := many.match(data, place):
                place = skipped.end()
        if place < end:
            tag, place = _varint(data, place)
            value, place = _value(data, place, tag & 7)
            if place > end or tag < 8:
                raise _MalformedError
            yield tag >> 3, value


def _value(data: memoryview, place: int, wire: int) -> tuple[memoryview | int, int]:
    """Return a field's value and where it ends; a number of fixed length is of no interest."""
    if wire == 0:
        return _varint(data, place)
    if wire == 2:
        length, place = _varint(data, place)
        return data[place : place + length], place + length
    if wire in (1, 5):
        return 0, place + (8 if wire == 1 else 4)
    raise _MalformedError


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _MalformedError


def _refuse(reason: str) -> NoReturn:
    raise _RefusedError(reason)
