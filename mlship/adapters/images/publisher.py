"""Pushes the images of this machine's layout, and saves them to files and loads them again."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.registry.push import Delivery
from mlship.adapters.images.registry.registries import Registries
from mlship.domain.image import Image, Pushed, Reference
from mlship.domain.ports import Progress
from mlship.errors import UnavailableError


class Publisher:
    """Publishes images, whoever built them.

    Args:
        layout: stores the images.
        registries: returns the registry of a reference.
        progress: receives progress notes.
        prepare: creates the repository to push to, if necessary.
    """

    def __init__(
        self,
        layout: Layout,
        registries: Registries,
        progress: Progress,
        prepare: Callable[[Reference], None] | None = None,
    ) -> None:
        self._layout = layout
        self._registries = registries
        self._progress = progress
        self._prepare = prepare

    def push(self, image: Image) -> Pushed:
        """Push a built image to the registry; see `ports.Images`."""
        target = self._registries.own()
        if self._prepare is not None:
            self._prepare(target)
        with closing(self._registries):
            return self._delivery(image).push(target)

    def save(self, image: Image, into: Path) -> None:
        """Write a complete image to a file; see `ports.Images`."""
        try:
            with closing(self._registries):
                self._delivery(image).complete()
            into.parent.mkdir(parents=True, exist_ok=True)
            self._layout.tarball(image, into)
        except OSError as error:
            message = f"cannot write {into}: {error.strerror or error}"
            raise UnavailableError(
                message, hint="free disk space there, or choose another file"
            ) from error

    def load(self, image: Image, archive: Path) -> None:
        """Load a file that `save` wrote; see `ports.Images`."""
        self._layout.prepare()
        self._layout.load(image, archive)
        self._layout.name(image)

    def _delivery(self, image: Image) -> Delivery:
        return Delivery(image, self._layout, self._registries, self._progress)
