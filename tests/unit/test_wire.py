"""What mlship.yaml says of backends is what a command gets."""

from pathlib import Path

import pytest

from mlship import wire
from mlship.adapters.checkout import repository
from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.adapters.ledgers.mlflow import MlflowLedger
from mlship.adapters.ledgers.registry import RegistryLedger
from mlship.adapters.observations.directory import DirectoryObservations
from mlship.adapters.observations.postgres import PostgresObservations
from mlship.adapters.stores.registry import RegistryStore
from mlship.adapters.targets.kubernetes import ClustersTarget
from mlship.adapters.targets.local.state import Spooling
from mlship.cli.progress import Lines
from mlship.config.layers import from_environment, from_yaml, resolve
from mlship.errors import ConfigError
from mlship.steps.pipeline import Pipeline
from tests.fakes.store import tiny_evidence

LEAST = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
"""
POSTGRES = "observations: {kind: postgres, url: 'postgresql://ada@db.example.org/iris'}"

CLUSTERS = """
targets:
  staging: {kind: kubernetes}
  production:
    kind: kubernetes"""


@pytest.fixture(autouse=True)
def _no_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "settings", lambda root: {})
    monkeypatch.setattr(repository, "home", lambda root, known=None: "//")


def told(made: Pipeline, target: str) -> dict[str, str]:
    """Return the variables that the pods of a target are given by its settings."""
    return wire.cluster_target(target, made.config, "", made.progress, {})._config.kubernetes.env


def pipeline(root: Path, more: str = "", **environment: str) -> Pipeline:
    layers = [from_yaml(LEAST + more, "mlship.yaml"), from_environment(environment)]
    config = resolve(layers).config
    return wire.assemble(config, root, Lines(), {"GITHUB_ACTOR": "ada", **environment})


def test_by_default_everything_is_in_folders(tmp_path: Path) -> None:
    made = pipeline(tmp_path)
    assert isinstance(made.ledger, DirectoryLedger)
    assert isinstance(made.observations, DirectoryObservations)
    made.ledger.append(tiny_evidence())
    assert list((tmp_path / ".mlship" / "ledger").glob("??/*.json"))


def test_a_command_that_changes_something_keeps_the_state_to_its_owner(tmp_path: Path) -> None:
    state = tmp_path / ".mlship"
    config = pipeline(tmp_path).config
    assert state.stat().st_mode & 0o777 == 0o700
    state.chmod(0o755)
    wire.assemble(config, tmp_path, Lines(), {"GITHUB_ACTOR": "ada"}, "read")
    assert state.stat().st_mode & 0o777 == 0o755
    wire.assemble(config, tmp_path, Lines(), {"GITHUB_ACTOR": "ada"})
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_ledgers_folder_is_read_from_the_projects_folder(tmp_path: Path) -> None:
    pipeline(tmp_path, "ledger: {uri: shared/ledger}").ledger.append(tiny_evidence())
    assert list((tmp_path / "shared" / "ledger").glob("??/*.json"))


@pytest.mark.parametrize(
    ("more", "environment", "place"),
    [
        ("ledger: {kind: mlflow}", {}, "sqlite:///.../.mlship/mlflow.db"),
        ("ledger: {kind: mlflow}", {"MLFLOW_TRACKING_URI": "http://a:1"}, "http://a:1"),
        ("", {"MLSHIP_LEDGER__KIND": "mlflow", "MLSHIP_LEDGER__URI": "http://b:2"}, "http://b:2"),
        (
            "ledger: {kind: mlflow}\nstore: {kind: directory, uri: models}",
            {},
            "sqlite:///.../.mlship/mlflow.db",
        ),
    ],
)
def test_a_ledger_in_mlflow_is_where_the_store_is_unless_it_says_otherwise(
    tmp_path: Path, more: str, environment: dict[str, str], place: str
) -> None:
    ledger = pipeline(tmp_path, more, **environment).ledger
    assert isinstance(ledger, MlflowLedger)
    expected = place.replace("...", str(tmp_path))
    assert ledger._where == f"experiment iris-ledger of MLflow at {expected}"


def test_observations_in_postgresql_are_where_productions_replicas_log(tmp_path: Path) -> None:
    made = pipeline(tmp_path, POSTGRES)
    production, staging = (
        wire.local_target(name, made.config, made.state, made.progress)
        for name in ("production", "staging")
    )
    assert production._logs.place == "postgresql://ada@db.example.org/iris"
    assert staging._logs.place == str(tmp_path / ".mlship" / "predictions" / "staging")
    assert isinstance(made.observations, PostgresObservations)


@pytest.mark.parametrize("more", ["", "\n    kubernetes: {env_from_secret: password}"])
def test_productions_pods_are_told_the_database_with_or_without_a_secret(
    tmp_path: Path, more: str
) -> None:
    made = pipeline(tmp_path, f"{POSTGRES}{CLUSTERS}{more}")
    assert told(made, "production") == {"MLSHIP_LOG": "postgresql://ada@db.example.org/iris"}
    assert told(made, "staging") == {}


def test_pods_may_be_told_another_address_of_the_database(tmp_path: Path) -> None:
    more = "\n    kubernetes: {env: {MLSHIP_LOG: 'postgresql://replicas@database/iris'}}"
    made = pipeline(tmp_path, f"{POSTGRES}{CLUSTERS}{more}")
    assert told(made, "production") == {"MLSHIP_LOG": "postgresql://replicas@database/iris"}


@pytest.mark.parametrize("kind", ["local", "kubernetes"])
def test_a_password_is_kept_from_the_lists_of_processes_and_pods(tmp_path: Path, kind: str) -> None:
    more = f"\ntargets: {{production: {{kind: {kind}}}}}"
    made = pipeline(tmp_path, POSTGRES.replace("ada@", "ada:secret@") + more)
    with pytest.raises(ConfigError, match="has a password") as caught:
        made.target("production")
    assert "PGPASSWORD" in caught.value.hint
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("wrong", ["{kind: postgres}", "{url: 'postgresql://a@b/c'}"])
def test_the_kind_of_observations_and_their_address_go_together(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match="must be set together"):
        pipeline(tmp_path, f"observations: {wrong}")


SPOOLING = POSTGRES.replace("}", ", when_away: spool, spool_mb: 5}")


def test_only_productions_replicas_spool_and_only_if_they_are_told_to(tmp_path: Path) -> None:
    made = pipeline(tmp_path, SPOOLING)
    local = {
        name: wire.local_target(name, made.config, made.state, made.progress)._logs.spool
        for name in ("production", "staging")
    }
    folder = str(tmp_path / ".mlship" / "spool" / "production")
    assert local == {"production": Spooling(folder=folder, max_mb=5), "staging": None}
    in_clusters = pipeline(tmp_path, SPOOLING + CLUSTERS).config
    refusing = pipeline(tmp_path, POSTGRES + CLUSTERS).config
    sizes = [
        wire.cluster_target(name, config, "", made.progress, {})._spool_mb
        for name, config in [
            ("production", in_clusters),
            ("staging", in_clusters),
            ("production", refusing),
        ]
    ]
    assert sizes == [5, None, None]


def test_only_predictions_in_a_database_can_be_spooled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="when_away: spool is for kind postgres"):
        pipeline(tmp_path, "observations: {when_away: spool}")


IMAGES = "image: {repository: ghcr.io/ada/iris}\n"
IN_REGISTRY = "ledger: {kind: registry}\nstore: {kind: registry"


def test_a_ledger_and_a_store_in_a_registry_are_beside_the_images(tmp_path: Path) -> None:
    # The variable is for MLflow, and the settings name another kind.
    tracking = {"MLFLOW_TRACKING_URI": "https://mlflow.example.org"}
    made = pipeline(tmp_path, f"{IMAGES}{IN_REGISTRY}}}", **tracking)
    assert isinstance(made.ledger, RegistryLedger)
    assert isinstance(made.store, RegistryStore)
    assert made.shares_ledger
    assert places(made) == ["ghcr.io/ada/iris (project iris)"] * 2


def test_a_ledger_in_a_registry_is_where_its_store_is_unless_it_is_told(tmp_path: Path) -> None:
    elsewhere = f"{IMAGES}{IN_REGISTRY}, uri: ghcr.io/ada/evidence}}"
    made = pipeline(tmp_path, elsewhere)
    assert places(made) == ["ghcr.io/ada/evidence (project iris)"] * 2
    made = pipeline(tmp_path, elsewhere, MLSHIP_LEDGER__URI="ghcr.io/ada/ledger")
    assert places(made)[0] == "ghcr.io/ada/ledger (project iris)"


def test_a_job_that_may_only_read_adds_in_the_projects_folder(tmp_path: Path) -> None:
    local = {"MLSHIP_LEDGER__WRITES": "local", "MLSHIP_STORE__WRITES": "local"}
    made = pipeline(tmp_path, f"{IMAGES}{IN_REGISTRY}}}", **local)
    folder = tmp_path / ".mlship" / "registry" / "local"
    assert places(made) == [f"ghcr.io/ada/iris (project iris), with {folder}"] * 2


def test_a_ledger_in_a_registry_needs_a_repository_without_a_tag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ledger\.kind is registry") as caught:
        pipeline(tmp_path, "ledger: {kind: registry}")
    assert "image.repository" in caught.value.hint
    with pytest.raises(ConfigError, match=r"ledger\.uri ghcr\.io/ada/iris:1 has a tag"):
        pipeline(tmp_path, "ledger: {kind: registry, uri: 'ghcr.io/ada/iris:1'}")


def places(made: Pipeline) -> list[str]:
    """Return where a ledger and a store in a registry are."""
    return [each._artifacts.where for each in (made.ledger, made.store)]  # type: ignore[union-attr]


def test_a_target_with_clusters_is_locked_in_the_parents_and_logs_from_each(tmp_path: Path) -> None:
    more = """
observations: {kind: postgres, url: "postgresql://iris@db/iris"}
targets:
  production:
    kind: kubernetes
    kubernetes: {namespace: iris, env: {A: b}}
    clusters: {blue: {context: a}, green: {context: b, namespace: iris-green}}
    parent: green
"""
    made = pipeline(tmp_path, more)
    target = wire.cluster_target("production", made.config, "", made.progress, {})
    assert isinstance(target, ClustersTarget)
    locks = wire.cluster_locks("production", made.config, "ada", {})
    assert locks._namespace == "iris-green"
    for member in target._members.values():
        assert member.config.kubernetes.env["MLSHIP_LOG"] == "postgresql://iris@db/iris"
        assert member.config.kubernetes.env["A"] == "b"
