"""Mistakes with the container engine."""

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from tests.harness.sockets import silent
from tests.mistakes.project import Project
from tests.mistakes.registries import LOGIN, OwnRegistry
from tests.mistakes.remote import Remote, RemoteMistake
from tests.mistakes.starts import Starts
from tests.stand_ins.faulty import Fault, before

_SOCKET = "unix:///var/run/docker.sock"


class Engine(Remote):
    """The machine's engine, behind a proxy."""

    def __init__(self, project: Project, starts: Starts) -> None:
        super().__init__(project)
        self.proxy = project.held.enter_context(before(_SOCKET))
        project.variables["DOCKER_HOST"] = f"tcp://{self.proxy.host}"
        self.settle()

    def mend(self) -> None:
        super().mend()
        self.proxy.faults.clear()


class Withheld(OwnRegistry):
    """An image in a registry that asks the engine who it is."""

    def __init__(self, project: Project, starts: Starts) -> None:
        super().__init__(project, starts)
        project.done("test")
        project.done("push-to-registry")
        known = {"auths": {self.proxy.host: {"auth": b64encode(":".join(LOGIN).encode()).decode()}}}
        project.write(".git/docker/config.json", json.dumps(known))
        project.variables["DOCKER_CONFIG"] = str(project.folder / ".git" / "docker")
        self.settle()


def _without_login(remote: Remote) -> None:
    remote.project.variables["DOCKER_CONFIG"] = str(remote.project.folder / ".git")


def _host(address: str) -> Callable[[Remote], None]:
    return lambda remote: remote.project.variables.update(DOCKER_HOST=address)


def _silent(remote: Remote) -> None:
    port = remote.project.held.enter_context(silent())
    remote.project.variables["DOCKER_HOST"] = f"tcp://127.0.0.1:{port}"


def _full(remote: Engine) -> None:
    body = json.dumps({"message": "write /layer.tar: no space left on device"})
    remote.proxy.faults.append(Fault(status=500, body=body, at="^POST .*/images/(create|load)"))


def _tests(name: str, breaks: Callable[[Any], object], **more: Any) -> RemoteMistake:
    values: dict[str, Any] = {
        "on": "pushed",
        "at": Engine,
        "command": ("test", "--container"),
        "code": 4,
        "needs": ("registry", "docker"),
        "is_slow": True,
    }
    return RemoteMistake(name=name, breaks=breaks, **{**values, **more})


ENGINES = (
    _tests(
        "no Docker engine",
        _host("unix:///nowhere/docker.sock"),
        says="cannot connect to the Docker engine at unix:///nowhere/docker.sock",
        hints="start Docker",
    ),
    _tests(
        "a Docker engine of another machine",
        _host("tcp://192.0.2.1:2375"),
        code=2,
        says="is not on this machine",
        hints="DOCKER_HOST",
    ),
    _tests(
        "a Docker engine that is silent",
        _silent,
        says="Read timed out",
        hints="start Docker",
        seconds=120,
        is_rare=True,
    ),
    _tests(
        "the engine's disk is full",
        _full,
        on="imaged",
        leaves=("images",),
        says="no space left on device",
        hints="fix the problem that the engine reports",
    ),
    _tests(
        "the engine may not pull the image",
        _without_login,
        at=Withheld,
        on="imaged",
        says="no basic auth credentials",
        hints="docker login",
    ),
)
