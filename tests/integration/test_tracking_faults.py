"""A tracking server in trouble: what is written there is written once, whole, and in time."""

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.ledgers.mlflow import MlflowLedger
from mlship.adapters.mlflow.rest import PATIENCE, connected
from mlship.adapters.stores.mlflow import MlflowStore
from mlship.domain import bundle
from mlship.domain.versions import Run
from mlship.errors import UnavailableError
from tests.fakes.store import tiny_bundle, tiny_evidence, tiny_release
from tests.harness import tracking
from tests.stand_ins.faulty import KINDS, Proxy, Storm, before

ROUNDS = 2
SHORT = msgspec.structs.replace(PATIENCE, first=0.05, longest=0.5)
"""As patient as commands are, with shorter pauses."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracking.server(tmp_path_factory.mktemp("server"), is_cold=False) as url:
        yield url


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with before(server) as opened:
        yield opened


def work(uri: str, name: str, folder: Path, environ: dict[str, str], rounds: int = ROUNDS) -> None:
    """Record, register, name, archive and prove some releases, as commands do."""
    for number in range(rounds):
        made = folder / f"made-{number}"
        release = tiny_release(tiny_bundle(made, f"model {number}"))
        store = MlflowStore(uri, name, folder, environ, SHORT)
        metrics = {"accuracy": 0.9}
        run = Run(release=release, params={"C": "1"}, metrics=metrics, bundle=made)
        store.record(run)
        store.point("champion", release)
        store.archive(release, archived=True)
        fetched = store.fetch(release, folder / f"fetched-{number}")
        assert bundle.read(fetched, expected=release.bundle)
        MlflowLedger(uri, name, folder, environ, SHORT).append(tiny_evidence(minute=number))


def test_three_failures_in_ten_are_waited_out_and_nothing_is_made_twice(
    server: str, proxy: Proxy, tmp_path: Path
) -> None:
    name = f"iris-{uuid.uuid4().hex[:8]}"
    proxy.storm = Storm(share=0.3)
    work(f"http://{proxy.host}", name, tmp_path, {})
    assert len(proxy.storm.counts) > len(KINDS) / 2, proxy.storm.counts
    versions = MlflowStore(server, name, tmp_path, {}).versions()
    assert [version.number for version in versions] == [str(n + 1) for n in range(ROUNDS)]
    assert [version.aliases for version in versions] == [()] * (ROUNDS - 1) + [("champion",)]
    assert all(version.archived for version in versions)
    records = MlflowLedger(server, name, tmp_path, {}).records()
    assert [record.evidence.time.minute for record in records] == list(range(ROUNDS))
    with connected(server, {}) as direct:
        for experiment in (name, f"{name}-ledger"):
            found = direct.get("experiments/get-by-name", {"experiment_name": experiment})
            query = {"experiment_ids": [found["experiment"]["experiment_id"]]}
            runs = direct.post("runs/search", query)["runs"]
            assert [run["info"]["status"] for run in runs] == ["FINISHED"] * ROUNDS


def test_without_repetitions_the_same_trouble_is_fatal(proxy: Proxy, tmp_path: Path) -> None:
    proxy.storm = Storm(share=0.3)
    with pytest.raises(UnavailableError):
        work(f"http://{proxy.host}", "control", tmp_path, {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})


@pytest.mark.parametrize("kind", ["lost", "truncated"])
def test_a_creation_whose_answer_is_lost_is_found(
    kind: str, server: str, proxy: Proxy, tmp_path: Path
) -> None:
    name = f"iris-{uuid.uuid4().hex[:8]}"
    proxy.storm = Storm(share=0.4, kinds=(kind,))
    work(f"http://{proxy.host}", name, tmp_path, {}, rounds=1)
    assert len(MlflowStore(server, name, tmp_path, {}).versions()) == 1
    with connected(server, {}) as direct:
        found = direct.get("experiments/get-by-name", {"experiment_name": name})
        query = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        assert len(direct.post("runs/search", query)["runs"]) == 1


def test_a_server_that_comes_back_is_waited_for(server: str, proxy: Proxy, tmp_path: Path) -> None:
    name = f"iris-{uuid.uuid4().hex[:8]}"
    release = tiny_release(tiny_bundle(tmp_path / "made"))
    store = MlflowStore(f"http://{proxy.host}", name, tmp_path, {})
    store.record(Run(release=release, params={"C": "1"}))
    proxy.down()
    back = threading.Timer(5, proxy.up)
    back.start()
    started = time.monotonic()
    store.record(Run(release=release, params={"C": "1"}, bundle=tmp_path / "made"))
    assert time.monotonic() - started >= 4, "the server was away"
    back.join()
    store.point("champion", release)
    assert [version.release for version in MlflowStore(server, name, tmp_path, {}).versions()] == [
        release.id
    ]


def test_a_server_that_stays_away_is_given_up_in_time_and_the_work_goes_on_later(
    server: str, proxy: Proxy, tmp_path: Path
) -> None:
    name = f"iris-{uuid.uuid4().hex[:8]}"
    hasty = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
    release = tiny_release(tiny_bundle(tmp_path / "made"))
    store = MlflowStore(f"http://{proxy.host}", name, tmp_path, hasty)
    run = Run(release=release, params={"C": "1"}, bundle=tmp_path / "made")
    store.record(run)
    proxy.down()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="4 attempts"):
        store.point("champion", release)
    assert time.monotonic() - started < 60
    proxy.up()
    store.record(run)
    store.point("champion", release)
    (version,) = store.versions()
    assert version.aliases == ("champion",)
