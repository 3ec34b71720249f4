"""Values in messages and tables, as JSON and mlship.yaml have them: `null`, `true`, `["a"]`."""

import json
import re
from typing import Any, Final

import msgspec

from mlship.domain.digests import plain

_HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters of terminals, but for line breaks and tabs, and those that reorder text."""


def visible(text: str) -> str:
    """Return text whose control characters are escaped, so that it can only be read."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def quoted(output: str) -> str:
    """Return the output of another program within a message, each line with a mark.

    Its lines may start with `error:` and `next:`, as those of mlship do.
    """
    return "\n".join(f"  | {line}" for line in output.splitlines())


def literal(value: Any) -> str:
    """Return a value on one line as JSON, a text in quotes, without control characters."""
    text = json.dumps(_json_types(value), ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def bare(value: Any) -> str:
    """Return a value as in `literal`; a text and a number that is not finite without quotes."""
    written = _json_types(value)
    return written if isinstance(written, str) else literal(written)


def _json_types(value: Any) -> Any:
    return plain(msgspec.to_builtins(value, str_keys=True, enc_hook=_of_library))


def _of_library(value: Any) -> Any:
    """Return a number or a text of numpy as Python's own; anything else as text."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
