"""The readiness probe of a replica, which also reports its release."""

import http.client

import msgspec

from mlship.adapters.targets.local.loopback import HOST
from mlship.adapters.targets.replica import Answer


def ask(port: int, *, seconds: float) -> Answer | None:
    """Return the response of the replica on a port; `None` without a valid response."""
    connection = http.client.HTTPConnection(HOST, port, timeout=seconds)
    try:
        connection.request("GET", "/v2/health/ready", headers={"Connection": "close"})
        response = connection.getresponse()
        answer = msgspec.json.decode(response.read(), type=Answer)
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    else:
        is_ready = answer.ready and response.status == 200
        return msgspec.structs.replace(answer, ready=is_ready)
    finally:
        connection.close()
