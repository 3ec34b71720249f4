"""Whether a gateway's proxies apply a route as it is written: seen in their answers.

A controller says that it has accepted a route before every proxy has it: milliseconds before, or a
minute where the gateway is a cloud's load balancer. So the route makes answers name it.
"""

import time
from typing import Final

import httpx

from mlship.errors import UnavailableError

HEADER: Final = "mlship-route"
_SECONDS = 90.0
_UNNAMED_SECONDS = 5.0
_SETTLE_SECONDS = 0.5
_TIMEOUT = 2.0
_PAUSE = 0.02
_AGREEING = 5


def wait(endpoint: str, name: str) -> bool:
    """Wait until answers name the route; tell whether it was seen.

    Where the endpoint cannot be asked from here, or something in front of it takes the header
    away, half a second passes instead.

    Args:
        endpoint: where requests go in.
        name: the value of the header `mlship-route`.

    Raises:
        UnavailableError: after 90 s answers still name another route.
    """
    started = time.monotonic()
    agreeing = 0
    while time.monotonic() - started < _SECONDS:
        try:
            # A connection each: another one may be another proxy's.
            answer = httpx.get(f"{endpoint}/v2/health/live", timeout=_TIMEOUT)
        except httpx.HTTPError:
            return _settled()
        named = answer.headers.get(HEADER)
        agreeing = agreeing + 1 if named == name else 0
        if agreeing == _AGREEING:
            return True
        if named is None and time.monotonic() - started > _UNNAMED_SECONDS:
            return _settled()
        if not agreeing:
            time.sleep(_PAUSE)
    message = f"the gateway has accepted the route, but {endpoint} still answers by another one"
    raise UnavailableError(
        message, hint="look at the gateway's proxies, then run the command again"
    )


def _settled() -> bool:
    time.sleep(_SETTLE_SECONDS)
    return False
