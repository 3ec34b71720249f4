"""Downloads that go on where a connection broke."""

from collections.abc import Callable, Iterator

import httpx

from mlship.adapters.http.door import NoAnswerError
from mlship.adapters.http.retries import Patience, Timing


def pieces(
    open_at: Callable[[int], httpx.Response],
    *,
    offset: int = 0,
    patience: Patience,
    timing: Timing,
) -> Iterator[bytes]:
    """Give the bytes of a body from an offset; a connection that breaks is made anew.

    Args:
        open_at: asks for the bytes from an offset (RFC 9110, section 14) and returns a streamed
            response of status 200 or 206.
        offset: of the first byte.
        patience: `attempts` in a row without a byte are the end.
        timing: time and randomness.

    Raises:
        NoAnswerError: the connection broke again and again.
    """
    failures = 0
    while True:
        before = offset
        try:
            for piece in _body(open_at(offset), offset):
                offset += len(piece)
                yield piece
        except httpx.RequestError as error:
            failures = 1 if offset > before else failures + 1
            if failures >= patience.attempts:
                raise NoAnswerError(error, f" ({failures} attempts)") from error
            timing.pause(patience.back_off(failures, timing.chance()))
        else:
            return


def _body(response: httpx.Response, offset: int) -> Iterator[bytes]:
    try:
        # A server without ranges gives all of it again.
        passed = offset if response.status_code == httpx.codes.OK else 0
        for piece in response.iter_raw():
            rest = piece[passed:]
            passed = max(0, passed - len(piece))
            if rest:
                yield rest
    finally:
        response.close()
