"""Why a request got no result, as one word of a fixed list: for metrics and for the access log.

Messages to clients quote what was sent, which neither of them may have.
"""

from typing import Final

from mlship.runtime.http import Response

_OF_STATUS: Final = {
    400: "invalid",
    401: "key",
    404: "not_found",
    405: "method",
    408: "slow",
    413: "too_large",
    415: "media_type",
    429: "busy",
    431: "headers",
    503: "unavailable",
    504: "deadline",
}
ERROR: Final = "error"
GONE: Final = "gone"
LOG: Final = "log"
RESTARTING: Final = "restarting"
CRASHED: Final = "crashed"
REASONS: Final = (*_OF_STATUS.values(), ERROR, GONE, LOG, RESTARTING, CRASHED)


def of_status(status: int) -> str:
    """Return the usual reason of a status of 400 or more."""
    return _OF_STATUS.get(status, ERROR if status >= 500 else _OF_STATUS[400])


def reason_of(response: Response) -> str:
    """Return why a response has no result; empty if it has one."""
    return response.reason or (of_status(response.status) if response.status >= 400 else "")
