"""What is installed in an image: the Python distributions in its layers."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.image import Image, Platform


class Distribution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An installed Python distribution, as its own metadata describe it.

    Attributes:
        path: of its metadata in the image, without the first `/`.
        expression: its license as an SPDX expression; empty if it names none.
        license: otherwise, its license in its own words.
    """

    name: str
    version: str
    path: str
    expression: str = ""
    license: str = ""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """The distributions of an image on one platform, sorted by name, version and path.

    Attributes:
        unread: layers that are not archives which mlship can read, such as zstd.
    """

    distributions: tuple[Distribution, ...]
    unread: tuple[Digest, ...] = ()


class Inventories(Protocol):
    """Reads what is installed in images."""

    def inventory(self, image: Image) -> Mapping[Platform, Inventory]:
        """Return what is installed in a built image, by platform.

        Layers that are not on this machine are read from their registry, once for each machine.

        Raises:
            UnavailableError: a registry does not respond, or denies access.
            IntegrityError: a layer has another digest.
        """
