"""Asks a replica whether it is ready, and whose replica it is."""

import http.client

import msgspec

from mlship.adapters.targets.local.loopback import HOST


class _Fault(msgspec.Struct, frozen=True):
    message: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica says of itself at /v2/health/ready.

    Attributes:
        state: `starting`, `ready`, `draining`, or `failed`: it will never be ready.
        release: the id of the release that it serves; `bundle` the digest of what it loaded.
        error: why it is not ready.
    """

    ready: bool = False
    state: str = ""
    release: str = ""
    bundle: str = ""
    error: _Fault = _Fault()


def ask(port: int, *, seconds: float) -> Answer | None:
    """Return what the replica on a port says of itself; `None` when nothing sensible answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=seconds)
    try:
        connection.request("GET", "/v2/health/ready", headers={"Connection": "close"})
        response = connection.getresponse()
        answer = msgspec.json.decode(response.read(), type=Answer)
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return None
    else:
        is_ready = answer.ready and response.status == 200
        return msgspec.structs.replace(answer, ready=is_ready)
    finally:
        connection.close()
