"""Downloads that resume after a broken connection."""

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
    """Yield the bytes of a body from an offset on; a broken download is resumed.

    Args:
        open_at: requests the bytes from an offset on (RFC 9110, section 14) and returns a streamed
            response of status 200 or 206.
        offset: of the first byte.
        patience: `attempts` is the number of attempts in a row without a byte.
        timing: time and randomness.

    Raises:
        NoAnswerError: the last attempts brought no byte.
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
        # A server without support for ranges sends the whole body again.
        passed = offset if response.status_code == httpx.codes.OK else 0
        for piece in response.iter_raw():
            rest = piece[passed:]
            passed = max(0, passed - len(piece))
            if rest:
                yield rest
    finally:
        response.close()
