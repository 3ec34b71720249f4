"""Digests identify bytes, files and values. Standard library and msgspec only."""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NewType

import msgspec

from mlship.errors import IntegrityError

Digest = NewType("Digest", str)
"""`sha256:` and 64 lowercase hexadecimal digits."""

_CHUNK = 1 << 20


def of_bytes(data: bytes) -> Digest:
    """Return the digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def of_file(path: Path) -> Digest:
    """Return the digest of a file, read in chunks of 1 MiB.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return of_open(file)


def of_open(file: IO[bytes]) -> Digest:
    """Return the digest of what an open file has from its place on, read in chunks of 1 MiB.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return Digest("sha256:" + digest.hexdigest())


def of_value(value: Any) -> Digest:
    """Return the digest of a value's canonical JSON.

    Raises:
        ValueError: the value contains NaN or infinity, which JSON cannot represent.
    """
    return of_bytes(canonical_json(value))


def of_files(files: Iterable[tuple[str, Path]]) -> Digest:
    """Return the digest of a set of files: their names and contents count, their order does not."""
    return of_value(sorted((name, of_file(path)) for name, path in files))


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of a value: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: the value contains NaN or infinity; `plain` turns them into text.
    """
    builtin = msgspec.to_builtins(value, str_keys=True)
    _refuse_non_finite(builtin)
    return msgspec.json.encode(builtin, order="deterministic")


def plain(value: Any) -> Any:
    """Return the value in JSON types, with NaN and infinity as text.

    In evidence, a metric that is NaN stays visible as `"nan"`; gates read that text as the float
    and refuse it.
    """
    builtin = msgspec.to_builtins(value, str_keys=True)
    if isinstance(builtin, float) and not math.isfinite(builtin):
        return str(builtin)
    if isinstance(builtin, dict):
        return {key: plain(item) for key, item in builtin.items()}
    if isinstance(builtin, list | tuple):
        return [plain(item) for item in builtin]
    return builtin


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        text = f"{value} cannot be represented in JSON"
        raise ValueError(text)
    if isinstance(value, dict):
        for item in value.values():
            _refuse_non_finite(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_non_finite(item)


def parse(text: str) -> Digest:
    """Return `text` as a digest.

    Raises:
        IntegrityError: it is not `sha256:` and 64 lowercase hexadecimal digits.
    """
    algorithm, _, hexadecimal = text.partition(":")
    if (
        algorithm != "sha256"
        or len(hexadecimal) != 64
        or set(hexadecimal) - set("0123456789abcdef")
    ):
        message = f"invalid digest: {text[:80]!r}"
        raise IntegrityError(
            message, hint="a digest is sha256: and 64 lowercase hexadecimal digits"
        )
    return Digest(text)


def short(digest: Digest) -> str:
    """Return the first 12 hexadecimal digits, for people."""
    return digest.removeprefix("sha256:")[:12]
