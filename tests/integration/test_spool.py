"""Replicas that spool predictions while PostgreSQL is away, and are killed meanwhile.

Every prediction that a client was told of must be in the table afterwards, once. The controls lose
what they spool, or do not spool, and show that both would be found.
"""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import psycopg
import pytest

from mlship.adapters.observations.postgres import PostgresObservations
from mlship.domain.prediction import Prediction, Spool
from mlship.errors import ConfigError, UnavailableError
from mlship.runtime import delivery
from mlship.runtime.groups import Backlog
from mlship.runtime.spool import Spools
from mlship.runtime.spooled import SpoolingRecorder
from tests.docs.blocks import ROOT, blocks
from tests.harness import asking
from tests.harness.bundles import SETOSA
from tests.harness.postgres import Server, server
from tests.integration.test_postgres import RELEASE, RUNTIME, Replica, Users, missing, replica

pytestmark = pytest.mark.service("postgresql")

SLOT = "rabab"
GUIDE = ROOT / "docs" / "guide" / "predictions.md"
FORGETFUL = """
import os, sys
from mlship.runtime import spool
from mlship.runtime.__main__ import main

spool.Spool.append = lambda self, rows: None
sys.exit(main(sys.argv[1:], os.environ))
"""
KILLED_AFTER_THE_COMMIT = """
import os, signal, sys
from mlship.runtime import spool
from mlship.runtime.__main__ import main

spool.Spool.delivered = lambda self, rows: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(main(sys.argv[1:], os.environ))
"""
HOLDER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from mlship.runtime import delivery
from mlship.runtime.spool import Spools

url, folder, release, *left = sys.argv[1:]
spools = Spools(Path(folder), "rabab", lambda: datetime.now(UTC), 1_000_000)
delivery.Delivery._deliver = lambda self, spool: 0
held = delivery.Delivery(url, spools, "rabab", release, print)
if left:
    held.own.append([("7.0", release, "rabab", datetime.now(UTC), "{}", "{}", 0.5, False)])
time.sleep(60)
"""
"""A replica that registers, spools one prediction if told to, and delivers none."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture
def database(postgres: Server) -> Iterator[Server]:
    """Give the server, running, without any table of ours."""
    if not postgres.is_running():
        postgres.start()
    postgres.execute("postgres", "DROP TABLE IF EXISTS mlship_predictions, mlship_spools")
    yield postgres
    postgres.resume() if postgres.is_running() else postgres.start()


def eventually(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def prediction(number: int, *, slot: str = SLOT) -> Prediction:
    return Prediction(
        id=f"{number}.0",
        release=RELEASE,
        slot=slot,
        time=datetime.now(UTC),
        inputs={"length": -0.0, "name": "a\0b"},
        outputs={"share": 1e23},
        latency_ms=0.5,
    )


def recorder(
    database: Server, folder: Path, *, slot: str = SLOT, url: str = ""
) -> SpoolingRecorder:
    spools = Spools(folder, slot, lambda: datetime.now(UTC), 1_000_000)
    return SpoolingRecorder(url or database.url(), spools, slot, RELEASE, lambda _: None)


def observations(database: Server) -> PostgresObservations:
    return PostgresObservations(database.url(), {}, "iris")


def logged(database: Server) -> list[Prediction]:
    return list(observations(database).predictions({RELEASE}))


def reported(database: Server) -> list[Spool]:
    return list(observations(database).spools({RELEASE}))


def spooling(folder: Path, *more: str) -> list[str]:
    return ["--spool", str(folder / "spool"), *more]


def is_delivered(serving: Replica) -> bool:
    with contextlib.suppress(httpx.TransportError):
        text = asking.get(f"http://127.0.0.1:{serving.port}/metrics").text
        return "mlship_spooled_rows 0.0" in text
    return False


def answered(users: Users, count: int) -> None:
    """Wait for so many more predictions."""
    before = len(users.acknowledged)
    eventually(lambda: len(users.acknowledged) >= before + count)


def away_under_load(
    program: Sequence[str], folder: Path, database: Server, *, kills: bool = False
) -> Users:
    with replica(program, folder, database, spooling(folder)) as serving:
        users = Users(serving.port)
        with users.asking():
            answered(users, 20)
            database.stop("immediate")
            if kills:
                serving.kill()
                serving.wait()
            answered(users, 100)
            database.start()
            if kills:
                serving.kill()
                serving.wait()
            answered(users, 20)
        eventually(lambda: is_delivered(serving))
        (spool,) = reported(database)
        assert (spool.rows, spool.is_silent) == (0, False)
    return users


def test_a_replica_killed_while_it_spools_and_delivers_refuses_and_loses_nothing(
    tmp_path: Path, database: Server
) -> None:
    users = away_under_load(RUNTIME, tmp_path, database, kills=True)
    assert missing(users, database) == []
    assert "503" not in users.answers


def test_what_a_spool_loses_would_be_found_missing(tmp_path: Path, database: Server) -> None:
    users = away_under_load((sys.executable, "-P", "-c", FORGETFUL), tmp_path, database)
    assert 0 < len(missing(users, database)) < len(users.acknowledged)


def ask(serving: Replica) -> httpx.Response:
    return asking.post(f"http://127.0.0.1:{serving.port}/predict", json=SETOSA, timeout=30)


def test_a_kill_between_the_commit_and_the_deletion_leaves_each_row_once(
    tmp_path: Path, database: Server
) -> None:
    program = (sys.executable, "-P", "-c", KILLED_AFTER_THE_COMMIT)
    with replica(program, tmp_path, database, spooling(tmp_path)) as serving:
        database.stop("immediate")
        ids = {ask(serving).json()["predictions"][0]["id"] for _ in range(5)}
        database.start()
        assert serving.process.wait(30) == -signal.SIGKILL
    assert {one.id for one in logged(database)} == ids
    with replica(RUNTIME, tmp_path, database, spooling(tmp_path)) as serving:
        eventually(lambda: is_delivered(serving))
        assert "delivered 5 spooled predictions" in serving.errors.read_text()
    assert sorted(one.id for one in logged(database)) == sorted(ids)


def test_a_replica_that_must_stop_tells_what_it_leaves_and_the_next_one_delivers_it(
    tmp_path: Path, database: Server
) -> None:
    options = spooling(tmp_path, "--shutdown-seconds", "1")
    with replica(RUNTIME, tmp_path, database, options) as serving:
        database.stop("immediate")
        assert [ask(serving).status_code for _ in range(3)] == [200, 200, 200]
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(30) == 4
        assert "error: 3 predictions are not delivered; they are in " in serving.errors.read_text()
    database.start()
    assert logged(database) == []
    with replica(RUNTIME, tmp_path, database, options) as serving:
        eventually(lambda: is_delivered(serving))
        assert len(logged(database)) == 3
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(30) == 0
    assert reported(database) == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_full_spool_or_disk_refuses_and_the_replica_stays_ready(
    tmp_path: Path, database: Server
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk: {mounted.stderr.decode().strip()}")
    try:
        with replica(RUNTIME, tmp_path, database, ["--spool", str(folder)]) as serving:
            database.stop("immediate")
            ids = []
            while (answer := ask(serving)).is_success:
                ids.append(answer.json()["predictions"][0]["id"])
            assert answer.status_code == 503
            assert "No space left" in answer.json()["error"]["message"]
            ready = f"http://127.0.0.1:{serving.port}/v2/health/ready"
            assert asking.get(ready).status_code == 200
            database.start()
            eventually(lambda: is_delivered(serving))
            assert ask(serving).status_code == 200
            assert len(ids) > 10
            assert set(ids) < {one.id for one in logged(database)}
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_spooled_row_is_in_the_table_like_another(tmp_path: Path, database: Server) -> None:
    first = recorder(database, tmp_path)
    made = [prediction(number) for number in range(2)]
    first.append(made[:1]).result(30)
    assert first.backlog() == Backlog()
    database.stop("immediate")
    first.append(made[1:]).result(30)
    assert first.backlog() == Backlog(rows=1, since=made[1].time)
    database.start()
    eventually(lambda: first.backlog().rows == 0)
    first.close()
    assert logged(database) == made
    with psycopg.connect(database.url()) as connection:
        texts = connection.execute("SELECT inputs::text, outputs::text FROM mlship_predictions")
        assert len(set(texts)) == 1
    assert reported(database) == []


def test_a_row_that_the_database_would_never_take_is_refused_and_not_spooled(
    tmp_path: Path, database: Server
) -> None:
    made = recorder(database, tmp_path)
    wrong = msgspec.structs.replace(prediction(0), id="a\0b")
    with pytest.raises(UnavailableError, match="NUL"):
        made.append([wrong]).result(30)
    assert made.backlog().rows == 0
    made.append([prediction(1)]).result(30)
    made.close()
    assert [one.id for one in logged(database)] == ["1.0"]


def test_a_database_that_is_stuck_is_away(tmp_path: Path, database: Server) -> None:
    stuck = recorder(database, tmp_path)
    stuck.append([prediction(0)]).result(30)
    database.pause()
    try:
        stuck.append([prediction(1)]).result(30)
        assert stuck.backlog().rows == 1
    finally:
        database.resume()
    eventually(lambda: stuck.backlog().rows == 0)
    stuck.close()
    assert [one.id for one in logged(database)] == ["0.0", "1.0"]


def test_replicas_that_cannot_write_where_others_can_are_told_of(
    tmp_path: Path, database: Server
) -> None:
    database.execute("postgres", "DROP ROLE IF EXISTS away", "CREATE ROLE away LOGIN PASSWORD 'p'")
    url = database.url(user="away", password="p")
    with pytest.raises(ConfigError, match="cannot create table mlship_predictions"):
        recorder(database, tmp_path, url=url)
    statements, *_ = blocks(GUIDE, "sql")
    needed = [part for part in statements.text.split(";") if re.search("spools|predictions", part)]
    granted = [part.replace("TO replicas", "TO away") for part in needed if "TO jobs" not in part]
    database.execute("postgres", *granted)
    revoked = recorder(database, tmp_path, url=url)
    database.execute("postgres", "REVOKE INSERT ON mlship_predictions FROM away")
    revoked.append([prediction(0), prediction(1)]).result(30)
    eventually(lambda: [spool.rows for spool in reported(database)] == [2])
    (spool,) = reported(database)
    assert (spool.slot, spool.since is not None, spool.is_silent) == (SLOT, True, False)
    assert logged(database) == []
    database.execute("postgres", "GRANT INSERT ON mlship_predictions TO away")
    eventually(lambda: revoked.backlog().rows == 0)
    revoked.close()
    assert len(logged(database)) == 2
    database.execute("postgres", "DROP OWNED BY away", "DROP ROLE away")


def test_a_spool_that_is_silent_is_told_of(tmp_path: Path, database: Server) -> None:
    recorder(database, tmp_path).close()
    late = "INSERT INTO mlship_spools VALUES (%s, %s, %s, %s, NULL, now() - %s * interval '1 s')"
    rows = [
        ("rabab-1", RELEASE, "rabab", 0, 60),
        ("rabab-2", RELEASE, "rabab", 0, 0),
        ("other-3", "sha256:" + "0" * 64, "other", 9, 0),
    ]
    with psycopg.connect(database.url()) as connection:
        connection.cursor().executemany(late, rows)
    assert [(one.name, one.is_silent) for one in reported(database)] == [
        ("rabab-1", True),
        ("rabab-2", False),
    ]


def holder(database: Server, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    arguments = (database.url(), str(folder), RELEASE, *more)
    return subprocess.Popen([sys.executable, "-P", "-c", HOLDER, *arguments])


def test_only_a_replica_that_knows_the_database_starts_without_it(
    tmp_path: Path, database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "START", 0.0)
    killed = holder(database, tmp_path)
    eventually(lambda: any(tmp_path.glob("rabab-*/registered")))
    neighbour = recorder(database, tmp_path, slot="neighbour")
    database.stop("immediate")
    killed.kill()
    killed.wait()
    with pytest.raises(UnavailableError, match="cannot write the prediction log"):
        recorder(database, tmp_path, slot="other")
    neighbour.append([prediction(0)]).result(30)
    eventually(lambda: neighbour._delivery._trouble != "")
    after = recorder(database, tmp_path)
    after.append([prediction(1)]).result(30)
    assert len(list(tmp_path.iterdir())) == 2
    database.start()
    eventually(lambda: after.backlog().rows == neighbour.backlog().rows == 0)
    after.close()
    neighbour.close()
    assert reported(database) == []


def test_another_replica_delivers_what_a_killed_one_left(tmp_path: Path, database: Server) -> None:
    killed = holder(database, tmp_path, "spool")
    eventually(lambda: [spool.rows for spool in reported(database)] == [0])
    other = recorder(database, tmp_path, slot="other")
    eventually(lambda: any(tmp_path.glob("rabab-*/*.spool")))
    killed.kill()
    killed.wait()
    eventually(lambda: [one.id for one in logged(database)] == ["7.0"])
    eventually(lambda: [spool.slot for spool in reported(database)] == ["other"])
    other.close()
    assert list(tmp_path.iterdir()) == []
