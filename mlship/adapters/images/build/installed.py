"""What is installed in an image of this machine; each layer is read once, and remembered."""

from collections.abc import Iterator

import msgspec

from mlship import files
from mlship.adapters.images.build import inventory
from mlship.adapters.images.build.inventory import LayerContents
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.registry.registries import Registries
from mlship.domain import digests
from mlship.domain.image import Image, Layer, PlatformImage
from mlship.domain.inventory import Inventory

_FORMAT = 1
"""Increase it if other contents of a layer are remembered."""


class Installed:
    """Reads the distributions in images.

    Args:
        layout: stores the layers of this machine, and what was read of layers.
        registries: return the registry of a layer that is not on this machine.
    """

    def __init__(self, layout: Layout, registries: Registries) -> None:
        self._layout = layout
        self._registries = registries

    def of(self, image: Image, built: PlatformImage) -> Inventory:
        """Return what is installed in an image on one platform; see `ports.Images.inventory`."""
        return inventory.merged([(each.digest, self._read(image, each)) for each in built.layers])

    def _read(self, image: Image, layer: Layer) -> LayerContents:
        folder = self._layout.folder / "installed"
        path = folder / digests.short(layer.digest)
        try:
            remembered = msgspec.json.decode(path.read_bytes(), type=tuple[int, str, LayerContents])
        except (OSError, msgspec.MsgspecError):
            remembered = None
        if remembered is not None and remembered[:2] == (_FORMAT, layer.digest):
            return remembered[2]
        contents = inventory.of_layer(layer.digest, self._pieces(image, layer))
        folder.mkdir(parents=True, exist_ok=True)
        kept = digests.canonical_json((_FORMAT, layer.digest, contents))
        files.write_atomically(path, kept)
        return contents

    def _pieces(self, image: Image, layer: Layer) -> Iterator[bytes]:
        if self._layout.has(layer.digest, layer.size):
            return self._layout.pieces(layer.digest, 0)
        origin = image.base if layer.role == "base" else self._registries.own()
        return self._registries.of(origin).read_blob(origin.repository, layer.digest)
