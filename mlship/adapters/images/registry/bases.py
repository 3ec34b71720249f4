"""What registries say of base images."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

from mlship.adapters.images.build.manifests import Base
from mlship.adapters.images.registry.registries import Registries
from mlship.domain.bases import BaseImage
from mlship.domain.image import Platform, Reference
from mlship.errors import IntegrityError

_LABELS: Final = {
    "org.opencontainers.image.version": "version",
    "org.opencontainers.image.base.name": "based on",
}
"""Of https://github.com/opencontainers/image-spec/blob/v1.1.0/annotations.md."""


class RegistryBases:
    """The port `Bases`."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    def describe(
        self, image: Reference, platforms: Sequence[Platform]
    ) -> Mapping[Platform, BaseImage]:
        """Return what a reference means now, on each platform; see `Bases`."""
        with closing(self._registries):
            bases = self._registries.base(image, platforms)
        return {platform: _described(base, platform) for platform, base in bases.items()}


def _described(base: Base, platform: Platform) -> BaseImage:
    config, manifest = base.configuration, base.manifest
    if base.reference.digest is None:
        raise IntegrityError(f"{base.reference} has no digest", hint="run the command again")
    labels = {**(manifest.annotations or {}), **((config.config and config.config.labels) or {})}
    return BaseImage(
        digest=base.reference.digest,
        platform=platform,
        created=config.created or "",
        python=config.environment.get("PYTHON_VERSION", ""),
        size=sum(layer.size for layer in manifest.layers),
        labels={_LABELS[name]: text for name, text in labels.items() if name in _LABELS},
    )
