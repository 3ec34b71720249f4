"""Two projects of one repository on one tracking server, in one namespace behind one Gateway, and
with one database, at once and on the whole path: nothing of one reaches the other.

The name of one begins with the other's.
"""

import json
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from mlship.adapters.ledgers.mlflow import MlflowLedger
from mlship.adapters.mlflow.rest import PATIENCE
from mlship.adapters.stores.mlflow import MlflowStore
from mlship.adapters.targets.kubernetes.manifests import HOME, RELEASE
from mlship.domain.digests import short
from tests.harness import clusters, commands, postgres, tracking
from tests.harness.base import compiled
from tests.harness.clusters import REGISTRY, Cluster
from tests.harness.postgres import Server
from tests.harness.projects import flowers
from tests.harness.team import git

pytestmark = [
    pytest.mark.service("cluster"),
    pytest.mark.service("postgresql"),
    # Long, as those that need two clusters: they leave the second one to all others.
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(600),
]

CODE = """
from sklearn.tree import DecisionTreeClassifier


def train(data, params):
    return DecisionTreeClassifier(**params).fit(data.drop(columns="{0}"), data["{0}"])
"""
REMOTE = "https://github.com/ada/models.git"
COLUMNS = {"churn": ("length", "width", "species"), "churn-fraud": ("leaves", "price", "colour")}
"""The columns of each project, its target last."""
REQUESTS = 60


class Project:
    """A project in a clone of the repository of its own, and what it was answered.

    Args:
        name: of the project.
        clone: of the repository.
        password: of the database.
    """

    def __init__(self, name: str, clone: Path, password: str) -> None:
        self.name, self.clone = name, clone
        self.folder = clone / "models" / name
        self.home = f"github.com/ada/models//models/{name}"
        self.made: dict[str, str] = {}
        self.outcomes: dict[str, str] = {}
        self._password = password

    def mlship(self, *arguments: str) -> Any:
        kept = {name: os.environ[name] for name in ("HOME", "PATH")}
        done = commands.run(
            "--json",
            *arguments,
            folder=self.folder,
            environment={**kept, "PGPASSWORD": self._password},
            seconds=300,
        )
        assert done.returncode == 0, f"{self.name}: {arguments}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def roles(self) -> dict[str, str]:
        return {one["role"]: one["release"] for one in self.mlship("status")["releases"]}

    @cached_property
    def endpoint(self) -> str:
        return str(self.mlship("status")["endpoints"]["production"])

    def ask(self, count: int = REQUESTS) -> dict[str, tuple[str, str]]:
        """Send requests through the Gateway; return release and answer of each prediction."""
        *inputs, target = COLUMNS[self.name]
        rows = flowers()[inputs].to_dict("records")
        answers = {}
        with httpx.Client(timeout=20) as client:
            for row in (rows * count)[:count]:
                response = client.post(f"{self.endpoint}/predict", json=row)
                assert response.is_success, response.text
                prediction = response.json()["predictions"][0]
                release = response.headers["mlship-release"]
                answers[prediction["id"]] = (release, prediction[target])
        self.made |= {id_: release for id_, (release, _) in answers.items()}
        return answers

    def asked(self) -> set[str]:
        return {release for release, _ in self.ask(10).values()}

    def take_the_whole_path(self) -> None:
        """Go from a commit to the champion, to a better one by outcomes, and back."""
        self.mlship("run")
        first = self.roles()["champion"]
        assert self.asked() == {first}
        settings = self.folder / "mlship.yaml"
        settings.write_text(settings.read_text().replace("max_depth: 1", "max_depth: 3"))
        git("commit", "-q", "-a", "-m", f"Let {self.name} look deeper", at=self.clone)
        self.mlship("run")
        second = self.roles()["challenger"]
        answers = self.ask()
        assert {release for release, _ in answers.values()} == {first, second}
        labels = sorted({answer for _, answer in answers.values()})
        assert len(labels) > 1
        another = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
        self.outcomes = {
            id_: answer if release == second else another[answer]
            for id_, (release, answer) in answers.items()
        }
        file = self.clone.parent / f"{self.name}.csv"
        lines = (f"{id_},{outcome}" for id_, outcome in self.outcomes.items())
        file.write_text("\n".join(["prediction_id,outcome", *lines]))
        assert self.mlship("feedback", str(file))["new"] == REQUESTS
        assert self.mlship("evaluate")["verdict"] == "passed"
        self.mlship("promote", second)
        assert self.asked() == {second}
        self.mlship("rollback")
        assert self.asked() == {first}


def repository(top: Path, place: Cluster, mlflow: str, database: str) -> None:
    """Make a repository with both projects; each has its staging on this machine."""
    images = f"{REGISTRY}/two-{uuid.uuid4().hex[:8]}/models"
    for name, columns in COLUMNS.items():
        folder = top / "models" / name
        folder.mkdir(parents=True)
        (folder / "pipeline.py").write_text(CODE.format(columns[-1]))
        flowers()[list(columns)].to_csv(folder / "data.csv", index=False)
        kubernetes = {
            "kubeconfig": str(place.path),
            "namespace": place.namespace,
            "gateway": clusters.GATEWAY,
            "path": f"/{place.namespace}/{name}",
            "cpu": None,
            "memory": None,
            "prestop_seconds": 2,
            "env_from_secret": "predictions",
        }
        production = {
            "kind": "kubernetes",
            "kubernetes": kubernetes,
            "replicas": 1,
            "challenger_weight": 50,
            "ready_seconds": 240,
            "drain_seconds": 3,
        }
        settings = {
            "name": name,
            "data": {
                "train": "data.csv",
                "target": columns[-1],
                "split": {"fraction": 0.3, "stratify": columns[-1]},
            },
            "model": {"train": "pipeline:train", "params": {"max_depth": 1, "random_state": 0}},
            "gates": {
                "baseline": False,
                "min_rows": 1,
                "container": False,
                "promote": {"min_labels": 10, "approvals": 0},
            },
            "image": {"repository": images, "base": compiled()},
            "targets": {"staging": {"kind": "local"}, "production": production},
            "store": {"kind": "mlflow", "uri": mlflow},
            "ledger": {"kind": "mlflow"},
            "observations": {"kind": "postgres", "url": database},
        }
        (folder / "mlship.yaml").write_text(yaml.safe_dump(settings))
    (top / ".gitignore").write_text(".mlship/\n__pycache__/\n")
    git("init", "-q", "-b", "main", at=top)
    git("add", "-A", at=top)
    git("commit", "-q", "-m", "Start with two projects", at=top)


@pytest.fixture
def place() -> Iterator[Cluster]:
    with clusters.cluster() as found:
        yield found


@pytest.fixture
def database(place: Cluster) -> Iterator[Server]:
    with postgres.server(place.host()) as running:
        place.secret("predictions", PGPASSWORD=running.password)
        yield running


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "mlflow").mkdir()
    with tracking.server(tmp_path / "mlflow") as url:
        yield url


def test_two_projects_at_once_share_every_place_and_nothing_else(
    tmp_path: Path, place: Cluster, database: Server, mlflow_server: str
) -> None:
    url = database.create("models")
    bare = url.replace(f":{database.password}@", "@")
    repository(tmp_path / "origin", place, mlflow_server, bare)
    projects = []
    for name in COLUMNS:
        clone = tmp_path / f"clone-of-{name}"
        git("clone", "-q", str(tmp_path / "origin"), str(clone))
        git("remote", "set-url", "origin", REMOTE, at=clone)
        projects.append(Project(name, clone, database.password))
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Project.take_the_whole_path, projects))
        owners: dict[str, str] = {}
        for project in projects:
            status = project.mlship("status")
            assert status["drift"] == []
            assert [one["role"] for one in status["releases"]] == ["champion", "challenger"]
            assert status["others"] == []
            owners |= {one["release"].partition("@")[2]: project.name for one in status["releases"]}
        assert len(owners) == 4
        for project in projects:
            of_ledger(project, mlflow_server)
            of_registry(project, mlflow_server, owners)
            of_cluster(project, place, owners)
            of_database(project, url, owners)
        one, other = projects
        one.mlship("retire", "challenger")
        assert one.asked() == {one.roles()["champion"]}
        assert other.asked() == {other.roles()["champion"]}
        of_cluster(other, place, owners)
    finally:
        for project in projects:
            project.mlship("down")


def of_ledger(project: Project, server: str) -> None:
    records = MlflowLedger(server, project.name, project.folder, {}, PATIENCE).records()
    assert {record.evidence.release.name for record in records} == {project.name}
    assert {record.evidence.home for record in records} == {project.home}
    steps = {record.evidence.step for record in records}
    assert {"train", "deploy-production", "evaluate", "promote", "rollback"} <= steps


def of_registry(project: Project, server: str, owners: dict[str, str]) -> None:
    store = MlflowStore(server, project.name, project.folder, {}, PATIENCE)
    versions = store.versions()
    assert {owners[short(version.release)] for version in versions} == {project.name}
    aliases = sorted(alias for version in versions for alias in version.aliases)
    assert aliases == ["challenger", "champion"]


def of_cluster(project: Project, place: Cluster, owners: dict[str, str]) -> None:
    own = {"app.kubernetes.io/name": project.name}
    slots = {f"{project.name}-production-r{digits}" for digits in owners}
    with place.api() as api:
        assert {
            owners[one["metadata"]["labels"][RELEASE]] for one in api.list("Deployment", own)
        } == {project.name}
        [route] = api.list("HTTPRoute", own)
    assert route["metadata"]["annotations"][HOME] == project.home
    backends = {ref["name"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]}
    assert len(backends) == 2
    assert backends <= slots


def of_database(project: Project, url: str, owners: dict[str, str]) -> None:
    with psycopg.connect(url) as connection:
        logged = {
            id_: release
            for id_, release in connection.execute("SELECT id, release FROM mlship_predictions")
            if owners[short(release)] == project.name
        }
        query = "SELECT prediction, value #>> '{}' FROM mlship_outcomes WHERE project = %s"
        outcomes: dict[str, str] = dict(connection.execute(query, [project.name]).fetchall())
        query = "SELECT home FROM mlship_projects WHERE name = %s"
        assert connection.execute(query, [project.name]).fetchone() == (project.home,)
    answered = {id_: release.partition("@")[2] for id_, release in project.made.items()}
    assert {id_: short(release) for id_, release in logged.items()} == answered
    assert outcomes == project.outcomes
