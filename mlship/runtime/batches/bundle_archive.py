"""A bundle as one file, for the workers of an engine."""

import io
import shutil
import tempfile
import zipfile
from pathlib import Path


def packed(bundle: Path) -> bytes:
    """Return an archive of a bundle."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(shutil.make_archive(f"{folder}/bundle", "zip", bundle)).read_bytes()


def unpacked(archive: bytes) -> Path:
    """Return a new folder with the bundle of an archive; it stays as long as the machine."""
    folder = Path(tempfile.mkdtemp(prefix="mlship-bundle-"))
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        file.extractall(folder)
    return folder
