"""Wheels for the platform of an image, on any machine: pip downloads them, mlship unpacks them."""

import fnmatch
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlship.adapters.images.build.contents import DEPENDENCIES, Lock
from mlship.adapters.images.build.layers import Member
from mlship.config import installation
from mlship.domain.image import Platform
from mlship.errors import IntegrityError, ProjectError, TimedOutError, UnavailableError

_MACHINES: Mapping[Platform, str] = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_GLIBC = 31
"""The newest glibc (2.31) that wheels may require: that of the oldest supported Debian."""
_SECONDS = 900.0
_UNMATCHED = re.compile(r"No matching distribution found for (\S+)")
_BROKEN = re.compile(r"Failed to establish a new connection: ([^'\"]+)")
_OFFLINE = ("Max retries exceeded", "NewConnectionError", "NameResolutionError", "timed out")

# Files that serving never uses, by distribution: tests, headers, static libraries.
_UNUSED: Mapping[str, Sequence[str]] = {
    "numpy": ("numpy/*/tests/*", "numpy/tests/*", "*.pyi", "*.a", "*.h"),
    "onnxruntime": ("onnxruntime/capi/libonnxruntime.so.*",),
    "pandas": ("pandas/tests/*",),
    "scikit-learn": ("sklearn/*/tests/*", "sklearn/tests/*"),
    "scipy": ("scipy/*/tests/*",),
}
# Files about the installation of a wheel, which an image does not need.
_NOISE = ("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json")


def fetch(lock: Lock, into: Path) -> list[Path]:
    """Download the wheels of a lock to a folder, from the package index that pip uses.

    Raises:
        ProjectError: a requirement has no wheel for the platform, or a dependency is missing.
        UnavailableError: the index does not answer, or this Python has no pip.
        TimedOutError: it took longer than 15 minutes.
    """
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    argv += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", lock.python]
    argv += ["--disable-pip-version-check", "--dest", str(into)]
    for tag in _tags(lock.platform):
        argv += ["--platform", tag]
    try:
        process = subprocess.run(
            [*argv, *lock.pins],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        message = f"downloading {len(lock.pins)} wheels took longer than {_SECONDS:g} s"
        hint = "run it again: pip has cached what it downloaded"
        raise TimedOutError(message, hint=hint) from error
    if process.returncode:
        raise _failure(process.stderr, lock)
    wheels = sorted(into.glob("*.whl"))
    _check_complete(wheels, lock)
    return wheels


@contextmanager
def members(wheels: Iterable[Path]) -> Iterator[list[Member]]:
    """Open the files that an installation of the wheels would create, without scripts.

    Raises:
        IntegrityError: a wheel is damaged, or contains a path outside of itself.
    """
    files: dict[str, Member] = {}
    with ExitStack() as stack:
        for wheel in sorted(wheels):
            try:
                archive = stack.enter_context(zipfile.ZipFile(wheel))
            except zipfile.BadZipFile as error:
                message = f"{wheel.name} is not a valid wheel: {error}"
                hint = "run `pip cache purge`, then try again"
                raise IntegrityError(message, hint=hint) from error
            unused = _UNUSED.get(canonicalize_name(wheel.name.partition("-")[0]), ())
            for info in archive.infolist():
                name = "" if info.is_dir() else _place(info.filename, wheel)
                if name and not any(fnmatch.fnmatchcase(name, pattern) for pattern in unused):
                    files[name] = _member(archive, info, name)
        yield list(files.values())


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member:
    return Member(
        name=f"{DEPENDENCIES}/{name}",
        size=info.file_size,
        open=lambda: cast("BinaryIO", archive.open(info)),
        executable=bool(info.external_attr >> 16 & 0o111),
    )


def _place(name: str, wheel: Path) -> str:
    """Return the path where a file of a wheel is installed; empty if it is not installed."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        message = f"{wheel.name} contains the unsafe path {name!r}"
        raise IntegrityError(message, hint="do not use this package")
    parts = path.parts
    if parts[0].endswith(".data"):
        # See the wheel format: https://packaging.python.org/specifications/
        parts = parts[2:] if parts[1] in ("purelib", "platlib", "data") else ()
    if not parts or parts[-1].endswith(".pyc"):
        return ""
    is_noise = len(parts) == 2 and parts[0].endswith(".dist-info") and parts[1] in _NOISE
    return "" if is_noise else "/".join(parts)


def _tags(platform: Platform) -> list[str]:
    """Return the tags of a platform, newest first: pip takes the first that matches a wheel."""
    machine = _MACHINES[platform]
    minors = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC, 16, -1)]
    older = ["manylinux2014", *(("manylinux2010", "manylinux1") if machine == "x86_64" else ())]
    return [*minors, *(f"{name}_{machine}" for name in older), f"linux_{machine}"]


def _failure(errors: str, lock: Lock) -> ProjectError | UnavailableError:
    unmatched = _UNMATCHED.search(errors)
    if "No module named pip" in errors:
        message = f"{sys.executable} has no pip, which mlship needs to download wheels"
        return UnavailableError(message, hint=installation.hint("images"))
    if unmatched and not any(sign in errors for sign in _OFFLINE):
        message = f"{unmatched[1]} has no wheel for Python {lock.python} on {lock.platform}"
        return ProjectError(message, hint="train with a version that has a wheel, or remove it")
    lines = [line for line in errors.splitlines() if line.strip()]
    broken = _BROKEN.search(errors)
    # If the index does not answer, the last line of pip also says that nothing matches.
    why = broken[1] if broken else lines[-1][:300] if lines else "pip failed"
    message = f"cannot download from the package index: {why}"
    hint = "check the network and `pip config list`, then run it again"
    return UnavailableError(message, hint=hint)


def _check_complete(wheels: Sequence[Path], lock: Lock) -> None:
    """Refuse a lock from another platform that lacks a dependency of a wheel on this one.

    Raises:
        ProjectError: a dependency is missing.
    """
    names = {canonicalize_name(pin.partition("==")[0]) for pin in lock.pins}
    for wheel in wheels:
        for need in _needs(wheel, lock):
            if canonicalize_name(need.name) not in names:
                what = f"{need.name}{need.specifier}"
                message = f"{wheel.name} needs {what} on {lock.platform}, which is not pinned"
                hint = f"add {need.name} to requirements.txt, install it, and train again"
                raise ProjectError(message, hint=hint)


def _needs(wheel: Path, lock: Lock) -> list[Requirement]:
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": _MACHINES[lock.platform],
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{lock.python}.0",
        "python_version": lock.python,
        "sys_platform": "linux",
        "extra": "",
    }
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(min(names, key=len)).decode("utf-8", "replace") if names else ""
    lines = HeaderParser().parsestr(text).get_all("Requires-Dist") or []
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if need.marker is None or need.marker.evaluate(environment)]
