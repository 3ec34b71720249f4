"""Wheels for the platform of an image, whatever machine this is: fetched by pip, unpacked by us."""

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
from mlship.domain.image import Platform
from mlship.errors import IntegrityError, ProjectError, TimedOutError, UnavailableError

_MACHINES: Mapping[Platform, str] = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_GLIBC = 31
"""The newest C library, 2.31, that wheels may ask for: that of the oldest Debian in use."""
_SECONDS = 900.0
_UNMADE = re.compile(r"No matching distribution found for (\S+)")
_BROKEN = re.compile(r"Failed to establish a new connection: ([^'\"]+)")
_OFFLINE = ("Max retries exceeded", "NewConnectionError", "NameResolutionError", "timed out")

# Files that serving never reads, by distribution: tests, headers, libraries for C programs.
_UNUSED: Mapping[str, Sequence[str]] = {
    "numpy": ("numpy/*/tests/*", "numpy/tests/*", "*.pyi", "*.a", "*.h"),
    "onnxruntime": ("onnxruntime/capi/libonnxruntime.so.*",),
    "pandas": ("pandas/tests/*",),
    "scikit-learn": ("sklearn/*/tests/*", "sklearn/tests/*"),
    "scipy": ("scipy/*/tests/*",),
}
# How a wheel was installed, and lists that installing would write.
_NOISE = ("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json")


def fetch(lock: Lock, into: Path) -> list[Path]:
    """Download the wheels of a lock into a folder, with the index that pip is configured for.

    Raises:
        ProjectError: a requirement has no wheel for the platform, or one lacks another.
        UnavailableError: the index does not answer, or this Python has no pip.
        TimedOutError: it took more than 15 minutes.
    """
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    argv += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", lock.python]
    argv += ["--disable-pip-version-check", "--dest", str(into)]
    for tag in _tags(lock.platform):
        argv += ["--platform", tag]
    try:
        done = subprocess.run(
            [*argv, *lock.pins], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        message = f"downloading {len(lock.pins)} wheels took more than {_SECONDS:g} s"
        raise TimedOutError(message, hint="run it again; pip keeps what it has") from error
    if done.returncode:
        raise _failure(done.stderr, lock)
    wheels = sorted(into.glob("*.whl"))
    _check_complete(wheels, lock)
    return wheels


@contextmanager
def members(wheels: Iterable[Path]) -> Iterator[list[Member]]:
    """Give the files that installing wheels puts beside each other, without scripts.

    Raises:
        IntegrityError: a wheel is damaged, or names a file outside of itself.
    """
    found: dict[str, Member] = {}
    with ExitStack() as stack:
        for wheel in sorted(wheels):
            try:
                archive = stack.enter_context(zipfile.ZipFile(wheel))
            except zipfile.BadZipFile as error:
                message = f"{wheel.name} is no wheel: {error}"
                raise IntegrityError(message, hint="`pip cache purge`, and try again") from error
            unused = _UNUSED.get(canonicalize_name(wheel.name.partition("-")[0]), ())
            for info in archive.infolist():
                name = "" if info.is_dir() else _place(info.filename, wheel)
                if name and not any(fnmatch.fnmatchcase(name, pattern) for pattern in unused):
                    found[name] = _member(archive, info, name)
        yield list(found.values())


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member:
    return Member(
        name=f"{DEPENDENCIES}/{name}",
        size=info.file_size,
        open=lambda: cast("BinaryIO", archive.open(info)),
        executable=bool(info.external_attr >> 16 & 0o111),
    )


def _place(name: str, wheel: Path) -> str:
    """Return where a file of a wheel goes, empty for one that is not installed."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        message = f"{wheel.name} names {name!r}, which lies outside of it"
        raise IntegrityError(message, hint="do not use this package")
    parts = path.parts
    if parts[0].endswith(".data"):
        # The binary distribution format: https://packaging.python.org/specifications/
        parts = parts[2:] if parts[1] in ("purelib", "platlib", "data") else ()
    if not parts or parts[-1].endswith(".pyc"):
        return ""
    is_noise = len(parts) == 2 and parts[0].endswith(".dist-info") and parts[1] in _NOISE
    return "" if is_noise else "/".join(parts)


def _tags(platform: Platform) -> list[str]:
    """Return the platform's tags, newest first: pip takes the first that a wheel has."""
    machine = _MACHINES[platform]
    minors = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC, 16, -1)]
    older = ["manylinux2014", *(("manylinux2010", "manylinux1") if machine == "x86_64" else ())]
    return [*minors, *(f"{name}_{machine}" for name in older), f"linux_{machine}"]


def _failure(told: str, lock: Lock) -> ProjectError | UnavailableError:
    unmade = _UNMADE.search(told)
    if "No module named pip" in told:
        message = f"{sys.executable} has no pip, which resolves wheels"
        return UnavailableError(message, hint=f"{sys.executable} -m ensurepip")
    if unmade and not any(sign in told for sign in _OFFLINE):
        message = f"{unmade[1]} has no wheel for Python {lock.python} on {lock.platform}"
        return ProjectError(message, hint="train with a version that has one, or leave it out")
    lines = [line for line in told.splitlines() if line.strip()]
    broken = _BROKEN.search(told)
    # That nothing matches is the last thing that pip says of an index which does not answer, too.
    why = broken[1] if broken else lines[-1][:300] if lines else "pip failed"
    message = f"the package index cannot be used: {why}"
    return UnavailableError(message, hint="check the network and `pip config list`; then again")


def _check_complete(wheels: Sequence[Path], lock: Lock) -> None:
    """Refuse a lock made elsewhere that lacks what a wheel needs on this platform.

    Raises:
        ProjectError: something is missing.
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
