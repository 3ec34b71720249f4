"""JSON that others wrote: bytes of any content."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

_Value = TypeVar("_Value")


def decoded(decode: Callable[[bytes], _Value], data: bytes) -> _Value:
    """Return the value of a JSON document.

    msgspec decodes some strings only after the document, and raises other errors for them.

    Args:
        decode: the method of a decoder of msgspec.
        data: the document.

    Raises:
        msgspec.DecodeError: it is not JSON in UTF-8, is nested too deeply or has another shape.
    """
    try:
        return decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"it is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error
