"""Which files a training reads and writes, seen by an audit hook of Python.

Seen is what Python opens, in this process and in its forks: `open`, `os.open`, imports, and what
libraries open by them (pandas, numpy, joblib, pickle, json, yaml), and databases of sqlite3; files
that the project's code looks at without opening them, such as by `Path.exists`. Not seen is what a
compiled library opens by itself (pyarrow by a path, XGBoost, LightGBM, HDF5) and what other
programs open.

Source: https://docs.python.org/3/library/audit_events.html
"""

import functools
import importlib.util
import json
import os
import site
import stat
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote

import mlship
from mlship.adapters.checkout import datafiles
from mlship.domain import digests
from mlship.domain.commit import named
from mlship.domain.digests import Digest
from mlship.domain.inputs import OUTSIDE, Opened
from mlship.errors import ConflictError

Signature = tuple[int, int, int, int] | None
"""Size, times of change in nanoseconds, and number of a file; `None` where there is none."""

_Kind = Literal["read", "written", "outside", "program", "watched"]

_READ: Final = 1
_WRITTEN: Final = 2
_NOT_THE_PROJECTS: Final = frozenset(
    (".git", ".mlship", "__pycache__", "site-packages", "dist-packages", "node_modules")
)
_STANDARD: Final = sysconfig.get_path("stdlib")
_SYSTEM: Final = ("/usr", "/etc", "/proc", "/sys", "/dev", "/lib", "/lib64", "/bin", "/run", "/var")
_EVENTS: Final = frozenset(
    (
        *("open", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate"),
        *("sqlite3.connect", "subprocess.Popen", "os.system"),
    )
)


class _Event(NamedTuple):
    """A file that was opened for the first time in a process.

    Attributes:
        before: the digest before it was written, where it had been read.
    """

    kind: _Kind
    path: str
    signature: Signature
    before: Digest | None


class Audit:
    """Notes the files that this process and its forks open from now on; there is no end of it.

    Args:
        root: the project's folder.
        top: the top folder of its repository. What is read there counts as what is read in the
            project, and has a path that begins with `..`.
        ignored: a folder in it that does not belong to it: where the bundle is made.
        watched: files, in the project or not, of which `has_read` tells.
    """

    def __init__(
        self, root: Path, ignored: Path, watched: Iterable[Path] = (), *, top: Path | None = None
    ) -> None:
        self._root = root.absolute()
        self._watched = {os.path.realpath(path) for path in watched}
        self._roots = {str(self._root), os.path.realpath(root)}
        self._tops = _tops(self._root, top or root)
        self._ignored = (str(ignored.absolute()), *_environment_of(self._root))
        self._libraries = tuple(
            folder
            for folder in (*_libraries(), *_SYSTEM)
            if not any(_is_below(root, folder) for root in self._roots)
        )
        self._known: dict[str, int] = {}
        self._busy = threading.local()
        # It has no name. Forks write into the same file, at the same place.
        self._log = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115 (it stays open)
        sys.addaudithook(self._hear)
        # Python raises no audit event for these.
        os.stat, os.lstat = self._looking(os.stat), self._looking(os.lstat)

    def opened(self) -> Opened:
        """Return the project's files that were read and written so far.

        Raises:
            ConflictError: a file was changed after it was read, and not by this process.
        """
        first: dict[str, _Event] = {}
        written: dict[str, _Event] = {}
        for event in self._events():
            if event.kind in ("read", "written"):
                first.setdefault(event.path, event)
            if event.kind == "written":
                written.setdefault(event.path, event)
        read: dict[str, Digest | None] = {}
        left: dict[str, Digest | None] = {}
        for path, event in first.items():
            if event.kind == "read":
                now, digest = self._current(path)
                if now == event.signature:
                    read[path] = digest
                    continue
                writing = written.get(path)
                if writing is None or writing.signature != event.signature:
                    message = f"{path} changed while training ran; nothing was recorded"
                    hint = "train again while nothing else writes into the project or its data"
                    raise ConflictError(message, hint=hint)
                read[path], left[path] = writing.before, digest
        return Opened(read=read, left=left, written=tuple(sorted(written)))

    def notes(self) -> tuple[str, ...]:
        """Return remarks about what the project's code used that is not part of the release."""
        events = self._events()
        paths = sorted({event.path for event in events if event.kind == "outside"})
        programs = sorted({event.path for event in events if event.kind == "program"})
        notes = []
        if paths:
            verb = "is" if len(paths) == 1 else "are"
            notes.append(f"training read {named(paths)}, which {verb} not part of the release")
        if programs:
            notes.append(f"training ran {named(programs)}: what other programs read is not seen")
        return tuple(notes)

    def has_read(self, paths: Iterable[Path]) -> bool:
        """Return whether the project's code opened one of the watched files for reading."""
        wanted = {os.path.realpath(path) for path in paths}
        return any(event.kind == "watched" and event.path in wanted for event in self._events())

    def check_pointers(self) -> None:
        """Refuse files that Git LFS has not fetched: what was read is not what they stand for.

        Raises:
            ProjectError: a file that was read is a pointer.
        """
        with self._quietly():
            for event in self._events():
                if event.kind == "read":
                    datafiles.check_lfs(self._root / event.path, event.path)

    def _current(self, path: str) -> tuple[Signature, Digest | None]:
        with self._quietly():
            signature = _signature(self._root / path)
            return signature, digests.of_file(self._root / path) if signature else None

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        self._busy.on = True
        try:
            yield
        finally:
            self._busy.on = False

    def _looking(self, look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        """Return a function that looks at a file, and notes it if the project's code asked."""

        @functools.wraps(look)
        def noting(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
            is_below_open_folder = options.get("dir_fd") is not None
            if not (isinstance(path, int) or is_below_open_folder or self._is_busy()):
                with self._quietly(), suppress(Exception):
                    self._note_look(path)
            return look(path, *arguments, **options)

        return noting

    def _note_look(self, path: Any) -> None:
        place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (links stay what they are)
        inside = self._inside(place)
        if inside and inside not in self._known and self._is_asked_by_project(self._is_library):
            self._add(path, is_read=True, is_written=False)

    def _is_busy(self) -> bool:
        return getattr(self._busy, "on", False)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or self._is_busy():
            return
        # What is raised here would be raised by the user's own `open`.
        with self._quietly(), suppress(Exception):
            self._note(event, arguments)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            is_read, is_written = _meaning(flags)
            # `os.open` may be told a folder that the path is relative to, which is not seen.
            is_known = mode is not None or bool(flags & os.O_CREAT)
            if not isinstance(path, int) and (is_known or Path(os.fsdecode(path)).exists()):
                if is_read:
                    self._watch(path)
                self._add(path, is_read=is_read, is_written=is_written)
        elif event in ("subprocess.Popen", "os.system"):
            self._add_program(event, arguments)
        elif event == "sqlite3.connect":
            self._add(_database(os.fsdecode(arguments[0])), is_read=True, is_written=True)
        else:
            for path in _changed_by(event, arguments):
                self._add(path, is_read=False, is_written=True)

    def _add(self, opened: Any, *, is_read: bool, is_written: bool) -> None:
        place = os.path.abspath(os.fsdecode(opened))  # noqa: PTH100 (links stay what they are)
        path = self._inside(place)
        if path is None:
            if is_read and not is_written:
                self._add_outside(place)
            else:
                self._known.setdefault(place, _WRITTEN)
            return
        known = self._known.get(path, 0)
        if path.startswith(OUTSIDE) and not (known or is_read):
            # What it writes for others is nothing that it depends on.
            self._known[path] = _WRITTEN
            return
        if is_read and not known:
            known |= _READ
            signature = _signature(self._root / path)
            if signature is not None or not (self._root / path).exists():
                self._write(_Event("read", path, signature, None))
        if is_written and not known & _WRITTEN:
            known |= _WRITTEN
            signature = _signature(self._root / path)
            before = digests.of_file(self._root / path) if signature and known & _READ else None
            self._write(_Event("written", path, signature, before))
        self._known[path] = known

    def _watch(self, opened: Any) -> None:
        if not self._watched:
            return
        place = os.path.realpath(os.fsdecode(opened))
        if place in self._watched and self._is_asked_by_project(self._is_library):
            self._watched.discard(place)
            self._write(_Event("watched", place, None, None))

    def _inside(self, place: str) -> str | None:
        """Return the path in the project of a file of it; for compiled code, that of its source."""
        if any(_is_below(place, folder) for folder in self._ignored):
            return None
        for root in self._roots:
            if _is_below(place, root):
                path = place[len(root) :].lstrip(os.sep)
                if path.endswith(".pyc") and "__pycache__" in path:
                    path = importlib.util.source_from_cache(path)
                if _NOT_THE_PROJECTS.isdisjoint(Path(path).parts):
                    path.encode()  # git and JSON name it
                    return path.replace(os.sep, "/")
        return self._shared(place)

    def _shared(self, place: str) -> str | None:
        """Return the path of a file of the repository outside of the project: ../shared/x.py."""
        top = next((top for top in self._tops if _is_below(place, top)), None)
        is_own = any(_is_below(place, root) for root in self._roots)
        if top is None or is_own or self._is_library(place) or _is_hidden(place):
            return None
        if place.endswith(".pyc") and "__pycache__" in place:
            place = importlib.util.source_from_cache(place)
        if not _NOT_THE_PROJECTS.isdisjoint(Path(place[len(top) :]).parts):
            return None
        path = os.path.relpath(place, self._tops[top])
        path.encode()
        return path.replace(os.sep, "/")

    def _add_outside(self, place: str) -> None:
        if place in self._known or any(_is_below(place, root) for root in self._roots):
            return
        self._known[place] = _READ
        if any(_is_below(place, folder) for folder in self._libraries) or _is_hidden(place):
            return
        if _signature(Path(place)) and self._is_asked_by_project(self._is_library):
            self._write(_Event("outside", place, None, None))

    def _add_program(self, event: str, arguments: tuple[Any, ...]) -> None:
        # Libraries run programs to look at the machine.
        if self._is_asked_by_project(_is_standard):
            command = os.fsdecode(arguments[0]).split()[:1] if event == "os.system" else arguments
            self._write(_Event("program", Path(os.fsdecode(command[0])).name, None, None))

    def _is_library(self, file: str) -> bool:
        return any(_is_below(file, folder) for folder in self._libraries)

    def _is_asked_by_project(self, is_passed: Callable[[str], bool]) -> bool:
        """Tell whether the innermost code that is not passed over is the project's."""
        frame: FrameType | None = sys._getframe()  # noqa: SLF001 (documented, and quick)
        while frame:
            file = frame.f_code.co_filename
            if not is_passed(file) and not file.startswith("<") and file != __file__:
                return any(_is_below(file, root) for root in (*self._roots, *self._tops))
            frame = frame.f_back
        return False

    def _write(self, event: _Event) -> None:
        os.write(self._log.fileno(), json.dumps(event).encode() + b"\n")

    def _events(self) -> list[_Event]:
        size = os.fstat(self._log.fileno()).st_size
        lines = os.pread(self._log.fileno(), size, 0).splitlines()
        return [_event(json.loads(line)) for line in lines]


def _event(values: list[Any]) -> _Event:
    kind, path, signature, before = values
    return _Event(kind, path, tuple(signature) if signature else None, before)


def _meaning(flags: int) -> tuple[bool, bool]:
    """Return whether opening with these flags may read what is there, and may write."""
    access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
    if access == os.O_RDONLY:
        return True, False
    is_new = bool(flags & (os.O_TRUNC | os.O_EXCL))
    return access == os.O_RDWR and not is_new, True


def _changed_by(event: str, arguments: tuple[Any, ...]) -> Iterator[Any]:
    """Return the paths that an event other than `open` writes, not those below an open folder."""
    paths = [place for place in arguments if isinstance(place, str | bytes)]
    folders = [number for number in arguments if isinstance(number, int)]
    if event != "os.truncate" and any(folder != -1 for folder in folders):
        return
    yield from paths if event == "os.rename" else paths[-1:]


def _database(name: str) -> str:
    """Return the path of a database of sqlite3, which may be an address: file:x.db?mode=ro."""
    return unquote(name.removeprefix("file:").partition("?")[0]) if name[:5] == "file:" else name


def _signature(path: Path) -> Signature:
    """Return what changes when a file does; `None` for a missing one, and for what is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder) and (len(path) == len(folder) or path[len(folder)] == os.sep)


def _is_hidden(place: str) -> bool:
    """Tell whether a file is a cache or a setting of the user's: in a hidden folder of the home."""
    home = os.path.expanduser("~")  # noqa: PTH111 (no error where there is none)
    return _is_below(place, home) and place[len(home) :].lstrip(os.sep).startswith(".")


def _is_standard(file: str) -> bool:
    """Tell whether a file is of Python's standard library."""
    return _is_below(file, _STANDARD) and "site-packages" not in file


def _tops(root: Path, top: Path) -> dict[str, str]:
    """Return the project's folder by the names of the repository's top; none if they are one."""
    real, inside = top.resolve(), root.resolve().relative_to(top.resolve())
    tops = {str(place): str(place / inside) for place in (real, *root.parents)}
    return {
        place: own for place, own in tops.items() if inside.parts and Path(place).samefile(real)
    }


def _environment_of(root: Path) -> Iterator[str]:
    """Return the folders in the project that Python itself is installed in."""
    yield from (prefix for prefix in (sys.prefix, sys.base_prefix) if _is_below(prefix, str(root)))


def _libraries() -> Iterator[str]:
    """Return the folders of Python, of what is installed, and of mlship itself."""
    yield str(Path(mlship.__file__).parent)
    yield from {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
    yield from (*site.getsitepackages(), site.getusersitepackages())
