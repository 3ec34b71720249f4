"""A process that has imported what commands and trainings import, and forks for each of them.

Half of a training's processor time is the import of its libraries. The tests run hundreds, so the
first worker that needs this process starts it for all workers: each fork runs a whole command, or
the server of a command's trainings, with arguments, variables, folder and streams of its own. A
second one does it for offline predictions, with their hash seed. Both import when they are first
asked, and end when the last worker ends. Tests of how
processes start and end, of locales, and the whole path run real ones: `tests.harness.commands`
chooses.
"""

import fcntl
import functools
import gc
import importlib
import os
import pkgutil
import runpy
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, BinaryIO, Final, Literal, NoReturn, cast, get_args

import msgspec
from _pytest.assertion import rewrite

from mlship.adapters.checkout import children, jobs, lock, predictor
from mlship.adapters.mlflow import library
from mlship.adapters.targets.local import processes
from mlship.runtime import trust
from mlship.training.leaving import leave
from tests.harness import forked, layers, migrated, pages, servers, variables
from tests.harness.started import Started

ROOT = Path(__file__).parents[2]
_SERVING = Literal["mlship.runtime", "server"]
Command = Literal["mlship", "tests.harness.kills"]
Program = Literal[Command, "mlship.training", "mlflow", "pytest", "python", _SERVING]
Kind = Literal["commands", "predictions"]
SEEDS: Final[Mapping[Kind, str]] = {"commands": "0", "predictions": "1"}
"""The hash seeds of trainings and of offline predictions, which fork from a process that has it."""
_PACKAGES = (
    *("adapters", "cli", "config", "domain", "reports", "steps", "templates"),
    *("training", "wire"),
)
"""The folders of mlship that commands and trainings import; replicas are other processes."""
_LIBRARIES = (
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.serialization.ssh",
    "fastapi",
    "jinja2",
    "mlflow.cli",
    "mlflow.store.model_registry.sqlalchemy_store",
    # Of a training's proofs, and of a project's tests of what is served.
    *("onnxruntime", "mlship.testing.clients"),
    "tests.harness.kills",
    # What scikit-learn imports when it first sees a table, and Pillow when it first writes a plot.
    *("narwhals._interchange.dataframe", "narwhals._pandas_like.namespace"),
    *(f"PIL.{form}ImagePlugin" for form in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),
    "tests.harness.tracking",
    "typer._adapters",
)
_OF_PREDICTIONS = (
    *("mlship.runtime.predict", "mlship.runtime.front", "mlship.runtime.worker"),
    *("mlship.runtime.batches.work", "mlship.runtime.sinks", "onnxruntime", "pandas"),
    *("sklearn.compose", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline"),
)
"""What replicas of the tests' projects import, and nothing of what only training needs."""
_LONGEST = 1 << 20
_MOST_DESCRIPTORS = 8
GUEST = b"guest"
"""What a worker sends that wants the process to stay until it closes the connection."""
READY = b"ready"
"""What a worker sends that waits until all is imported, and what it gets then."""
_FREE = 200
"""Descriptors from here on are in nobody's way."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a fork runs: `descriptors` are the numbers that the sent ones get there."""

    program: Program
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    descriptors: list[int]


class Warm:
    """The processes at the addresses that begin with a name, from any other process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self) -> None:
        """Wait until servers can be forked at once: who starts one has a time limit."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(address(self.name, "predictions"))
            connection.send(READY)
            assert connection.recv(len(READY)) == READY

    def start(
        self,
        program: Program,
        arguments: Sequence[str],
        folder: Path | str,
        environment: Mapping[str, str],
        descriptors: Mapping[int, int],
    ) -> Started:
        """Start a fork; `descriptors` maps the numbers that it sees to those of this process."""
        call = Call(
            program=program,
            arguments=list(arguments),
            folder=str(folder),
            environment=dict(environment),
            descriptors=list(descriptors),
        )
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kind: Kind = "predictions" if program in get_args(_SERVING) else "commands"
        connection.connect(address(self.name, kind))
        socket.send_fds(connection, [msgspec.json.encode(call)], list(descriptors.values()))
        return Started(connection, [program, *arguments])

    def popen(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        **streams: Any,
    ) -> "Started | subprocess.Popen[bytes]":
        """Start the server of a command's trainings, or the project's tests, as commands ask."""
        python, *switches = command[: command.index("-m")]
        module, *arguments = command[command.index("-m") + 1 :]
        assert (python, switches) in ((sys.executable, ["-P"]), (sys.executable, [])), command
        pipe = subprocess.PIPE
        assert streams == {"stdin": pipe, "stdout": pipe, "stderr": subprocess.STDOUT}, streams
        is_same = variables.at_import(env) == variables.at_import(os.environ)
        if module == "pytest" and not is_same:  # trainings have their own, as the warm process
            real = subprocess.Popen(command, cwd=cwd, env=env, pass_fds=pass_fds, **streams)
            return cast("subprocess.Popen[bytes]", real)
        (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
        descriptors = {0: their_in, 1: their_out, 2: their_out, **{fd: fd for fd in pass_fds}}
        program = msgspec.convert(module, Program)
        made = self.start(program, arguments, cwd, env, descriptors)
        os.close(their_in)
        os.close(their_out)
        made.stdin, made.stdout = os.fdopen(our_in, "wb", 0), os.fdopen(our_out, "rb")
        return made

    def predict(
        self, command: Sequence[str], *, env: Mapping[str, str], **streams: BinaryIO
    ) -> Started:
        """Start an offline prediction, as `mlship.adapters.checkout.predictor` asks."""
        start = [sys.executable, "-P", "-m", "mlship.runtime"]
        assert list(command[: len(start)]) == start, command
        assert env["PYTHONHASHSEED"] == SEEDS["predictions"], env
        files = (streams["stdin"], streams["stdout"], streams["stderr"])
        descriptors = {number: file.fileno() for number, file in enumerate(files)}
        return self.start("mlship.runtime", command[len(start) :], Path.cwd(), env, descriptors)

    def places(self) -> Iterator[tuple[ModuleType, object]]:
        """Yield the modules that start such processes, and what is their `subprocess` here."""
        kept = ("PIPE", "STDOUT", "TimeoutExpired")
        names = {name: getattr(subprocess, name) for name in kept}
        yield jobs, SimpleNamespace(Popen=self.popen, **names)
        yield children, SimpleNamespace(Popen=self.popen, **names)
        yield predictor, SimpleNamespace(Popen=self.predict)
        yield processes, servers.Launches(self.start)
        yield from forked.places(self.start).items()


def address(name: str, kind: Kind) -> str:
    """Return where a process listens."""
    return f"\0{name}-{kind}"


def main(name: str, descriptor: int, kind: Kind) -> None:
    """Fork for each call until nobody is left who may call; in a fork, run the program."""
    given = dict(os.environ)
    call, database = _serve(socket.socket(fileno=descriptor), functools.partial(_prepare, kind))
    if call.program == "server":
        processes.__dict__["subprocess"] = servers.Launches(Warm(name).start)
        servers.launch_in_fork(call.arguments)
    if call.program == "mlship.runtime":
        forked.obey(call.environment)
        servers.serve(call.arguments)
    if call.program == "mlflow":
        from tests.harness.tracking import program

        with migrated.copied():
            servers.end(program)
    for place, replaced in Warm(name).places():
        place.__dict__["subprocess"] = replaced
    if call.program in ("pytest", "python"):
        servers.end(_tests if call.program == "pytest" else forked.script)
    if call.program in get_args(Command):
        library.__dict__["create_database"] = functools.partial(_copy, database)
        if state := given.get("XDG_STATE_HOME"):  # a folder of the run's own: see conftest.py
            layers.share(Path(state, "layers"), given)
        is_watched = call.program == "tests.harness.kills"
        module = call.program if is_watched else "mlship.cli.main"
        servers.end(importlib.import_module(module).main)
    from mlship.training.__main__ import main as job

    leave(job(call.arguments))


def _prepare(kind: Kind) -> bytes:
    """Import what forks find imported; return a new database of MLflow for those that make one."""
    gc.disable()
    # First: it asks all modules that are there for the names of functions that know none.
    trust.skops_io()
    database = b""
    if kind == "commands":
        database = _database()
        for module in _modules():
            importlib.import_module(module)
        lock.read_ahead()
    else:
        for module in _OF_PREDICTIONS:
            importlib.import_module(module)
    gc.freeze()
    # A command's own objects are few: a search each 700 of them takes a thirtieth of its time.
    gc.set_threshold(20_000)
    gc.enable()
    pages.collapse()
    return database


def _modules() -> Iterator[str]:
    """Yield what a fork finds imported: all that a command may need, and the libraries below."""
    for package in _PACKAGES:
        found = importlib.import_module(f"mlship.{package}")
        modules = pkgutil.walk_packages(found.__path__, f"{found.__name__}.")
        yield from (module.name for module in modules if not module.name.endswith("__main__"))
    yield from _LIBRARIES


class _Hook(rewrite.AssertionRewritingHook):
    """Says nothing of libraries that were imported before it could rewrite their assertions."""

    def _warn_already_imported(self, name: str) -> None:
        pass


def _tests() -> NoReturn:
    """Run the tests of a project, which finds no module of mlship's own tests."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    vars(rewrite)["AssertionRewritingHook"] = _Hook
    runpy.run_module("pytest", run_name="__main__")
    raise AssertionError("pytest ends its process")


def _database() -> bytes:
    """Return a new database of MLflow, which is imported with the settings that commands give."""
    with migrated.copied(), tempfile.TemporaryDirectory(prefix="mlship-tests-") as folder:
        path = Path(folder) / "mlflow.db"
        library.create_database(path, Path(folder), {})
        return path.read_bytes()


def _copy(database: bytes, path: Path, artifacts: Path, _: Mapping[str, str]) -> None:
    """Do what `create_database` does, without half a second of migrations."""
    with tempfile.NamedTemporaryFile(prefix="mlship-tests-") as draft:
        draft.write(database)
        draft.flush()
        with closing(sqlite3.connect(draft.name)) as opened, opened:
            place = f"{artifacts.as_uri()}/0"
            opened.execute("UPDATE experiments SET artifact_location = ?", (place,))
        path.parent.mkdir(parents=True, exist_ok=True)
        library.publish(Path(draft.name), path)


def _serve(listener: socket.socket, prepare: Callable[[], bytes]) -> tuple[Call, bytes]:
    """Return in each fork, with what it is to run and what was prepared for the first one."""
    connections: dict[int, socket.socket] = {}
    guests: list[socket.socket] = []
    starter, prepared = [0], None
    ended, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while starter or guests or select.select([listener], [], [], 0)[0]:
        watched: list[int | socket.socket] = [*starter, *guests, ended, listener]
        ready = select.select(watched, [], [])[0]
        # They never say anything: what can be read is their end.
        starter = [one for one in starter if one not in ready]
        guests = [one for one in guests if one not in ready]
        if ended in ready:
            os.read(ended, _LONGEST)
            _tell_ended(connections)
        if listener in ready:
            connection = listener.accept()[0]
            data, descriptors, _, _ = socket.recv_fds(connection, _LONGEST, _MOST_DESCRIPTORS)
            if data in (GUEST, b""):
                guests.append(connection)
                continue
            prepared = prepare() if prepared is None else prepared
            if data == READY:
                connection.send(READY)
                guests.append(connection)
                continue
            call = msgspec.json.decode(data, type=Call)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                held = (connection, listener, *connections.values(), *guests)
                _close(ended, woken, *(one.detach() for one in held))
                _become(call, descriptors)
                return call, prepared
            _close(*descriptors)
            connections[pid] = connection
            connection.send(b"%d" % pid)
    sys.exit()


def _close(*descriptors: int) -> None:
    for fd in descriptors:
        os.close(fd)


def _tell_ended(connections: dict[int, socket.socket]) -> None:
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            connection = connections.pop(child[0])
            # Who asked may be gone.
            with suppress(OSError):
                connection.send(b"%d" % os.waitstatus_to_exitcode(child[1]))
            connection.close()


def _become(call: Call, descriptors: Sequence[int]) -> None:
    """Take over the call's streams, folder, variables and arguments."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    free = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FREE) for fd in descriptors]
    _close(*descriptors)
    for fd, number in zip(free, call.descriptors, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(call.folder)
    os.environ.clear()
    os.environ.update(call.environment)
    # The server of trainings is started with -P: it finds no module in its folder.
    first = [call.folder] if call.program in (*get_args(Command), "pytest") else []
    named = call.environment.get("PYTHONPATH", "")
    sys.path[:1] = [*first, *filter(None, named.split(os.pathsep))]
    _write_in(call.environment.get("PYTHONIOENCODING", ""))
    file = ROOT.joinpath(*call.program.split("."), "__main__.py")
    sys.argv = [str(file), *call.arguments]


def _write_in(encoding: str) -> None:
    """Make new streams, since the warm ones know another file: `ascii:strict`, or as they were."""
    name, _, errors = encoding.partition(":")
    out = (name, errors or "strict") if name else (sys.stdout.encoding, sys.stdout.errors)
    sys.stdout = os.fdopen(1, "w", encoding=out[0], errors=out[1], closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, out[0], "backslashreplace", closefd=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), msgspec.convert(sys.argv[3], Kind))
