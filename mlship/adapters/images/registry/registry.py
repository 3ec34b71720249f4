"""A registry of images: manifests and blobs by the OCI distribution API, version 1.1.

https://github.com/opencontainers/distribution-spec. Blobs are asked for before they are sent,
taken over from another repository of the same registry where it has them, and an upload that
broke goes on where the registry says that it stopped.
"""

from collections.abc import Iterator
from typing import Final

import httpx
import msgspec

from mlship.adapters.http import bodies
from mlship.adapters.http.door import NoAnswerError
from mlship.adapters.http.downloads import pieces
from mlship.adapters.images.build.manifests import DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST
from mlship.adapters.images.registry.client import DENIED, Ask, Exchange
from mlship.adapters.images.registry.uploads import Content, Fate, pull, push, upload
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Reference, check
from mlship.errors import IntegrityError, UnavailableError

PIECE: Final = 1 << 18
_SMALL: Final = 64 << 20
"""The largest blob that is read into memory, in bytes."""
_MOST_TAGS: Final = 1_000_000
_PAGE: Final = 1000
"""So many tags are asked for at once; a registry may give fewer."""
_ACCEPTED = f"{INDEX}, {MANIFEST}, {DOCKER_INDEX}, {DOCKER_MANIFEST}"


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest in a registry."""

    data: bytes
    media_type: str
    digest: Digest


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Registry:
    """One registry's repositories, through an `Exchange`."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def manifest(self, reference: Reference) -> Stored | None:
        """Return the manifest or index of a reference; `None` if it does not exist.

        Raises:
            UnavailableError: the registry does not answer, or denies access.
            IntegrityError: its bytes have another digest.
        """
        path = f"/v2/{reference.repository}/manifests/{reference.wanted}"
        response = self._ask("GET", path, pull(reference.repository), {"Accept": _ACCEPTED})
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise self.exchange.failure(response, str(reference))
        digest = reference.digest or digests.of_bytes(response.content)
        data = check(response.content, digest, str(reference))
        kind = response.headers.get("Content-Type", MANIFEST).partition(";")[0].strip()
        return Stored(data=data, media_type=kind, digest=digest)

    def tagged(self, reference: Reference) -> Digest | None:
        """Return the current digest of a tag, without downloading its manifest.

        Raises:
            UnavailableError: the registry does not answer, or denies access.
        """
        path = f"/v2/{reference.repository}/manifests/{reference.wanted}"
        response = self._ask("HEAD", path, pull(reference.repository), {"Accept": _ACCEPTED})
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise self.exchange.failure(response, str(reference))
        digest = response.headers.get("Docker-Content-Digest")
        if digest:
            return digests.parse(digest)
        stored = self.manifest(reference)
        return stored.digest if stored else None

    def put_manifest(self, reference: Reference, data: bytes, media_type: str) -> bool:
        """Write a manifest under a tag or its digest, and read the digest back.

        Returns:
            Whether the registry says that it lists the manifest under its subject.

        Raises:
            UnavailableError: the registry does not answer, or denies access.
            IntegrityError: the registry returns another digest.
        """
        path = f"/v2/{reference.repository}/manifests/{reference.wanted}"
        ask = Ask(
            method="PUT",
            url=path,
            scope=push(reference.repository),
            body=data,
            headers={"Content-Type": media_type},
        )
        response = self.exchange.send(ask)
        if response.status_code not in (200, 201, 202):
            raise self.exchange.failure(response, str(reference))
        stored = self.tagged(reference)
        if stored != digests.of_bytes(data):
            message = f"{reference} was written, but the registry returned {stored}"
            raise IntegrityError(message, hint="another process may write this tag; push again")
        return "OCI-Subject" in response.headers

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Return whether a repository has a blob.

        Raises:
            UnavailableError: the registry does not answer, or denies access.
        """
        path = f"/v2/{repository}/blobs/{digest}"
        response = self._ask("HEAD", path, pull(repository))
        if response.status_code not in (200, 404):
            raise self.exchange.failure(response, f"blob {digest} in {repository}")
        return response.status_code == 200

    def holds_tags(self, repository: str) -> bool:
        """Return whether a repository has tags, with one attempt and with the scope for a push.

        Nothing is written. A registry may refuse a token for pushes to accounts that may not push.

        Raises:
            UnavailableError: the registry does not answer, or denies access.
        """
        path = f"/v2/{repository}/tags/list?n=1"
        response = self.exchange.send(
            Ask(method="GET", url=path, scope=push(repository)), repeat="never"
        )
        if response.status_code == 404:
            return False
        if response.status_code != 200:
            raise self.exchange.failure(response, repository)
        return bool(self._listed(response))

    def tags(self, repository: str) -> list[str]:
        """Return all tags of a repository; none if it does not exist.

        Raises:
            UnavailableError: the registry does not answer, denies access, or returns other lists.
        """
        tags: dict[str, None] = {}
        place: httpx.URL | None = self.exchange.url.join(f"/v2/{repository}/tags/list?n={_PAGE}")
        while place is not None:
            response = self._page(place, repository)
            if response.status_code == 404:
                break
            if response.status_code != 200:
                raise self.exchange.failure(response, repository)
            listed = dict.fromkeys(self._listed(response))
            is_new = bool(listed.keys() - tags.keys())
            tags |= listed
            if len(tags) > _MOST_TAGS:
                message = f"{self.exchange.host} lists more than {_MOST_TAGS} tags of {repository}"
                raise UnavailableError(message, hint="use another repository")
            # A list that goes round brings nothing new.
            place = self.next_page(response) if is_new else None
        return list(tags)

    def _page(self, place: httpx.URL, repository: str) -> httpx.Response:
        """Return a page of tags.

        Some registries deny to read a repository that does not exist yet, as if it were hidden; to
        who may push they say so.
        """
        scope = pull(repository)
        response = self.exchange.send(Ask(method="GET", url=place, scope=scope), may_be_denied=True)
        if response.status_code in DENIED:
            ask = Ask(method="GET", url=place, scope=push(repository))
            other = self.exchange.send(ask, may_be_denied=True)
            if other.status_code not in DENIED:
                return other
        return self.exchange.allowed(response, scope)

    def _listed(self, response: httpx.Response) -> list[str]:
        try:
            return bodies.decoded(response.content, _Tags).tags or []
        except msgspec.DecodeError as error:
            message = f"{self.exchange.url} is not a container registry"
            raise UnavailableError(message, hint="correct image.repository") from error

    def next_page(self, response: httpx.Response) -> httpx.URL | None:
        """Return the URL of the next page of a list; pages of other servers are not asked for.

        Raises:
            UnavailableError: the next page is on another server.
        """
        link = response.links.get("next", {}).get("url")
        if not link:
            return None
        place = response.url.join(link)
        own = self.exchange.url
        if (place.scheme, place.host, place.port) != (own.scheme, own.host, own.port):
            message = (
                f"{self.exchange.host} names another server for the rest of a list: {place.host}"
            )
            raise UnavailableError(message, hint="ask the registry's operator")
        return place

    def _ask(
        self, method: str, path: str, scope: str, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return self.exchange.send(Ask(method=method, url=path, scope=scope, headers=headers or {}))

    def small_blob(self, repository: str, digest: Digest, limit: int = _SMALL) -> bytes:
        """Return a blob that fits into memory after verifying it.

        Args:
            repository: the repository.
            digest: of the blob.
            limit: its largest size, in bytes.

        Raises:
            NotFoundError: the repository has no such blob.
            UnavailableError: the registry does not answer, or denies access.
            IntegrityError: its bytes have another digest, or are too many.
        """
        what = f"blob {digest} in {repository}"
        data = bytearray()
        for piece in self.read_blob(repository, digest):
            data += piece
            if len(data) > limit:
                message = f"{what} is larger than {limit >> 20} MiB"
                raise IntegrityError(message, hint="ask the registry's operator")
        return check(bytes(data), digest, what)

    def read_blob(self, repository: str, digest: Digest, offset: int = 0) -> Iterator[bytes]:
        """Yield a blob's bytes from an offset. The caller verifies the digest of the whole.

        A download that breaks is resumed.

        Raises:
            NotFoundError: the repository has no such blob.
            UnavailableError: the registry does not answer, or denies access.
        """
        scope = pull(repository)

        def open_at(start: int) -> httpx.Response:
            headers = {"Accept-Encoding": "identity"}
            headers |= {"Range": f"bytes={start}-"} if start else {}
            path = f"/v2/{repository}/blobs/{digest}"
            ask = Ask(method="GET", url=path, scope=scope, headers=headers, stream=True)
            response = self.exchange.send(ask)
            if response.status_code not in (200, 206):
                raise self.exchange.failure(response, f"blob {digest} in {repository}")
            return response

        timing = self.exchange.timing
        try:
            yield from pieces(
                open_at, offset=offset, patience=self.exchange.patience, timing=timing
            )
        except NoAnswerError as error:
            raise self.exchange.unreachable(error) from error

    def bring(self, repository: str, content: Content, mount_from: str | None = None) -> Fate:
        """Ensure that a repository has a blob; return how.

        Args:
            repository: the repository.
            content: is read only if it must be sent.
            mount_from: a repository of the same registry that has the blob.

        Raises:
            UnavailableError: the registry does not answer, or denies access.
            NotFoundError: the registry has no such repository.
        """
        if self.has_blob(repository, content.digest):
            return "there"
        return upload(self.exchange, repository, content, mount_from)
