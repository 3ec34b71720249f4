"""Documents attached to an image of a registry, by the OCI distribution API, version 1.1.

A document is an image manifest whose `subject` is the image. A registry with the Referrers API
lists it under the image. Other registries ignore `subject`: there an index has the list, under a
tag that follows from the image's digest, as the specification says. Tags have no compare-and-set in
most registries, so two writers that have read the same index would remove each other's entry:

1. Each document gets a tag of its own first, which nobody writes with another content.
2. The index is written with all that it had, and with all documents that have such a tag.
3. The tags and the index are read again, and 2. is repeated until no document is missing.

So the last index is complete when its writer ends: whoever ended before wrote the tag of 1. before
that index, and 3. would have found it. After a crash before 3., mlship still finds documents by
their tags, and the next writer completes the index for other tools.
https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import httpx
import msgspec

from mlship.adapters.http import bodies
from mlship.adapters.images.build.manifests import INDEX, MANIFEST, Descriptor, describe
from mlship.adapters.images.registry.client import Ask
from mlship.adapters.images.registry.registry import Registry, Stored
from mlship.adapters.images.registry.uploads import Content, pull, push
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Reference
from mlship.domain.referrers import LARGEST, Damaged, Document, Referrer
from mlship.errors import IntegrityError, NotFoundError, UnavailableError

_EMPTY: Final = b"{}"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_ROUNDS: Final = 20
"""So many times an index is written at most, while others write it too."""
_INDEX_MOST: Final = 4 << 20
"""The largest index that registries must accept, in bytes."""
_LISTED_MOST: Final = 10_000
_PAGES_MOST: Final = 100
_LISTING: Final = 120.0
"""Seconds after which no further page of a list is asked for."""
_READ_MOST: Final = 1_000
"""So many documents of one type are read at most."""
_WITHOUT_API: Final = {400, 401, 403, 404, 405, 406, 501}
"""Statuses with which registries, and proxies before them, answer requests for the list."""
_DIGITS: Final = 40
"""Of a document's digest in its tag, which has at most 128 characters."""


class _Entry(Descriptor, frozen=True, kw_only=True, rename="camel"):
    """A manifest as an index lists it."""

    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class _Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    media_type: str = ""
    manifests: tuple[_Entry, ...]


class _Attached(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The manifest of a document; `artifact_type` is optional in the specification."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class _Tagged(msgspec.Struct, frozen=True, kw_only=True):
    """The index under the tag of an image; `text` is its JSON, with fields of other tools."""

    text: dict[str, Any]
    entries: tuple[_Entry, ...]
    etag: str = ""


class RegistryReferrers:
    """The documents attached to one image.

    Args:
        registry: that has the image.
        image: by digest.
    """

    def __init__(self, registry: Registry, image: Reference) -> None:
        self._registry = registry
        self._exchange = registry.exchange
        self._image = image
        self._digest = image.digest or Digest("")
        name = self._digest.replace(":", "-")
        self._tag, self._own_tags = image.tagged(name), f"{name}.mlship-"

    def attach(self, document: Document) -> Digest:
        """Attach a document, unless it is attached already; see `ports.Images`."""
        manifest = _manifest(self._subject(), document)
        entry = _entry(manifest)
        by_api = self._by_api(document.artifact_type)
        if any(listed.digest == entry.digest for listed in by_api or ()):
            return entry.digest
        own = self._image.tagged(f"{self._own_tags}{_digits(entry.digest)}")
        # Some registries answer the request for the list, but list nothing.
        if not by_api and not self._missing(self._index(), entry, must_have=own.tag):
            return entry.digest
        for blob in (_EMPTY, document.data):
            self._registry.bring(self._image.repository, _content(blob))
        place = own if by_api is None else self._image.at(entry.digest)
        if self._registry.put_manifest(place, manifest, MANIFEST):
            return entry.digest
        if place != own:
            self._registry.put_manifest(own, manifest, MANIFEST)
        self._list(entry)
        return entry.digest

    def attached(self, artifact_type: str) -> Iterator[Referrer | Damaged]:
        """Yield the documents of one type; see `ports.Images`."""
        entries = self._by_api(artifact_type)
        if not entries:
            index = self._index()
            entries = (*index.entries, *self._missing(index))
        # Whoever lists a document again, with another size, does not hide it.
        unique = {(entry.digest, entry.size): entry for entry in entries}
        chosen = [each for each in unique.values() if each.artifact_type in ("", artifact_type)]
        if len(chosen) > _READ_MOST:
            message = f"{self._image} has more than {_READ_MOST} documents {artifact_type}"
            raise IntegrityError(message, hint="remove those that nobody needs")
        for entry in chosen:
            try:
                document = self._read(entry, artifact_type)
            except (IntegrityError, NotFoundError) as error:
                yield Damaged(digest=entry.digest, problem=error.message)
            else:
                if document is not None:
                    yield document

    def _subject(self) -> Descriptor:
        stored = self._registry.manifest(self._image)
        if stored is None:
            message = f"{self._image} does not exist"
            raise NotFoundError(message, hint="run `mlship push-to-registry`")
        return describe(stored.data, stored.media_type)

    def _by_api(self, artifact_type: str) -> tuple[_Entry, ...] | None:
        """Return what the registry lists itself; `None` without the Referrers API."""
        path = f"/v2/{self._image.repository}/referrers/{self._digest}"
        place: httpx.URL | None = self._exchange.url.join(path)
        place = place.copy_add_param("artifactType", artifact_type) if place else None
        scope, found = pull(self._image.repository), dict[tuple[Digest, int], _Entry]()
        monotonic, pages = self._exchange.timing.monotonic, 0
        end = monotonic() + _LISTING
        while place is not None:
            if pages == _PAGES_MOST or monotonic() > end:
                raise self._endless(pages)
            pages += 1
            ask = Ask(method="GET", url=place, scope=scope, headers={"Accept": INDEX})
            response = self._exchange.send(ask, may_be_denied=True)
            if response.status_code in _WITHOUT_API:
                return None
            if response.status_code != 200:
                raise self._exchange.failure(response, f"referrers of {self._image}")
            index = _decoded(response.content)
            if index is None or index.media_type not in ("", INDEX):
                return None
            listed = {(entry.digest, entry.size): entry for entry in index.manifests}
            is_new = bool(listed.keys() - found.keys())
            found |= listed
            self._check_number(len(found))
            # A list that goes round brings nothing new.
            place = self._registry.next_page(response) if is_new else None
        return tuple(found.values())

    def _index(self) -> _Tagged:
        """Return the index under the image's tag, an empty one if there is none.

        Raises:
            IntegrityError: the tag has something else.
        """
        path = f"/v2/{self._tag.repository}/manifests/{self._tag.wanted}"
        ask = Ask(
            method="GET", url=path, scope=pull(self._tag.repository), headers={"Accept": INDEX}
        )
        response = self._exchange.send(ask)
        if response.status_code == 404:
            empty = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
            return _Tagged(text=empty, entries=())
        if response.status_code != 200:
            raise self._exchange.failure(response, str(self._tag))
        index = _decoded(response.content)
        text = _fields(response.content)
        if index is None or text is None or index.media_type not in ("", INDEX):
            message = f"tag {self._tag} is not an index of what is attached to the image"
            raise IntegrityError(message, hint="delete the tag; mlship writes it again")
        self._check_number(len(index.manifests))
        etag = response.headers.get("ETag", "")
        return _Tagged(
            text=text,
            entries=index.manifests,
            etag="" if etag.startswith("W/") else etag,
        )

    def _missing(
        self, index: _Tagged, own: _Entry | None = None, must_have: str | None = None
    ) -> list[_Entry]:
        """Return the documents that an index lacks: the own one, and those that have a tag.

        Args:
            index: as it was read.
            own: the document that is attached; a list of tags may be too old to have it.
            must_have: without this tag, the own one counts as missing.
        """
        tags = set(self._registry.tags(self._image.repository))
        listed = {_digits(entry.digest) for entry in index.entries}
        missing: dict[Digest, _Entry] = {}
        if own and (_digits(own.digest) not in listed or (must_have and must_have not in tags)):
            missing[own.digest] = own
        for tag in sorted(tags):
            digits = tag.removeprefix(self._own_tags)
            if tag.startswith(self._own_tags) and digits not in listed:
                entry = self._tagged_entry(tag, digits)
                if entry is not None:
                    missing[entry.digest] = entry
        return list(missing.values())

    def _tagged_entry(self, tag: str, digits: str) -> _Entry | None:
        """Return the document of a tag; `None` if it was removed, or is not what its tag says."""
        stored = self._registry.manifest(self._image.tagged(tag))
        if stored is None or _digits(stored.digest) != digits:
            return None
        attached = _document(stored)
        is_own = attached and attached.subject and attached.subject.digest == self._digest
        return _entry(stored.data) if is_own else None

    def _list(self, own: _Entry) -> None:
        """Write the index until it has the own document, and all others that have a tag.

        Raises:
            ConflictError: the registry does not allow the tag to be changed.
            UnavailableError: others changed it each time.
        """
        timing, patience = self._exchange.timing, self._exchange.patience
        for number in range(_ROUNDS):
            index = self._index()
            missing = self._missing(index, own)
            if not missing:
                return
            if number:
                timing.pause(patience.back_off(number, timing.chance()))
            self._write(index, missing, is_last=number == _ROUNDS - 1)
        message = f"other processes changed tag {self._tag} {_ROUNDS} times"
        raise UnavailableError(message, hint="run it again")

    def _write(self, index: _Tagged, missing: list[_Entry], *, is_last: bool) -> None:
        entries = [*index.text["manifests"], *map(_plain, missing)]
        self._check_number(len(entries))
        data = digests.canonical_json({**index.text, "mediaType": INDEX, "manifests": entries})
        if len(data) > _INDEX_MOST:
            message = f"the list of what is attached to {self._image} is larger than 4 MiB"
            raise UnavailableError(message, hint="remove documents that nobody needs")
        # Few registries compare; those that do not ignore the header.
        headers = {"If-Match": index.etag} if index.etag else {}
        ask = Ask(
            method="PUT",
            url=f"/v2/{self._tag.repository}/manifests/{self._tag.wanted}",
            scope=push(self._tag.repository),
            body=data,
            headers={"Content-Type": INDEX, **headers},
        )
        response = self._exchange.send(ask)
        was_changed = response.status_code == 412 and not is_last
        if response.status_code not in (200, 201, 202) and not was_changed:
            raise self._exchange.failure(response, f"tag {self._tag}")

    def _read(self, entry: _Entry, artifact_type: str) -> Referrer | None:
        """Return a listed document; `None` if it is of another type, or another tool's form.

        Raises:
            IntegrityError, NotFoundError: it is not what the list says.
        """
        stored = self._registry.manifest(self._image.at(digests.parse(entry.digest)))
        if stored is None:
            raise _damaged("it is listed, but does not exist")
        attached = _document(stored)
        if attached is None or (attached.artifact_type or attached.config.media_type) != (
            artifact_type
        ):
            return None
        if attached.subject is None or attached.subject.digest != self._digest:
            raise _damaged("it belongs to another image than it is listed with")
        if len(attached.layers) != 1:
            return None
        (layer,) = attached.layers
        if layer.size > LARGEST:
            raise _damaged(f"it is larger than {LARGEST >> 20} MiB")
        data = self._registry.small_blob(
            self._image.repository, digests.parse(layer.digest), LARGEST
        )
        if (len(stored.data), len(data)) != (entry.size, layer.size):
            raise _damaged("it has another size than it is listed with")
        document = Document(
            artifact_type=artifact_type,
            media_type=layer.media_type,
            data=data,
            annotations=attached.annotations or {},
        )
        return Referrer(digest=stored.digest, document=document)

    def _endless(self, pages: int) -> UnavailableError:
        message = f"{self._exchange.host} did not end the list of what is attached to "
        message += f"{self._image} after {pages} pages"
        return UnavailableError(message, hint="ask the registry's operator")

    def _check_number(self, number: int) -> None:
        if number > _LISTED_MOST:
            message = f"{self._exchange.host} lists more than {_LISTED_MOST} documents attached to "
            raise IntegrityError(f"{message}{self._image}", hint="remove those that nobody needs")


def _manifest(subject: Descriptor, document: Document) -> bytes:
    """Return the manifest that attaches a document; the same document gives the same bytes."""
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": document.artifact_type,
        "config": describe(_EMPTY, _EMPTY_TYPE),
        "layers": [describe(document.data, document.media_type)],
        "subject": subject,
    }
    notes = {"annotations": document.annotations} if document.annotations else {}
    return digests.canonical_json(manifest | notes)


def _entry(manifest: bytes) -> _Entry:
    """Return how an index lists the manifest of a document."""
    attached = msgspec.json.decode(manifest, type=_Attached)
    described = describe(manifest, MANIFEST)
    return _Entry(
        media_type=MANIFEST,
        digest=described.digest,
        size=described.size,
        artifact_type=attached.artifact_type or attached.config.media_type,
        annotations=attached.annotations,
    )


def _plain(entry: _Entry) -> Mapping[str, Any]:
    fields = msgspec.to_builtins(entry)
    return {name: value for name, value in fields.items() if value}


def _document(stored: Stored) -> _Attached | None:
    """Return the manifest of a document; `None` if it is something else."""
    try:
        return bodies.decoded(stored.data, _Attached)
    except msgspec.DecodeError:
        return None


def _decoded(content: bytes) -> _Index | None:
    try:
        return bodies.decoded(content, _Index) if len(content) <= _INDEX_MOST else None
    except msgspec.DecodeError:
        return None


def _fields(content: bytes) -> dict[str, Any] | None:
    """Return all fields of an index; text that `_Index` passes over may be no UTF-8."""
    try:
        return bodies.decoded(content, dict[str, Any])
    except msgspec.DecodeError:
        return None


def _damaged(problem: str) -> IntegrityError:
    return IntegrityError(problem, hint="ask the registry's operator")


def _digits(digest: Digest) -> str:
    return digest.removeprefix("sha256:")[:_DIGITS]


def _content(data: bytes) -> Content:
    described = describe(data, "")
    return Content(digest=described.digest, size=described.size, read=partial(_from, data))


def _from(data: bytes, offset: int) -> Iterator[bytes]:
    yield data[offset:]
