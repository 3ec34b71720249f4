"""API keys as mlship writes them, its settings for them, and its own clients."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from mlship import files
from mlship.adapters.targets.local.processes import Process
from mlship.adapters.targets.local.replicas import discovery
from mlship.adapters.targets.local.state import Replica
from mlship.cli.main import app
from mlship.config.layers import from_yaml, resolve
from mlship.config.project import TargetConfig
from mlship.domain import api_keys
from mlship.domain.deployment import Slot
from mlship.domain.environment import of_serving, of_supervisor, of_user_code
from mlship.domain.workload import Request
from mlship.errors import ConfigError, ConflictError, NotFoundError, UnavailableError
from mlship.steps import api_keys as steps
from mlship.steps import replay
from mlship.steps.api_keys import KeyPlace

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
PROJECT = """
name: iris
data: {train: train.csv, test: test.csv}
model: {train: "pipeline:train"}
targets:
  staging: {kind: local}
  production: %s
"""
KEYED = "{kind: kubernetes, api_keys: api-keys.json, kubernetes: {context: k, %s}}"


@pytest.fixture
def place(tmp_path: Path) -> KeyPlace:
    return KeyPlace(path=tmp_path / "api-keys.json")


def test_a_key_is_random_and_only_its_hash_is_kept(place: KeyPlace) -> None:
    web, batch = (steps.add(place, name, NOON) for name in ("web", "batch"))
    assert len({web, batch, steps.add(place, "third", NOON)}) == 3
    assert len(web) >= len("mlship_") + 43, "256 bits"
    text = place.path.read_text()
    assert web not in text
    assert batch not in text
    keys = steps.keys_in(place)
    assert keys.names == ("web", "batch", "third")
    assert (keys.name_of(web), keys.name_of(batch), keys.name_of("x")) == ("web", "batch", "")


def test_a_key_is_replaced_by_one_of_another_name(place: KeyPlace) -> None:
    former = steps.add(place, "web", NOON)
    before = place.path.read_bytes()
    with pytest.raises(ConflictError, match="there is a key web already"):
        steps.add(place, "web", NOON)
    assert place.path.read_bytes() == before
    fresh = steps.add(place, "web2", NOON)
    steps.remove(place, "web")
    keys = steps.keys_in(place)
    assert (keys.name_of(former), keys.name_of(fresh)) == ("", "web2")
    with pytest.raises(NotFoundError) as gone:
        steps.remove(place, "web")
    assert gone.value.hint == "the keys are: web2"


@pytest.mark.parametrize("name", ["", "Web", "a b", "-a", 'a"} 1\n', "é", "a" * 64, "a\n"])
def test_a_name_may_stand_in_logs_and_metrics(place: KeyPlace, name: str) -> None:
    with pytest.raises(ConfigError, match="invalid name of a key"):
        steps.add(place, name, NOON)
    assert not place.path.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}x",
        b"[]",
        b"{}",
        b'{"keys": [{"name": "web", "sha256": "abc", "added": "2026-11-27T12:00:00Z"}]}',
        b'{"keys": [{"name": "web", "token": "secret"}]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_named_and_stays(place: KeyPlace, data: bytes) -> None:
    place.path.write_bytes(data)
    for act in (steps.keys_in, lambda place: steps.add(place, "web", NOON)):
        with pytest.raises(ConfigError, match=r"api-keys\.json is not a file of API keys"):
            act(place)
    assert place.path.read_bytes() == data


def test_a_missing_file_is_told_from_one_without_keys(place: KeyPlace) -> None:
    with pytest.raises(NotFoundError, match="there is no file of API keys at ") as missing:
        steps.keys_in(place)
    assert "mlship api-keys add NAME" in missing.value.hint
    steps.add(place, "web", NOON)
    steps.remove(place, "web")
    assert steps.keys_in(place).keys == ()


def test_a_file_behind_a_link_is_locked_and_written_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, linked = tmp_path / "shared" / "keys.json", tmp_path / "project" / "api-keys.json"
    for file in (real, linked):
        file.parent.mkdir()
    linked.symlink_to("../shared/keys.json")
    folders: list[Path] = []
    locked = files.locked

    def noted(folder: Path, *, waits: bool = False) -> AbstractContextManager[bool]:
        folders.append(folder)
        return locked(folder, waits=waits)

    monkeypatch.setattr(files, "locked", noted)
    token = steps.add(KeyPlace(path=linked), "web", NOON)
    assert linked.is_symlink()
    assert steps.keys_in(KeyPlace(path=real)).name_of(token) == "web"
    steps.add(KeyPlace(path=real), "batch", NOON)
    steps.remove(KeyPlace(path=linked), "web")
    assert linked.is_symlink()
    assert steps.keys_in(KeyPlace(path=linked)).names == ("batch",)
    assert folders == [real.parent] * 3, "a command by the link waits for one without it"


def test_a_folder_behind_a_link_is_locked(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "project").symlink_to(tmp_path / "shared")
    place = KeyPlace(path=tmp_path / "project" / "api-keys.json")
    steps.add(place, "web", NOON)
    assert steps.keys_in(place).names == ("web",)


def test_a_link_to_itself_is_refused_and_stays(place: KeyPlace) -> None:
    place.path.symlink_to(place.path.name)
    for act in (steps.keys_in, lambda place: steps.add(place, "web", NOON)):
        with pytest.raises(ConfigError, match=r"cannot read the API keys in .*api-keys\.json"):
            act(place)
    assert place.path.is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_keeps_its_mode(place: KeyPlace, mode: int) -> None:
    steps.add(place, "web", NOON)
    place.path.chmod(mode)
    before = os.umask(0o022)
    try:
        steps.add(place, "batch", NOON)
        steps.remove(place, "web")
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.path.stat().st_mode) == mode


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Let another user than the owner run the command; return who was made an owner."""
    made: list[tuple[int, int]] = []

    def status(handle: int) -> SimpleNamespace:
        own = os.stat(handle)
        return SimpleNamespace(st_uid=own.st_uid + 1, st_gid=own.st_gid + 1)

    monkeypatch.setattr(os, "fstat", status)
    monkeypatch.setattr(os, "fchown", lambda _handle, *owner: made.append(owner))
    return made


def test_a_file_keeps_its_owner(place: KeyPlace, owners: list[tuple[int, int]]) -> None:
    steps.add(place, "web", NOON)
    assert owners == [], "a new file is of who writes it"
    before = place.path.stat()
    steps.remove(place, "web")
    assert owners == [(before.st_uid, before.st_gid)]


@pytest.mark.usefixtures("owners")
def test_a_file_whose_owner_cannot_be_kept_is_not_written(
    place: KeyPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.add(place, "web", NOON)
    before = place.path.read_bytes()

    def refused(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(UnavailableError, match="cannot keep its owner, user ") as failure:
        steps.remove(place, "web")
    assert "as the owner of the file" in failure.value.hint
    assert place.path.read_bytes() == before
    assert list(place.path.parent.glob(".*.tmp")) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_keys_are_not_written_without_a_lock(
    place: KeyPlace, monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    @contextmanager
    def refused(_folder: Path, *, waits: bool = False) -> Iterator[bool]:
        assert waits
        yield False

    if is_there:
        steps.add(place, "web", NOON)
        before = place.path.read_bytes()
        monkeypatch.setattr(files, "locked", refused)
    else:
        place = KeyPlace(path=place.path.parent / "missing" / "api-keys.json")
    acts = (lambda: steps.add(place, "batch", NOON), lambda: steps.remove(place, "web"))
    for act in acts:
        with pytest.raises(UnavailableError, match="cannot lock") as failure:
            act()
        assert str(place.path.parent) in failure.value.message
        assert "create the folder" in failure.value.hint
    if is_there:
        assert place.path.read_bytes() == before


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    text = PROJECT % (KEYED % "api_keys_secret: iris-keys, namespace: iris")
    (tmp_path / "mlship.yaml").write_text(text)
    return tmp_path


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_commands_show_a_key_once_and_say_how_it_gets_into_the_cluster(project: Path) -> None:
    added = run("api-keys", "add", "web")
    token = added.stdout.strip()
    assert steps.keys_in(KeyPlace(path=project / "api-keys.json")).name_of(token) == "web"
    assert "not shown again" in added.stderr
    apply = "kubectl --context k --namespace iris create secret generic iris-keys --from-file=api-"
    assert apply in added.stderr
    assert "| kubectl --context k --namespace iris apply" in added.stderr
    batch = json.loads(run("--json", "api-keys", "add", "batch").stdout)
    assert batch["key"] != token
    listed = json.loads(run("--json", "api-keys", "list").stdout)
    assert [key["name"] for key in listed] == ["web", "batch"]
    assert "web" in run("api-keys", "list").stdout
    assert "was removed" in run("api-keys", "remove", "web").stdout
    assert [key["name"] for key in json.loads(run("--json", "api-keys", "list").stdout)] == [
        "batch"
    ]


def test_a_target_without_the_setting_is_told_the_setting(project: Path) -> None:
    with pytest.raises(ConfigError) as unset:
        run("api-keys", "add", "web", "--target", "staging")
    assert unset.value.hint == "in mlship.yaml, set targets.staging.api_keys: api-keys.json"
    with pytest.raises(ConfigError, match="there is no target other"):
        run("api-keys", "list", "--target", "other")
    assert not (project / "api-keys.json").exists()


def test_a_cluster_needs_a_secret_for_the_file() -> None:
    with pytest.raises(ConfigError) as missing:
        resolve([from_yaml(PROJECT % (KEYED % ""), "mlship.yaml")])
    assert "targets.production.api_keys" in missing.value.message
    assert "targets.production.kubernetes.api_keys_secret" in missing.value.hint
    alone = "{kind: kubernetes, kubernetes: {context: k, api_keys_secret: keys}}"
    config = resolve([from_yaml(PROJECT % alone, "mlship.yaml")]).config
    assert config.targets["production"].kubernetes.api_keys_secret == "keys"
    local = "{kind: local, api_keys: keys.json}"
    config = resolve([from_yaml(PROJECT % local, "mlship.yaml")]).config
    assert config.targets["production"].api_keys == "keys.json"


def test_only_targets_that_others_reach_are_warned_of() -> None:
    cluster = TargetConfig(kind="kubernetes")
    found = steps.openness(cluster, "production")
    assert found is not None
    assert "targets.production.kubernetes.api_keys_secret" in found[1]
    assert steps.openness(TargetConfig(), "production") is None
    own = msgspec.structs.replace(cluster.kubernetes, api_keys_secret="keys")
    keyed = msgspec.structs.replace(cluster, kubernetes=own)
    assert steps.openness(keyed, "production") is None


def test_mlships_own_clients_send_the_key_and_are_told_if_it_is_missing() -> None:
    heard: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        heard.append(request.headers.get("authorization", ""))
        is_right = heard[-1] == "Bearer right"
        body = {"release": "iris@1", "predictions": [{"x": 1}]}
        return httpx.Response(200 if is_right else 401, json=body if is_right else {})

    requests = [Request(name="one", body={"a": 1})]
    transport = httpx.MockTransport(answer)
    (reply,) = replay.replay(requests, "http://x", api_key="right", transport=transport)
    assert reply.status == 200
    for key, why in (("", "MLSHIP_API_KEY is not set"), ("wrong", "is not valid")):
        with pytest.raises(ConfigError) as refused:
            replay.replay(requests, "http://x", api_key=key, transport=transport)
        assert why in refused.value.message
        assert "mlship api-keys add" in refused.value.hint
        assert "wrong" not in str(refused.value)
    assert heard == ["Bearer right", "", "Bearer wrong"]


def test_no_process_that_runs_a_model_gets_the_key_of_a_command() -> None:
    environment = {api_keys.KEY: "secret", "PATH": "/bin"}
    for kept in (
        of_serving(environment),
        of_serving(environment, "postgresql://db/x"),
        of_supervisor(environment),
        of_user_code(environment),
    ):
        assert api_keys.KEY not in kept


def test_prometheus_finds_the_metrics_of_replicas() -> None:
    one = Replica(
        slot=Slot("rab"),
        number=2,
        process=Process(pid=1, started="x"),
        port=2000,
        metrics=2001,
        phase="ready",
    )
    former = msgspec.structs.replace(one, number=1, metrics=0)
    assert json.loads(discovery("production", [former, one])) == [
        {"targets": ["127.0.0.1:2001"], "labels": {"target": "production", "replica": "rab-2"}}
    ]
