"""The answer to probes: whether a release is ready, and which it is."""

from typing import Final, NamedTuple

from mlship.runtime import http
from mlship.runtime.faults import Fault
from mlship.runtime.http import Response
from mlship.runtime.jobs import Health
from mlship.runtime.options import Identity

_FAILED: Final = "the model failed its check; the log of the replica has the reason"
"""What clients without an API key are told: the reason has predictions of the model."""


class Readiness(NamedTuple):
    """Whether a service is ready.

    Attributes:
        health: of its workers.
        state: such as `starting` or `ready`.
        failure: why it will never be ready; empty if it may be.
    """

    health: Health
    state: str
    failure: str

    def response(
        self, identity: Identity, ids: tuple[str, str], path: str, *, is_stranger: bool
    ) -> Response:
        """Return the response to a probe.

        Args:
            identity: of the replica.
            ids: the name of the model, and the digest of its bundle.
            path: of the probe; it has the form of errors.
            is_stranger: whether an API key is required and the request has none. Texts from the
                model and its workers are not for such a client.
        """
        name, digest = ids
        failure = _FAILED if self.failure and is_stranger else self.failure
        last_restart = "" if is_stranger else self.health.last_restart
        body = {
            "name": name,
            "ready": self.state == "ready",
            "state": self.state,
            "release": identity.release,
            "slot": identity.slot,
            "bundle": digest,
            "restarts": self.health.restarts,
            "hung": self.health.hung,
            "last_restart": last_restart,
        }
        if self.state == "ready":
            return http.of_json(body)
        message = failure or f"the model is {self.state}"
        if self.state == "restarting" and last_restart:
            message += f": a worker {last_restart}"
        hint = "train again in the serving environment" if failure else "retry later"
        return http.of_json(body | http.error_body(Fault(message=message, hint=hint), path), 503)
