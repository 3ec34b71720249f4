"""Bases of images for tests on a real registry, beside the one that it has.

`compiled` is for images whose processes run: its standard library is compiled. The source files of
the registry's base are from 1970, and their bytecode is not, so that Python does not use it. A
process in a container writes nothing: at each start, it compiled all modules of the library that it
imports, which was half of what the start of a replica took of a processor.

`small` is for images that nobody runs: an engine that exports an image also exports its base.
"""

import fcntl
import functools
import io
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.fakes.registry import FakeRegistry
from tests.harness import asking, engine
from tests.harness.engine import docker
from tests.harness.images import BASE, MANIFEST, base_image

_FOLDER: Final = "localhost:5000/mlship-tests"
_COMPILE: Final = (
    "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=1)"
)


@functools.cache
def compiled() -> str:
    """Build and push the base, unless the engine has it; return its reference by digest."""
    engine.required()
    tag = f"{_FOLDER}/python:3.11-slim"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(f'FROM {BASE}\nRUN python -c "{_COMPILE}"\n')
        # A second worker finds the layer of the first one, instead of building another.
        with (Path(tempfile.gettempdir()) / "mlship-tests-base.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            docker("build", "--pull", "--quiet", "--tag", tag, folder)
            docker("push", "--quiet", tag)
            return docker("inspect", "--format", "{{index .RepoDigests 0}}", tag)


@functools.cache
def small() -> str:
    """Push a base of one file; return its reference by digest."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        made.addfile(tarfile.TarInfo("base"))
    fake = FakeRegistry()
    manifest, digest = base_image(fake, archive=archive.getvalue())
    host, _, name = f"{_FOLDER}/small".partition("/")
    where = f"http://{host}/v2/{name}"
    for blob, data in fake.blobs["library/python"].items():
        begun = asking.post(f"{where}/blobs/uploads/").raise_for_status()
        place = f"{begun.headers['location']}&digest={blob}"
        asking.put(place, content=data).raise_for_status()
    kind = {"Content-Type": MANIFEST}
    asking.put(f"{where}/manifests/{digest}", content=manifest, headers=kind).raise_for_status()
    return f"{host}/{name}@{digest}"
