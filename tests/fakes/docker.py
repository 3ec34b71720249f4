"""A Docker engine's build in memory: reads the Dockerfile, and writes what `docker save` would."""

import gzip
import io
import json
import re
import tarfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlship.domain import digests
from mlship.domain.image import Platform
from mlship.errors import ProjectError
from tests.harness.images import LAYER

_WORD = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^\s="]+))(?:=|\s|$)')
_ESCAPE = re.compile(r'\\([\\"$])')


class FakeBuild:
    """Builds, never twice the same where there is a RUN. Flags make it misbehave."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, bytes]] = []
        self.architecture = "amd64"
        self.compresses = False
        self.base = LAYER
        self.config: dict[str, Any] = {}

    def __call__(self, context: Path, platform: Platform, into: Path) -> None:
        self.contexts.append({path.name: path.read_bytes() for path in context.iterdir()})
        lines = (context / "Dockerfile").read_text().splitlines()
        told = [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]
        layers = [gzip.decompress(self.base)]
        for word, rest in told:
            if word == "RUN" and rest == "false":
                raise ProjectError("returned a non-zero code: 1", hint="correct the file")
            if word == "RUN":
                layers.append(uuid.uuid4().bytes)
            if word == "ADD":
                layers.append(gzip.decompress((context / rest.split()[0]).read_bytes()))
        run: dict[str, Any] = {
            "Env": [
                f"{name}={value}"
                for word, rest in told
                if word == "ENV"
                for name, value in pairs(rest).items()
            ],
            "Labels": [pairs(rest) for word, rest in told if word == "LABEL"][-1:],
            "User": "".join(rest for word, rest in told if word == "USER"),
            "Entrypoint": [json.loads(rest) for word, rest in told if word == "ENTRYPOINT"][-1:],
        }
        run |= {name: (run[name] or [None])[0] for name in ("Labels", "Entrypoint")}
        config = {
            "architecture": self.architecture,
            "os": "linux",
            "created": str(uuid.uuid4()),
            "config": run | self.config,
            "rootfs": {"type": "layers", "diff_ids": [digests.of_bytes(one) for one in layers]},
        }
        written = [gzip.compress(one) if self.compresses else one for one in layers]
        into.write_bytes(saved(json.dumps(config).encode(), written))


def saved(config: bytes, layers: list[bytes]) -> bytes:
    """Return an image as engines before version 25 save it; a layer twice is a link."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        names: list[str] = []
        for number, data in enumerate(layers):
            name = f"{number}/layer.tar"
            before = layers.index(data)
            info = tarfile.TarInfo(name)
            if before < number:
                info.type, info.linkname = tarfile.SYMTYPE, f"../{names[before]}"
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            names.append(name)
        listed = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": names}]).encode()
        for name, data in {"c.json": config, "manifest.json": listed}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def pairs(text: str) -> Mapping[str, str]:
    """Return what a line of ENV or LABEL sets, read as Docker reads it."""
    words = [
        _ESCAPE.sub(r"\1", quoted) if quoted or not plain else plain
        for quoted, plain in _WORD.findall(text)
    ]
    return dict(zip(words[::2], words[1::2], strict=True))
