"""Files: atomic writes, and generated files that show whether somebody edited them."""

import errno
import glob
import hashlib
import os
import re
import select
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Version = tuple[int, int, int]
"""What changes with a file: its inode, its time in nanoseconds, its bytes."""


def signed(text: str, by: str) -> str:
    """Return a text under a comment line with its author and its digest.

    Args:
        text: the contents of a file in which `#` starts a comment.
        by: the command that writes the file, in backquotes: "`mlship init`".
    """
    return f"{_head(by)}{_digest(text)}\n{text}"


def is_untouched(text: str, by: str) -> bool:
    """Return whether nobody edited a file since a command wrote it, whatever the settings were."""
    head = _signature(text, by)
    return head is not None and head[1] == _digest(text[head.end() :])


def is_signed(text: str, by: str) -> bool:
    """Return whether a command wrote a file, edited since or not."""
    return _signature(text, by) is not None


def signature(text: str, by: str) -> str:
    """Return the first line of a file that a command wrote, edited since or not; else nothing.

    It names the text that the command wrote by its digest.
    """
    head = _signature(text, by)
    return head[0] if head else ""


def _signature(text: str, by: str) -> re.Match[str] | None:
    return re.match(re.escape(_head(by)) + r"([0-9a-f]{12})\n", text)


def _head(by: str) -> str:
    return f"# Written by {by}; once edited, it is left alone. Digest: "


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_regular(path: Path, size: int) -> bytes:
    """Read at most `size` bytes of a regular file; a pipe without a writer would never answer.

    Raises:
        OSError: it cannot be read, or is a pipe, a device or a folder.
    """
    mode = path.stat().st_mode
    # Opening a folder has an error of its own.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        return file.read(size)


def read_pipe(path: Path, size: int, seconds: float) -> bytes:
    """Read at most `size` bytes of a pipe, such as `<(command)` of a shell, to its end.

    Raises:
        OSError: it cannot be read, or nothing was written to it for so many seconds.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        pieces: list[bytes] = []
        while size > 0:
            if not waiting.poll(1000 * seconds):
                text = f"nothing was written to the pipe for {seconds:g} s"
                raise OSError(errno.ETIMEDOUT, text, str(path))
            piece = os.read(descriptor, min(size, 1 << 16))
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder that is removed in the end, and remove those that killed processes left.

    Its maker holds a lock on it. Where the system has none (Windows, some shared drives), nothing
    of others is removed.
    """
    for leftover in parent.glob(f"{prefix}*"):
        with locked(leftover) as is_free:
            if is_free:
                shutil.rmtree(leftover, ignore_errors=True)
    while True:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
            folder = Path(name)
            with locked(folder, waits=True):
                # Before it was locked, another process may have taken it for a leftover.
                if folder.exists():
                    yield folder
                    return


def version_of(path: Path) -> Version:
    """Return what changes with a file, also behind a link, as volumes of Kubernetes have it.

    Raises:
        OSError: it cannot be found.
    """
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def state_of(status: os.stat_result) -> str:
    """Return a text that changes with a file, also if its time of change was set back."""
    known = (status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size)
    return ":".join(map(str, known))


@contextmanager
def locked(folder: Path, *, waits: bool = False) -> Iterator[bool]:
    """Lock a folder; tell whether it could be locked."""
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError:
            is_locked = False
        else:
            is_locked = True
        yield is_locked
    finally:
        os.close(handle)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter, whatever the umask; an existing one stays.

    Raises:
        OSError: the folder cannot be created.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def is_private(path: Path) -> bool:
    """Return whether no other user may read a file or enter a folder; also if it does not exist."""
    try:
        return not stat.S_IMODE(path.stat().st_mode) & 0o077
    except OSError:
        return True


def write_atomically(
    path: Path, data: bytes, *, mode: int = 0o666, keeps_access: bool = False
) -> None:
    """Write a file atomically and durably.

    A reader sees the old contents or the new ones, also after a crash at any point.

    Args:
        path: of the file; a link is replaced.
        data: its new contents.
        mode: of the file, from which the umask takes away.
        keeps_access: whether a file that exists keeps its owner, its group and its mode, so that
            who could read it still can.

    Raises:
        OSError: the disk is full, the folder is not writable, or the owner cannot be kept; the old
            file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            if keeps_access and path.exists():
                _keep_access(path.stat(), file.fileno())
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        # ENOSPC from a write carries no file name.
        error.filename = error.filename or str(path)
        raise
    sync_folder(path.parent)


def _keep_access(former: os.stat_result, handle: int) -> None:
    """Give a file the owner and the group of a former one; on Windows, all have the same."""
    own = os.fstat(handle)
    if (own.st_uid, own.st_gid) == (former.st_uid, former.st_gid):
        return
    try:
        os.fchown(handle, former.st_uid, former.st_gid)
    except PermissionError as error:
        owner = f"user {former.st_uid} and group {former.st_gid}"
        raise PermissionError(error.errno, f"cannot keep its owner, {owner}") from error


def remove_leftovers(path: Path) -> None:
    """Remove what processes left that were killed while they wrote a file atomically.

    Where a process cannot be looked up (Windows), nothing is removed.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}\.([1-9]\d*)\.tmp")
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        match = pattern.fullmatch(leftover.name)
        if match and not is_alive(int(match[1])):
            leftover.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Return whether a process runs, or may run for all that is known."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no process of ours
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to the disk, where the system supports it (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
