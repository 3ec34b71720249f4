"""The layer of an image's packages, built once in a run of tests and copied by every other build.

To download, unpack and compress the packages of a small image takes ten seconds of a processor,
and each project of the tests has other folders and another repository, so it finds none.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from mlship.adapters.images.build import image_layers
from mlship.adapters.images.build.contents import Lock
from mlship.adapters.images.build.image_layers import Fetch
from mlship.adapters.images.build.layers import Blob
from mlship.adapters.images.build.layout import Layout

_PIP: Final = "PIP_"
_build = image_layers.build


class Shared:
    """Builds layers in place of `image_layers.build`.

    Args:
        folder: what workers share.
        environment: whose settings of pip the packages come by; with others, a layer is built.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._settings = _of_pip(environment)

    def build(self, lock: Lock, layout: Layout, fetch: Fetch) -> Blob:
        """Build a layer, or copy the one that was built."""
        if not _of_pip(os.environ).items() <= self._settings.items():
            return _build(lock, layout, fetch)
        kept = self._folder / lock.digest.removeprefix("sha256:")
        kept.mkdir(parents=True, exist_ok=True)
        record, file = kept / "blob.json", kept / "blob"
        with (kept / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not record.exists():
                blob = _build(lock, layout, fetch)
                shutil.copyfile(layout.path(blob.digest), file)
                record.write_bytes(msgspec.json.encode(blob))
                return blob
        blob = msgspec.json.decode(record.read_bytes(), type=Blob)
        with tempfile.NamedTemporaryFile(dir=layout.blobs, prefix=".layer-") as draft:
            shutil.copyfile(file, draft.name)
            Path(draft.name).chmod(0o644)
            with suppress(FileExistsError):
                os.link(draft.name, layout.path(blob.digest))
        return blob


def share(folder: Path, environment: Mapping[str, str]) -> None:
    """Let commands of this process build their layers once for all workers."""
    image_layers.__dict__["build"] = Shared(folder, environment).build


def _of_pip(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_PIP)}
