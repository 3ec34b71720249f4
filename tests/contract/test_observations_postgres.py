"""What only predictions in PostgreSQL can suffer: rights, encodings, a server that is away."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from mlship.adapters.observations.postgres import PostgresObservations
from mlship.domain.digests import Digest
from mlship.domain.prediction import Prediction, Taken
from mlship.errors import ConfigError, ConflictError, IntegrityError, UnavailableError
from mlship.runtime.postgres import PostgresRecorder
from mlship.runtime.sinks import open_sink
from tests.contract.test_observations import NOON, OURS, outcome, prediction
from tests.docs.blocks import ROOT, blocks
from tests.harness.postgres import Server, server

GUIDE = ROOT / "docs" / "guide" / "predictions.md"
pytestmark = pytest.mark.service("postgresql")


def logged(url: str) -> list[str]:
    return [one.id for one in PostgresObservations(url, {}, "iris").predictions(OURS)]


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


def test_many_replicas_that_start_at_once_make_one_table_and_lose_nothing(
    postgres_url: str,
) -> None:
    def replica(number: int) -> None:
        recorder = PostgresRecorder(postgres_url, f"r{number}")
        for request in range(20):
            recorder.append([prediction(f"{number}-{request}.0")]).result(10)
        recorder.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(replica, range(6)))
    assert len(logged(postgres_url)) == 120


def test_requests_that_come_together_are_one_transaction(
    postgres_server: Server, postgres_url: str
) -> None:
    recorder = PostgresRecorder(postgres_url, "r0")
    postgres_server.pause()
    written = [recorder.append([prediction(f"{number}.0")]) for number in range(50)]
    postgres_server.resume()
    for one in written:
        one.result(10)
    recorder.close()
    with psycopg.connect(postgres_url) as connection:
        query = "SELECT count(DISTINCT xmin::text) FROM mlship_predictions"
        assert connection.execute(query).fetchone() in [(1,), (2,)]
    assert len(logged(postgres_url)) == 50


def test_the_least_rights_are_enough_once_the_table_is_there(
    postgres_server: Server, postgres_url: str
) -> None:
    user, database = f"replica_{uuid.uuid4().hex}", database_of(postgres_url)
    url = postgres_server.url(database, user=user, password="once")
    postgres_server.execute(database, f"CREATE ROLE {user} LOGIN PASSWORD 'once'")
    with pytest.raises(ConfigError, match=r"cannot create table mlship_predictions") as caught:
        PostgresRecorder(url, "r0")
    assert "once" not in f"{caught.value.message} {caught.value.hint}"
    PostgresRecorder(postgres_url, "r0").close()
    postgres_server.execute(database, f"GRANT INSERT ON mlship_predictions TO {user}")
    recorder = PostgresRecorder(url, "r0")
    recorder.append([prediction("a.0")]).result(10)
    recorder.append([prediction("a.0")]).result(10)
    recorder.close()
    assert logged(postgres_url) == ["a.0"]
    with pytest.raises(UnavailableError, match="permission denied") as refused:
        logged(url)
    assert "once" not in f"{refused.value.message} {refused.value.hint}"


def test_the_rights_of_the_guide_are_enough_for_replicas_and_for_jobs(
    postgres_server: Server, postgres_url: str
) -> None:
    database = database_of(postgres_url)
    postgres_server.execute(database, "CREATE ROLE replicas", "CREATE ROLE jobs")
    postgres_server.execute(database, blocks(GUIDE, "sql")[0].text)
    urls = []
    for role in ("replicas", "jobs"):
        user = f"{role}_{uuid.uuid4().hex}"
        postgres_server.execute(
            database, f"CREATE ROLE {user} LOGIN PASSWORD 'once'", f"GRANT {role} TO {user}"
        )
        urls.append(postgres_server.url(database, user=user, password="once"))
    recorder = PostgresRecorder(urls[0], "r0")
    recorder.append([prediction("a.0")]).result(10)
    recorder.close()
    observations = PostgresObservations(urls[1], {}, "iris")
    assert observations.take([outcome("a.0")], OURS).new == 1
    assert [one.id for one in observations.predictions(OURS)] == ["a.0"]
    assert list(observations.outcomes(OURS)) == [outcome("a.0")]


CHURN, FRAUD = Digest("sha256:" + "c" * 64), Digest("sha256:" + "f" * 64)
HOME = "github.com/ada/models//churn"
FORMER_OUTCOMES = """
CREATE TABLE mlship_outcomes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prediction text NOT NULL UNIQUE,
    value json NOT NULL,
    time timestamptz NOT NULL
)"""
FORMER_TAKES = (
    "INSERT INTO mlship_outcomes (prediction, value, time) VALUES ('{}', '\"no\"', now())"
)


def log(url: str, *made: Prediction) -> None:
    recorder = PostgresRecorder(url, "r0")
    recorder.append(made).result(10)
    recorder.close()


def test_two_projects_that_were_asked_by_one_request_id_have_an_outcome_each(
    postgres_url: str,
) -> None:
    log(postgres_url, prediction("a.0", release=CHURN), prediction("a.0", release=FRAUD))
    churn = PostgresObservations(postgres_url, {}, "churn", HOME)
    fraud = PostgresObservations(postgres_url, {}, "churn-eu", HOME + "-eu")
    assert churn.take([outcome("a.0", "yes")], {CHURN}).new == 1
    assert fraud.take([outcome("a.0", "no")], {FRAUD}).new == 1
    assert churn.take([outcome("a.0", "yes")], {CHURN}).known == 1
    assert [one.value for one in churn.outcomes({CHURN})] == ["yes"]
    assert [one.value for one in fraud.outcomes({FRAUD})] == ["no"]


def test_another_project_of_the_same_name_is_refused_with_both_homes(postgres_url: str) -> None:
    # Two forks of one commit make one release: only their homes differ.
    log(postgres_url, prediction("a.0", release=CHURN), prediction("b.0", release=CHURN))
    ada = PostgresObservations(postgres_url, {}, "churn", HOME)
    eve = PostgresObservations(postgres_url, {}, "churn", HOME.replace("ada", "eve"))
    # Without a prediction of its own, a project takes no name.
    assert eve.take([outcome("z.0")], {CHURN}).unknown == ("z.0",)
    assert ada.take([outcome("a.0")], {CHURN}).new == 1
    uses: list[Callable[[], object]] = [
        lambda: eve.take([outcome("b.0")], {CHURN}),
        lambda: list(eve.predictions({CHURN})),
        lambda: eve.outcomes({CHURN}),
        lambda: eve.find("a.0"),
    ]
    for use in uses:
        with pytest.raises(ConflictError, match="another project called churn, in folder churn of"):
            use()
    moved = PostgresObservations(postgres_url, {}, "churn", HOME)
    assert [one.prediction for one in moved.outcomes({CHURN})] == ["a.0"]


def test_a_project_that_got_a_remote_keeps_its_outcomes_and_others_are_refused(
    postgres_url: str,
) -> None:
    log(postgres_url, prediction("a.0", release=CHURN))
    PostgresObservations(postgres_url, {}, "churn", "//churn").take([outcome("a.0")], {CHURN})
    ada = PostgresObservations(postgres_url, {}, "churn", HOME)
    eve = PostgresObservations(postgres_url, {}, "churn", HOME.replace("ada", "eve"))
    assert ada.take([outcome("a.0")], {CHURN}).known == 1
    with pytest.raises(ConflictError, match=r"of github\.com/ada/models"):
        eve.outcomes({CHURN})
    assert PostgresObservations(postgres_url, {}, "churn", "//churn").find("a.0")


def test_outcomes_of_former_versions_are_kept_and_may_still_be_added(
    postgres_server: Server, postgres_url: str
) -> None:
    database = database_of(postgres_url)
    log(postgres_url, *(prediction(f"{name}.0", release=CHURN) for name in "abc"))
    log(postgres_url, prediction("a.0", release=FRAUD), prediction("f.0", release=FRAUD))
    former = (FORMER_TAKES.format(f"{name}.0") for name in "af")
    postgres_server.execute(database, FORMER_OUTCOMES, *former)
    churn = PostgresObservations(postgres_url, {}, "churn", HOME)

    def kept() -> list[str]:
        return [one.prediction for one in churn.outcomes({CHURN})]

    assert kept() == ["a.0"]
    assert churn.take([outcome("a.0", "no"), outcome("b.0", "yes")], {CHURN}) == Taken(
        new=1, known=1
    )
    postgres_server.execute(database, FORMER_TAKES.format("c.0"))
    assert kept() == ["a.0", "b.0", "c.0"]
    with pytest.raises(ConflictError, match=r"another outcome: c\.0"):
        churn.take([outcome("c.0", "yes")], {CHURN})


def test_a_role_that_may_not_change_former_tables_is_told_what_to_do(
    postgres_server: Server, postgres_url: str
) -> None:
    user, database = f"jobs_{uuid.uuid4().hex}", database_of(postgres_url)
    log(postgres_url, prediction("a.0"))
    postgres_server.execute(
        database,
        FORMER_OUTCOMES,
        f"CREATE ROLE {user} LOGIN PASSWORD 'once'",
        f"GRANT SELECT ON mlship_predictions TO {user}",
        f"GRANT SELECT, INSERT ON mlship_outcomes TO {user}",
    )
    url = postgres_server.url(database, user=user, password="once")
    observations = PostgresObservations(url, {}, "iris", HOME)
    with pytest.raises(UnavailableError, match="must be owner") as caught:
        observations.take([outcome("a.0")], OURS)
    assert "mlship guide predictions" in caught.value.hint
    assert observations.outcomes(OURS) == []
    upgrade = blocks(GUIDE, "sql")[1].text.replace("TO jobs", f"TO {user}")
    postgres_server.execute(database, upgrade)
    assert observations.take([outcome("a.0")], OURS).new == 1


def test_many_predictions_are_inserted_in_pieces_and_all_or_none(postgres_url: str) -> None:
    recorder = PostgresRecorder(postgres_url, "r0")
    small = recorder.append([prediction("small.0")])
    many = recorder.append([prediction(f"many.{number}") for number in range(2_500)])
    for written in (small, many):
        written.result(10)
    with psycopg.connect(postgres_url) as connection:
        query = "SELECT count(DISTINCT xmin::text) FROM mlship_predictions WHERE id LIKE 'many.%'"
        assert connection.execute(query).fetchone() == (1,)
    assert len(logged(postgres_url)) == 2_501
    unfit = [prediction(f"unfit.{number}") for number in range(2_499)]
    with pytest.raises(UnavailableError, match="NUL"):
        recorder.append([*unfit, prediction("unfit\0.0")]).result(10)
    recorder.append([prediction("after.0")]).result(10)
    recorder.close()
    assert len(logged(postgres_url)) == 2_502


def test_a_table_that_was_dropped_is_made_again_for_the_next_request(
    postgres_server: Server, postgres_url: str
) -> None:
    recorder = PostgresRecorder(postgres_url, "r0")
    postgres_server.execute(database_of(postgres_url), "DROP TABLE mlship_predictions")
    with pytest.raises(UnavailableError, match="does not exist"):
        recorder.append([prediction("lost.0")]).result(10)
    recorder.append([prediction("a.0")]).result(10)
    recorder.close()
    assert logged(postgres_url) == ["a.0"]


def test_a_row_that_somebody_changed_is_named(postgres_server: Server, postgres_url: str) -> None:
    recorder = PostgresRecorder(postgres_url, "r0")
    recorder.append([prediction("a.0")]).result(10)
    recorder.close()
    database = database_of(postgres_url)
    postgres_server.execute(database, "UPDATE mlship_predictions SET outputs = '[1]'")
    with pytest.raises(IntegrityError, match=r"prediction a\.0 is invalid"):
        logged(postgres_url)


def test_a_commit_that_does_not_wait_for_the_disk_is_not_accepted(
    postgres_server: Server, postgres_url: str
) -> None:
    database = database_of(postgres_url)
    postgres_server.execute(database, f"ALTER DATABASE {database} SET synchronous_commit = off")
    recorder = PostgresRecorder(postgres_url, "r0")
    connection = recorder._database._connection
    assert connection is not None
    assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    recorder.close()


def test_another_encoding_is_refused_at_the_start(postgres_server: Server) -> None:
    options = "ENCODING 'SQL_ASCII' TEMPLATE template0"
    url = postgres_server.create(f"test_{uuid.uuid4().hex}", options)
    with pytest.raises(ConfigError, match="SQL_ASCII"):
        PostgresRecorder(url, "r0")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://mlship:se%zzcret@127.0.0.1/mlship",
        "postgresql://127.0.0.1/mlship?passwort=secret",
        "mysql://mlship:se%zzcret@127.0.0.1/mlship",
    ],
)
def test_an_address_that_is_not_understood_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_sink(url, "r0", lambda: NOON)
    with pytest.raises(ConfigError) as read:
        PostgresObservations(url.replace("mysql", "postgresql"), {}, "iris").outcomes(OURS)
    for error in (caught.value, read.value):
        assert "cret@" not in error.message
        assert "%zzcret" not in f"{error.message}{error.hint}{error.__cause__}"


def test_a_password_comes_from_the_environment_too(
    postgres_server: Server, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = postgres_url.replace(f":{postgres_server.password}@", "@")
    given = {"PGPASSWORD": postgres_server.password}
    assert list(PostgresObservations(bare, given, "iris").predictions(OURS)) == []
    assert PostgresObservations(bare, given, "iris").take([outcome("a")], OURS) == Taken(
        new=0, known=0, unknown=("a",)
    )
    with pytest.raises(UnavailableError, match="password"):
        PostgresObservations(bare, {}, "iris").outcomes(OURS)
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)
    PostgresRecorder(bare, "r0").close()


def test_a_wrong_password_and_a_server_that_is_away_are_told_in_seconds(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlship.runtime.postgres.START", 0.5)
    away = postgres_server.url(password="wrong").replace(f":{postgres_server.port}/", ":1/")
    for url, reason in ((postgres_server.url(password="wrong"), "password"), (away, "refused")):
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=reason) as caught:
            PostgresRecorder(url, "r0")
        with pytest.raises(UnavailableError, match=reason):
            PostgresObservations(url, {}, "iris").outcomes(OURS)
        assert time.monotonic() - started < 5
        assert "wrong" not in f"{caught.value.message} {caught.value.hint}"


def test_a_restart_is_waited_for_and_a_longer_absence_is_told() -> None:
    with server() as own:
        recorder = PostgresRecorder(own.url(), "r0", patience=10)
        recorder.append([prediction("before.0")]).result(10)
        own.stop("immediate")
        waiting = recorder.append([prediction("meanwhile.0")])
        own.start()
        waiting.result(20)
        own.stop()
        recorder._patience = 0.5
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="cannot write the prediction log"):
            recorder.append([prediction("lost.0")]).result(20)
        assert time.monotonic() - started < 5
        own.start()
        recorder.append([prediction("after.0")]).result(20)
        recorder.close()
        assert logged(own.url()) == ["after.0", "before.0", "meanwhile.0"]
