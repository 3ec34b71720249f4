"""A registry of images: manifests and blobs by the OCI distribution API, version 1.1.

https://github.com/opencontainers/distribution-spec. Blobs are asked for before they are sent,
taken over from another repository of the same registry where it has them, and an upload that
broke goes on where the registry says that it stopped.
"""

from collections.abc import Iterator
from typing import Final

import httpx
import msgspec

from mlship.adapters.http.door import NoAnswerError
from mlship.adapters.http.downloads import pieces
from mlship.adapters.images.build.manifests import DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST
from mlship.adapters.images.registry.client import PATIENCE, Ask, Exchange
from mlship.adapters.images.registry.uploads import Content, Fate, pull, push, upload
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Reference, check
from mlship.errors import IntegrityError, UnavailableError

PIECE: Final = 1 << 18
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

    def put_manifest(self, reference: Reference, data: bytes, media_type: str) -> None:
        """Write a manifest under a tag or its digest, and read the digest back.

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
        try:
            return bool(msgspec.json.decode(response.content, type=_Tags).tags)
        except msgspec.DecodeError as error:
            message = f"{self.exchange.url} is not a container registry"
            raise UnavailableError(message, hint="correct image.repository") from error

    def _ask(
        self, method: str, path: str, scope: str, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return self.exchange.send(Ask(method=method, url=path, scope=scope, headers=headers or {}))

    def small_blob(self, repository: str, digest: Digest) -> bytes:
        """Return a blob of some kilobytes after verifying it.

        Raises:
            NotFoundError: the repository has no such blob.
            UnavailableError: the registry does not answer, or denies access.
            IntegrityError: its bytes have another digest.
        """
        data = b"".join(self.read_blob(repository, digest))
        return check(data, digest, f"blob {digest} in {repository}")

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
            yield from pieces(open_at, offset=offset, patience=PATIENCE, timing=timing)
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
