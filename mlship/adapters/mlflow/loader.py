"""The code of a model: mlship's runtime in an archive, under a package name that nothing else has.

Python imports a name once per process. Two models of different mlship versions, or a model and an
installed mlship, must not get each other's modules. So the package is named by its content.
"""

import hashlib
import io
import re
import zipfile
from functools import cache
from typing import Final

import msgspec

from mlship.config import sources

_IMPORT: Final = re.compile(rb"^(\s*)(from|import) mlship\b", re.MULTILINE)
_TIME: Final = (1980, 1, 1, 0, 0, 0)


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """A zip archive with one package, which Python can import from it.

    Attributes:
        package: its name, such as `mlship_3f9a0c12be77`.
    """

    package: str
    data: bytes


@cache
def archive() -> Archive:
    """Return the runtime of this mlship; the same files make the same bytes."""
    files = sources.of_runtime()
    content = hashlib.sha256()
    for name in sorted(files):
        content.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    package = f"mlship_{content.hexdigest()[:12]}"
    renamed = rb"\1\2 " + package.encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as written:
        for name in sorted(files):
            data = _IMPORT.sub(renamed, files[name]) if name.endswith(".py") else files[name]
            written.writestr(
                zipfile.ZipInfo(f"{package}/{name}", _TIME), data, zipfile.ZIP_DEFLATED
            )
    return Archive(package=package, data=target.getvalue())
