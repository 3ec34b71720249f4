"""A private PostgreSQL server, made of the machine's own programs."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import psycopg

from tests.harness.services import require

HINT = "install PostgreSQL's server (Debian: apt-get install postgresql)"
LOOPBACK = "127.0.0.1"
_NOBODY = 65534
_SECONDS = 60.0


def programs() -> Path | None:
    """Return the folder of the newest server's programs, or nothing where there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    return max(found, key=_version, default=None)


def _version(folder: Path) -> int:
    number = re.search(r"/postgresql/(\d+)/", f"{folder}/")
    return int(number[1]) if number else 0


class Server:
    """A server with one superuser, `mlship`, whose password it asks for.

    Args:
        folder: for its data, its socket and its log.
        bin_: the programs.
        host: this machine's address for those who ask, pods of a cluster for one.
    """

    def __init__(self, folder: Path, bin_: Path, host: str = LOOPBACK) -> None:
        self.folder = folder
        self.host = host
        self.password = secrets.token_hex(8)
        self._bin = bin_
        self._file = folder / "data" / "postmaster.pid"
        with socket.socket() as probe:
            probe.bind((host, 0))
            self.port = int(probe.getsockname()[1])
        (folder / "password").write_text(self.password)
        if os.getuid() == 0:
            for path in (folder, folder / "password"):
                os.chown(path, _NOBODY, _NOBODY)
        self._run("initdb", "-U", "mlship", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale")
        if host != LOOPBACK:
            with (folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all all scram-sha-256\n")

    def url(self, database: str = "postgres", *, user: str = "mlship", password: str = "") -> str:
        """Return the address of a database, with the password in it."""
        secret = password or self.password
        return f"postgresql://{user}:{secret}@{self.host}:{self.port}/{database}"

    def execute(self, database: str, *statements: str) -> None:
        """Execute statements, each as a transaction of its own, as the superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def create(self, database: str, options: str = "") -> str:
        """Make a database; return its address."""
        self.execute("postgres", f"CREATE DATABASE {database} {options}")
        return self.url(database)

    def start(self) -> None:
        """Start the server and return when it answers."""
        options = f"-p {self.port} -c listen_addresses={self.host} -k {self.folder}"
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, how: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server; `immediate` is what a power cut would do to it."""
        self._run("pg_ctl", "-w", "-m", how, "stop")

    def kill(self) -> None:
        """Kill the server and its children with SIGKILL; return when the system has let it go."""
        # Standing still, it starts no child that would be overlooked.
        os.kill(self._first(), signal.SIGSTOP)
        self._signal(signal.SIGKILL)
        end = time.monotonic() + _SECONDS
        while self.is_running():
            assert time.monotonic() < end, "nobody has waited for the killed server"
            time.sleep(0.02)

    def pause(self) -> None:
        """Have the server and its children stand still, with all connections open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have them go on."""
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what the server wrote."""
        return (self.folder / "log").read_text()

    def is_running(self) -> bool:
        # Killed, it leaves its file.
        return self._file.exists() and Path(f"/proc/{self._first()}").exists()

    def _signal(self, number: int) -> None:
        first = self._first()
        argv = ["ps", "-o", "pid=", "--ppid", str(first)]
        children = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
        for process in (first, *map(int, children)):
            # A child may have ended since it was listed.
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _first(self) -> int:
        """Return the id of the process that started all others."""
        return int(self._file.read_text().split()[0])

    def _run(self, program: str, *arguments: str) -> None:
        argv = [str(self._bin / program), "-D", str(self.folder / "data"), *arguments]
        if program == "initdb":
            argv.append(f"--pwfile={self.folder / 'password'}")
        with (self.folder / "output").open("ab") as output:
            done = subprocess.run(
                [*_as_nobody(), *argv],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_SECONDS,
                check=False,
            )
        assert done.returncode == 0, (self.folder / "output").read_text()[-2000:]


def _as_nobody() -> Sequence[str]:
    """Return what to put before a command where we are root, which PostgreSQL does not run as."""
    if os.getuid() != 0:
        return ()
    ids = (f"--reuid={_NOBODY}", f"--regid={_NOBODY}")
    return ("setpriv", *ids, "--clear-groups")


@contextmanager
def server(host: str = LOOPBACK) -> Iterator[Server]:
    """Give a running server of its own at an address of this machine; remove it afterwards."""
    bin_ = programs()
    require("postgresql", bin_ is not None, HINT)
    assert bin_ is not None
    with tempfile.TemporaryDirectory(prefix="mlship-pg-", ignore_cleanup_errors=True) as folder:
        made = Server(Path(folder), bin_, host)
        made.start()
        try:
            yield made
        finally:
            if made.is_running():
                made.resume()
                made.stop("immediate")
