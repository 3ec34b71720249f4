"""Documents attached to an image in its registry, such as its SBOM: OCI referrers."""

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.image import Reference

CYCLONEDX: Final = "application/vnd.cyclonedx+json"

PREDICATE: Final = "in-toto.io/predicate-type"
"""The annotation that says what an in-toto Statement is about."""

LARGEST: Final = 32 << 20
"""The largest document, in bytes."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document to attach to an image; `data` is stored unchanged.

    Attributes:
        artifact_type: what it is, by which it is found; also where `data` is signed.
        media_type: of `data`.
        annotations: for those who list what is attached; nobody verifies them.
    """

    artifact_type: str
    media_type: str
    data: bytes
    annotations: dict[str, str] = {}


class Referrer(msgspec.Struct, frozen=True, kw_only=True):
    """A document that was read from a registry: all of it is untrusted.

    Attributes:
        digest: of the manifest that attaches it.
    """

    digest: Digest
    document: Document


class Damaged(msgspec.Struct, frozen=True, kw_only=True):
    """A document that a registry lists as attached to an image, but that cannot be read.

    Attributes:
        digest: with which it is listed, which may be none.
        problem: a sentence about it, for people.
    """

    digest: str
    problem: str


class Referrers(Protocol):
    """The documents attached to images. Methods raise UnavailableError if the registry refuses."""

    def attach(self, image: Reference, document: Document) -> Digest:
        """Attach a document to an image of a registry; return the digest of its manifest.

        A document that is attached already is not written again. Documents that others attach at
        the same time stay.

        Args:
            image: by digest.
            document: the document.

        Raises:
            NotFoundError: the registry does not have the image.
            ConflictError: the registry does not allow the list of documents to be changed.
        """

    def attached(self, image: Reference, artifact_type: str) -> Iterator[Referrer | Damaged]:
        """Yield the documents of one type that are attached to an image, each when it is read.

        Whoever may write to the registry may attach damaged documents: one that does not exist, has
        another digest, size or image than it is listed with, or is larger than `LARGEST`.

        Raises:
            IntegrityError: the list of documents is damaged, or too long.
        """
