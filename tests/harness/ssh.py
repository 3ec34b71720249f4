"""OpenSSH's own programs, and agents that do not do what they should."""

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.harness.services import require

PROGRAMS = ("ssh-agent", "ssh-add", "ssh-keygen")
FAILURE = bytes([5])


def require_openssh() -> None:
    """Skip the test where OpenSSH's programs are missing; see `services.require`."""
    is_there = all(map(shutil.which, PROGRAMS))
    require("OpenSSH", is_there, "install openssh-client")


def keygen(path: Path, *, kind: str = "ed25519", passphrase: str = "", comment: str = "") -> str:
    """Make a key; return the line of its file `.pub`."""
    size = ["-b", "2048"] if kind == "rsa" else []
    arguments = ["-q", "-t", kind, *size, "-N", passphrase, "-C", comment, "-f", str(path)]
    subprocess.run(["ssh-keygen", *arguments], check=True, timeout=60)
    return path.with_name(f"{path.name}.pub").read_text().strip()


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[str]:
    """Run ssh-agent with some keys; give the path of its socket."""
    path = folder / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, encoding="utf-8"
    )
    try:
        assert process.stdout is not None
        # It prints where it listens once it does.
        assert str(path) in process.stdout.readline()
        for key in keys:
            subprocess.run(
                ["ssh-add", "-q", str(key)],
                check=True,
                timeout=60,
                env={"SSH_AUTH_SOCK": str(path)},
                stderr=subprocess.DEVNULL,
            )
        yield str(path)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout and process.stdout.close()


@contextlib.contextmanager
def lying_agent(folder: Path, answer: Callable[[bytes], bytes | None]) -> Iterator[str]:
    """Run an agent of one's own; give the path of its socket.

    Args:
        folder: for the socket.
        answer: returns the bytes that follow a request, as they are sent; `None` to say nothing.
    """
    path = folder / "liar"
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                connection = server.accept()[0]
                with connection:
                    size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL))
                    reply = answer(connection.recv(size, socket.MSG_WAITALL))
                    if reply is None:
                        ended.wait(30)
                    else:
                        connection.sendall(reply)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path)
        finally:
            ended.set()
            thread.join(30)


def framed(body: bytes) -> bytes:
    """Return bytes after their length, as texts and messages of the protocol are."""
    return len(body).to_bytes(4) + body
