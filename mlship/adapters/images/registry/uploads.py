"""Uploads of blobs to a registry: mounted if possible, resumed if interrupted."""

import re
from collections.abc import Callable, Iterator
from typing import Literal

import httpx
import msgspec

from mlship.adapters.http.door import NoAnswerError, tried
from mlship.adapters.images.registry import faults
from mlship.adapters.images.registry.client import Ask, Exchange
from mlship.domain.digests import Digest
from mlship.errors import UnavailableError

_BEGUN = 5
"""How many times an upload is started, and resumed."""
_WHOLE = 1 << 20
"""Blobs up to this size, in bytes, are sent in one request."""
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_OCTETS = {"Content-Type": "application/octet-stream"}

Fate = Literal["there", "mounted", "sent"]


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A blob to send. `read(offset)` yields its bytes from an offset on."""

    digest: Digest
    size: int
    read: Callable[[int], Iterator[bytes]]


def pull(repository: str) -> str:
    """Return the scope for reading a repository."""
    return f"repository:{repository}:pull"


def push(repository: str) -> str:
    """Return the scope for reading and writing a repository."""
    return f"repository:{repository}:pull,push"


def upload(exchange: Exchange, repository: str, content: Content, mount_from: str | None) -> Fate:
    """Upload a blob that a repository does not have.

    Args:
        exchange: with the registry.
        repository: the repository.
        content: is read only if it must be sent.
        mount_from: a repository of the same registry that has the blob.

    Raises:
        UnavailableError: the registry does not answer, denies access, or interrupts every upload.
        NotFoundError: the registry has no such repository.
    """
    attempt = _Upload(exchange, repository, content)
    for _ in range(_BEGUN):
        place = attempt.begin(mount_from)
        if place is None:
            return "mounted"
        # Some registries discard an interrupted upload: it is started again.
        if attempt.finish(place):
            return "sent"
    message = f"{exchange.host} interrupted {_BEGUN} uploads of {content.digest}{attempt.said}"
    raise UnavailableError(message, hint="check the network and the registry's disk; push again")


class _Upload:
    def __init__(self, exchange: Exchange, repository: str, content: Content) -> None:
        self._exchange = exchange
        self._repository = repository
        self._content = content
        self._what = f"blob {content.digest} in {repository}"
        self.said = ""
        """The registry's error message, if it sent one."""

    def begin(self, mount_from: str | None) -> httpx.URL | None:
        """Start an upload and return its URL, or `None` if the blob was mounted."""
        path, scope = f"/v2/{self._repository}/blobs/uploads/", push(self._repository)
        if mount_from:
            path += f"?mount={self._content.digest}&from={mount_from}"
            scope += f" {pull(mount_from)}"
        answer = self._exchange.send(Ask(method="POST", url=path, scope=scope))
        if answer.status_code == 201:
            return None
        if answer.status_code != 202:
            raise self._exchange.failure(answer, f"repository {self._repository}")
        return self._place(answer)

    def finish(self, place: httpx.URL) -> bool:
        """Send the bytes of an upload; return whether the registry has them all.

        As in Docker's own client, they go in one PATCH, which every registry supports. If that is
        interrupted, the registry is asked for its offset.
        """
        offset = 0
        if self._content.size > _WHOLE:
            for _ in range(_BEGUN):
                reached = self._continue(place, offset)
                if reached is None:
                    return False
                place, offset = reached
                if offset >= self._content.size:
                    break
            else:
                return False
        return self._close(place, offset)

    def _continue(self, place: httpx.URL, offset: int) -> tuple[httpx.URL, int] | None:
        """Send from an offset on; return the URL and the new offset, `None` if it was discarded."""
        size = self._content.size
        headers = _OCTETS | {"Content-Length": str(size - offset)}
        if offset:
            headers["Content-Range"] = f"{offset}-{size - 1}"
        ask = self._ask("PATCH", place, lambda: self._content.read(offset), headers)
        try:
            # Repeated only if the registry did not act on it: then it has no byte of it.
            answer = self._exchange.send(ask, repeat="idempotent")
        except UnavailableError as error:
            if not isinstance(error.__cause__, NoAnswerError):
                raise
            return self._status(place)
        if answer.status_code in (202, 204):
            return self._place(answer), _reached(answer, size)
        if answer.status_code in (404, 416) or answer.status_code >= 500:
            self.said = faults.words(answer)[1]
            return self._status(place)
        raise self._exchange.failure(answer, self._what)

    def _status(self, place: httpx.URL) -> tuple[httpx.URL, int] | None:
        """Return the URL and the offset of an upload, `None` if the registry discarded it."""
        answer = self._exchange.send(self._ask("GET", place))
        if answer.status_code != 204:
            return None
        return self._place(answer), _reached(answer, 0)

    def _close(self, place: httpx.URL, offset: int) -> bool:
        content = self._content
        rest = b"".join(content.read(offset)) if offset < content.size else b""
        named = place.copy_add_param("digest", content.digest)
        answer = self._exchange.send(self._ask("PUT", named, rest, _OCTETS))
        if answer.status_code in (201, 204):
            return True
        # What was sent before the request was repeated may have been kept, and is now too much.
        if answer.status_code in (404, 416) or (answer.status_code == 400 and tried(answer)):
            self.said = faults.words(answer)[1]
            return False
        raise self._exchange.failure(answer, self._what)

    def _ask(
        self,
        method: str,
        place: httpx.URL,
        body: bytes | Callable[[], Iterator[bytes]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Ask:
        scope = push(self._repository)
        return Ask(method=method, url=place, scope=scope, body=body, headers=headers or {})

    def _place(self, answer: httpx.Response) -> httpx.URL:
        location = answer.headers.get("Location")
        if not location:
            message = f"{self._exchange.host} returned no Location for an upload"
            raise UnavailableError(message, hint="ask the registry's operator")
        return answer.url.join(location)


def _reached(answer: httpx.Response, otherwise: int) -> int:
    """Return how many bytes a registry has: Range has the last of them, `0-1023`."""
    match = _RANGE.fullmatch(answer.headers.get("Range", ""))
    if not match:
        return otherwise
    # `0-0` means that it has none; no blob of one byte is sent in pieces.
    return int(match[1]) + 1 if match[1] != "0" else 0
