"""The contents of an image: pinned dependencies, mlship's runtime, and the bundle."""

from pathlib import Path
from typing import Final

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlship.adapters.images.build.layers import Member, of_file
from mlship.config import sources
from mlship.config.installation import DISTRIBUTION, MODULE
from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.image import Platform
from mlship.errors import ProjectError

DEPENDENCIES: Final = "opt/mlship/dependencies"
RUNTIME: Final = "opt/mlship/runtime"
BUNDLE: Final = "bundle"
_FORMAT = 1
"""Part of a lock's digest: increase it if wheels are unpacked differently."""


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a dependency layer; its digest identifies the layer.

    Attributes:
        pins: `name==version`, sorted by name.
        python: the minor version of Python, such as `3.11`.
    """

    pins: tuple[str, ...]
    platform: Platform
    python: str
    format: int = _FORMAT

    @property
    def digest(self) -> Digest:
        """The digest of all fields."""
        return digests.of_value(self)


def lock(bundle: Bundle, platform: Platform) -> Lock:
    """Return the packages to install for serving a bundle on a platform.

    Raises:
        ProjectError: a requirement of the bundle is not pinned.
    """
    pins = _by_name(tuple((Path(__file__).parent / "serving.txt").read_text().splitlines()))
    pins |= _by_name(bundle.requirements)
    # The runtime is in the image as files. A bundle of a former version may pin `mlship`, which on
    # package indexes is another program.
    ordered = tuple(pins[name] for name in sorted(pins) if name not in (MODULE, DISTRIBUTION))
    return Lock(pins=ordered, platform=platform, python=bundle.python)


def _by_name(lines: tuple[str, ...]) -> dict[str, str]:
    pins: dict[str, str] = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise _unpinned(line) from error
        versions = list(requirement.specifier)
        if requirement.url or len(versions) != 1 or versions[0].operator != "==":
            raise _unpinned(line)
        name = canonicalize_name(requirement.name)
        pins[name] = f"{name}=={versions[0].version}"
    return pins


def _unpinned(line: str) -> ProjectError:
    message = f"the bundle requires {line[:120]!r}, which is not pinned as name==version"
    hint = "install a released version of the package, and train again"
    return ProjectError(message, hint=hint)


def runtime() -> dict[str, bytes]:
    """Return the installed files of mlship that serving needs, by their names in an image."""
    return {f"{RUNTIME}/mlship/{name}": data for name, data in sources.of_runtime().items()}


def bundle(folder: Path, manifest: Bundle) -> list[Member]:
    """Return the manifest of a bundle and the files that it lists."""
    names = [bundles.MANIFEST, *manifest.files]
    return [of_file(f"{BUNDLE}/{name}", folder / name) for name in names]
