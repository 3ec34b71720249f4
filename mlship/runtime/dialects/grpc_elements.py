"""How many values a message of `ModelInfer` has, counted on its bytes before it is decoded.

Two bytes of a message may be a tensor, of which the decoder makes 90 bytes. The bytes are those of
https://protobuf.dev/programming-guides/encoding: fields one after the other, each a key (its number
and its type) and, for messages, texts and packed numbers, a length.
"""

from collections.abc import Mapping
from typing import Any, Final

_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5
_WIDTHS: Final = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4, 3: 0, 4: 0}
"""The bytes after a key; a group has only its fields between two keys."""
_WEIGHT: Final = 16
"""A message takes as much memory as so many values."""
_LAST_BYTES: Final = bytes(range(128))
"""The last byte of each packed number has no high bit."""

_Layout = Mapping[int, Any]
_PACKED: Final = "packed"
_ENTRY: Final[_Layout] = {}
_CONTENTS: Final[_Layout] = dict.fromkeys(range(1, 6), _PACKED)
_TENSOR: Final[_Layout] = {3: _PACKED, 4: _ENTRY, 5: _CONTENTS}
_REQUEST: Final[_Layout] = {4: _ENTRY, 5: _TENSOR, 6: {2: _ENTRY}}
"""The fields of `ModelInferRequest` that hold others; the rest of a message is texts."""


def count(body: bytes, most: int) -> int:
    """Return the number of values in a message, or one that is more than `most`.

    What is no message is left to the decoder, which refuses it.
    """
    number = 0
    messages: list[tuple[int, int, _Layout]] = [(0, len(body), _REQUEST)]
    try:
        while messages and number <= most:
            place, end, layout = messages.pop()
            while place < end and number <= most:
                number += 1
                key, place = _varint(body, place)
                kind = key & 7
                if kind == _SIZED:
                    size, place = _varint(body, place)
                    inner = layout.get(key >> 3)
                    if inner is _PACKED:
                        packed = body[place : place + size]
                        number += len(packed) - len(packed.translate(None, _LAST_BYTES))
                    elif inner is not None:
                        number += _WEIGHT
                        messages.append((place, place + size, inner))
                    place += size
                elif kind == _VARINT:
                    _, place = _varint(body, place)
                else:
                    place += _WIDTHS[kind]
    except (IndexError, KeyError):
        pass
    return number


def _varint(body: bytes, place: int) -> tuple[int, int]:
    """Return the number that begins at a place, and where it ends.

    Raises:
        IndexError: the body ends before it.
    """
    number = body[place]
    if number < 128:
        return number, place + 1
    number, shift = number & 127, 7
    while True:
        place += 1
        part = body[place]
        number |= (part & 127) << shift
        if part < 128:
            return number, place + 1
        shift += 7
