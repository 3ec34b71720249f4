"""The attestations at an image in its registry, where anybody who may push attaches others."""

from typing import Final

import msgspec

from mlship.domain import attestation, digests
from mlship.domain.attestation import BUNDLE, Attestation
from mlship.domain.digests import Digest
from mlship.domain.image import Reference
from mlship.domain.referrers import Damaged, Referrers
from mlship.errors import IntegrityError

MOST: Final = 64 << 20
"""Bytes of documents that are kept in memory; each has at most `referrers.LARGEST`."""


class _Kept(msgspec.Struct, frozen=True):
    size: int
    digest: Digest
    attestation: Attestation


def attestations(images: Referrers, image: Reference) -> tuple[list[Attestation], list[str]]:
    """Return what is attested of an image, and why documents at it were not read.

    Nothing is verified. Where all documents have more than `MOST` bytes, the largest are left out,
    so that large documents of others do not displace those that are needed.

    Raises:
        UnavailableError: the registry does not respond or denies access.
        IntegrityError: its list of what is attached is damaged.
    """
    kept: list[_Kept] = []
    problems: list[str] = []
    size = 0
    for referrer in images.attached(image, BUNDLE):
        name = _name(referrer.digest)
        if isinstance(referrer, Damaged):
            problems.append(f"{name} is damaged: {referrer.problem}")
            continue
        data = referrer.document.data
        try:
            kept.append(_Kept(len(data), referrer.digest, attestation.read(data)))
        except IntegrityError as error:
            problems.append(f"{name} is {error.message}")
            continue
        size += len(data)
        while size > MOST:
            largest = max(kept, key=lambda each: each.size)
            kept.remove(largest)
            size -= largest.size
            problems.append(_left_out(largest))
    return [each.attestation for each in kept], problems


def _name(digest: str) -> str:
    short = digests.short(Digest(digest))
    return f"document {short if short.isalnum() else repr(short)}"


def _left_out(document: _Kept) -> str:
    name = _name(document.digest)
    return f"{name} is left out: all documents together are larger than {MOST >> 20} MiB"
