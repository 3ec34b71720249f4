"""Replicas that log in PostgreSQL, killed under load, and the database itself restarted.

Every prediction that a client was told of must be in the table. The control answers before the
commit, and shows that what is missing would be found.
"""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from mlship.adapters.observations.postgres import PostgresObservations
from mlship.domain.digests import Digest
from tests.harness import asking, serving
from tests.harness.bundles import SETOSA, iris_bundle
from tests.harness.postgres import Server, server

pytestmark = pytest.mark.service("postgresql")

RELEASE = Digest("sha256:" + "ab" * 32)
KILLS = 8
ANSWERS = 40
"""So many predictions at least are acknowledged before each kill."""
PAUSE = 0.1
"""The seconds before a user who was not answered asks again."""
RUNTIME = (sys.executable, "-P", "-m", "mlship.runtime")
LATE = """
import os, sys, threading
from concurrent.futures import Future
from mlship.runtime import postgres
from mlship.runtime.__main__ import main

append = postgres.PostgresRecorder.append

def append_late(self, predictions):
    timer = threading.Timer(0.1, append, (self, predictions))
    timer.daemon = True
    timer.start()
    written = Future()
    written.set_result(None)
    return written

postgres.PostgresRecorder.append = append_late
sys.exit(main(sys.argv[1:], os.environ))
"""


class Replica:
    """A serving process that is started again, at the same port, after each kill.

    The program RUNTIME is a fork of the warm process.
    """

    def __init__(
        self, program: Sequence[str], folder: Path, database: Server, options: Sequence[str] = ()
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.errors = folder / "stderr"
        bare = database.url().replace(f":{database.password}@", "@")
        self._program = program
        self._options = ["--bundle", str(folder / "iris"), "--release", RELEASE]
        self._options += ["--slot", "rabab", "--port", str(self.port), "--log", bare, *options]
        self._environ = {**os.environ, "PGPASSWORD": database.password}
        self.process = self._started()

    def kill(self) -> None:
        """Kill it with SIGKILL and start it again."""
        self.process.kill()
        self.process.wait()
        self.process = self._started()

    def wait(self) -> None:
        """Wait until it is ready."""
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if asking.get(f"http://127.0.0.1:{self.port}/v2/health/ready").is_success:
                    return
            time.sleep(0.05)
        pytest.fail(self.errors.read_text())

    def _started(self) -> serving.Process:
        with self.errors.open("ab") as errors:
            if self._program == RUNTIME:
                return serving.start(self._options, environment=self._environ, errors=errors)
            command = [*self._program, "serve", *self._options]
            return subprocess.Popen(command, stderr=errors, env=self._environ)


class Users:
    """Ask one after the other, a few at a time, and remember what they were told."""

    def __init__(self, port: int) -> None:
        self.acknowledged: list[str] = []
        self.answers: Counter[str] = Counter()
        self._url = f"http://127.0.0.1:{port}/predict"
        self._ended = threading.Event()

    def ask(self, _: int) -> None:
        with httpx.Client(verify=asking.TRUST, timeout=30) as client:
            while not self._ended.is_set():
                try:
                    answer = client.post(self._url, json=SETOSA)
                except httpx.HTTPError as error:
                    self.answers[type(error).__name__] += 1
                    time.sleep(PAUSE)
                    continue
                self.answers[str(answer.status_code)] += 1
                if answer.is_success:
                    self.acknowledged.append(answer.json()["predictions"][0]["id"])
                else:
                    time.sleep(PAUSE)

    def wait_for(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        end, least = time.monotonic() + 30, len(self.acknowledged) + count
        while len(self.acknowledged) < least:
            assert time.monotonic() < end, self.answers
            time.sleep(0.02)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask while the block runs."""
        with ThreadPoolExecutor(8) as pool:
            done = [pool.submit(self.ask, number) for number in range(8)]
            try:
                yield
            finally:
                self._ended.set()
        for one in done:
            one.result()


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with server() as running:
        yield running


@contextlib.contextmanager
def replica(
    program: Sequence[str], folder: Path, database: Server, options: Sequence[str] = ()
) -> Iterator[Replica]:
    if not (folder / "iris").exists():
        iris_bundle(folder / "iris")
    made = Replica(program, folder, database, options)
    try:
        made.wait()
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def missing(users: Users, database: Server) -> list[str]:
    observations = PostgresObservations(database.url(), {}, "iris")
    logged = {one.id for one in observations.predictions({RELEASE})}
    return [name for name in users.acknowledged if name not in logged]


def killed_under_load(
    program: Sequence[str], folder: Path, database: Server, kills: int = KILLS
) -> Users:
    with replica(program, folder, database) as running:
        users = Users(running.port)
        with users.asking():
            for _ in range(kills):
                users.wait_for(ANSWERS)
                running.kill()
                running.wait()
            users.wait_for(ANSWERS)
            time.sleep(0.3)
    return users


def test_a_replica_killed_again_and_again_loses_no_acknowledged_prediction(
    tmp_path: Path, database: Server
) -> None:
    users = killed_under_load(RUNTIME, tmp_path, database)
    assert missing(users, database) == []
    assert (tmp_path / "stderr").read_text().count("password") == 0


def test_answers_before_the_commit_would_be_found_missing(tmp_path: Path, database: Server) -> None:
    users = killed_under_load((sys.executable, "-P", "-c", LATE), tmp_path, database, kills=3)
    assert 0 < len(missing(users, database)) < len(users.acknowledged)


def test_a_database_restarted_under_load_loses_no_acknowledged_prediction(
    tmp_path: Path, database: Server
) -> None:
    with replica(RUNTIME, tmp_path, database) as running:
        users = Users(running.port)
        with users.asking():
            for how in itertools.islice(itertools.cycle(("immediate", "fast")), 4):
                time.sleep(0.5)
                database.stop("immediate" if how == "immediate" else "fast")
                time.sleep(0.3)
                database.start()
            answered = len(users.acknowledged)
            time.sleep(1)
        assert len(users.acknowledged) > answered, "it answers again"
    assert missing(users, database) == []
    assert set(users.answers) <= {"200", "503"}


def test_a_database_that_is_away_or_stuck_gives_503_in_time_and_then_answers_again(
    tmp_path: Path, database: Server
) -> None:
    with replica(RUNTIME, tmp_path, database) as running:
        url = f"http://127.0.0.1:{running.port}/predict"

        def ask() -> tuple[int, float]:
            started = time.monotonic()
            answer = asking.post(url, json=SETOSA, timeout=30)
            assert database.password not in answer.text
            return answer.status_code, time.monotonic() - started

        assert ask()[0] == 200
        database.stop()
        status, seconds = ask()
        assert (status, seconds < 7) == (503, True), seconds
        database.start()
        assert ask()[0] == 200
        database.pause()
        try:
            status, seconds = ask()
        finally:
            database.resume()
        assert (status, seconds < 15) == (503, True), seconds
        assert ask()[0] == 200
