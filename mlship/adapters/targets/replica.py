"""What a replica says of itself at /v2/health/ready."""

import msgspec


class _Fault(msgspec.Struct, frozen=True):
    message: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The response of a replica at /v2/health/ready.

    Attributes:
        state: `starting`, `ready`, `draining`, or `failed` if it will never be ready.
        release: the id of the release that it serves; `bundle` is the digest of its bundle.
        error: why it is not ready: a text, or an object in versions that had no V2 clients.
        restarts: how many of its workers were started again; `None` in versions without workers.
        hung: how many of them did not answer.
        last_restart: why the last one was started again.
    """

    ready: bool = False
    state: str = ""
    release: str = ""
    bundle: str = ""
    error: str | _Fault = ""
    restarts: int | None = None
    hung: int | None = None
    last_restart: str = ""

    @property
    def problem(self) -> str:
        """Why it is not ready; empty if it does not say."""
        return self.error if isinstance(self.error, str) else self.error.message
