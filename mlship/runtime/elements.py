"""How many values a body has, counted before they are made: of few bytes become many objects.

An empty object has three bytes in JSON, and 72 in memory; a body of 10 KB may be decompressed to
three million of them. What a request can need follows from the schema. The count costs a
hundredth of what decoding does.
"""

from typing import Final

from mlship.runtime import http
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.memory import SMALL_BODY

ROWS: Final = 2 * http.MAX_ROWS
"""For bodies up to so many rows, the number of rows is told after they are decoded."""
_PIECE_BYTES: Final = 65_536


def limit(columns: int) -> int:
    """Return the most values that are decoded: those of `ROWS`, and one more for each."""
    return ROWS * (columns + 1)


def check_json(body: bytes, columns: int) -> None:
    """Refuse a body of JSON with more values, or more objects and lists, than rows may have.

    Args:
        body: the body.
        columns: the number of columns of the model.

    Raises:
        RefusedRequest: with status 413.
    """
    if len(body) <= SMALL_BODY:
        return
    if _is_beyond(body, b"{[", ROWS):
        raise too_many("objects and lists")
    check(_least(body, b",", limit(columns)), columns)


def check_csv(body: bytes, columns: int) -> None:
    """Refuse a body of CSV with more cells than rows may have.

    Raises:
        RefusedRequest: with status 413.
    """
    if len(body) > SMALL_BODY:
        check(_least(body, b",", limit(columns)), columns)


def check(values: int, columns: int) -> None:
    """Refuse a body with so many values if that is more than rows of the columns may have.

    Raises:
        RefusedRequest: with status 413.
    """
    if values > limit(columns):
        raise too_many("values")


def too_many(what: str) -> RefusedRequest:
    """Return the refusal of a body with more of something than a request may need."""
    message = f"the body has more {what} than {http.MAX_ROWS:,} rows need"
    return RefusedRequest(message, hint="send fewer rows per request", status=413)


def _is_beyond(body: bytes, characters: bytes, most: int) -> bool:
    return _least(body, characters, most) > most


def _least(body: bytes, characters: bytes, most: int) -> int:
    """Return how many of the characters a body has outside of texts, if it may be more than most.

    Otherwise, those in texts are counted, too: that takes less time. The count ends soon after it
    is more than most.
    """
    count = sum(map(body.count, characters))
    return count if count <= most else _outside_texts(body, characters, most)


def _outside_texts(body: bytes, characters: bytes, most: int) -> int:
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    count, is_text = 0, False
    for start in range(0, len(body), _PIECE_BYTES):  # the parts of all would take more memory
        parts = body[start : start + _PIECE_BYTES].split(b'"')
        outside = b"".join(parts[is_text::2])
        count += sum(map(outside.count, characters))
        if count > most:
            break
        is_text ^= len(parts) % 2 == 0
    return count
