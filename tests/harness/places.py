"""A local target for tests: in a folder of its own, with the stand-in for the runtime."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mlship.adapters.targets.local import LocalTarget, Safeguards, loopback
from mlship.adapters.targets.local.processes import Process, is_alive
from mlship.adapters.targets.local.state import Logging, Replica, Router, Running, State
from mlship.config.project import TargetConfig
from mlship.domain import digests
from mlship.domain.deployment import Artifact, Deployment, Slot, slot_of
from mlship.domain.release import Release

STAND_IN = (sys.executable, str(Path(__file__).parents[1] / "stand_ins" / "runtime.py"))
CONFIG = TargetConfig(ready_seconds=20, drain_seconds=3)


class Notes:
    """Hears progress."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class Place:
    """A local target and its folder, with what tests do to it."""

    def __init__(self, folder: Path, config: TargetConfig = CONFIG) -> None:
        self.folder = folder
        self.state = State(folder / "target")
        self.notes = Notes()
        self.target = self.again(config)

    def again(
        self, config: TargetConfig = CONFIG, safeguards: Safeguards | None = None
    ) -> LocalTarget:
        """Return the target as another command sees it."""
        return LocalTarget(
            "staging",
            self.folder / "target",
            config,
            Logging(place=str(self.folder / "log")),
            self.notes,
            safeguards or Safeguards(),
            runtime=STAND_IN,
        )

    def artifact(self, name: str, **behaviour: object) -> Artifact:
        """Return a bundle for the stand-in, which behaves as told."""
        folder = self.folder / "bundles" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stand-in.json").write_text(json.dumps(behaviour))
        digest = digests.of_bytes(name.encode())
        return Artifact(kind="bundle", digest=digest, location=str(folder))

    def deploy(self, release: Release, *, replicas: int = 1, **behaviour: object) -> Slot:
        """Deploy a release in its slot."""
        slot = slot_of(release)
        artifact = self.artifact(slot, **behaviour)
        found: Deployment = self.target.deploy(release, artifact, slot, replicas=replicas)
        assert found.ready == replicas
        return slot

    def route(self, weights: dict[Slot, int], shadow: Slot | None = None) -> None:
        """Set the split from wherever it is."""
        split = msgspec.structs.replace(self.target.routes().split, weights=weights, shadow=shadow)
        self.target.route(split, expected=self.target.routes().revision)

    @property
    def running(self) -> Running:
        """What the supervisor wrote down."""
        return self.state.running()

    @property
    def router(self) -> Router:
        router = self.running.router
        assert router is not None
        return router

    @property
    def port(self) -> int:
        """The router's port."""
        return int(self.target.routes().endpoint.rpartition(":")[2])

    @property
    def supervisor(self) -> int:
        """The supervisor's pid."""
        return int(self.state.supervisor.read_text().partition(":")[0])

    def processes(self) -> list[Process]:
        """Everything that the supervisor started and wrote down."""
        router = self.running.router
        found = [replica.process for replica in self.running.replicas]
        return found + ([router.process] if router and router.process else [])

    def log(self) -> list[dict[str, str]]:
        """What the stand-ins were asked."""
        files: Sequence[Path] = sorted((self.folder / "log").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def accepts(replica: Replica) -> bool:
    """Return whether a replica may accept a connection, which would be lost with it.

    A killed process counts as ended before the last of its threads has closed its sockets.
    """
    return is_alive(replica.process) or loopback.listens(replica.port, seconds=1)


@contextmanager
def place(folder: Path, config: TargetConfig = CONFIG) -> Iterator[Place]:
    """Give a local target and stop all of it in the end, whatever the test did to it."""
    found = Place(folder, config)
    try:
        yield found
    finally:
        started = found.processes()
        found.target.down()
        for process in started:
            if is_alive(process):
                os.killpg(process.pid, signal.SIGKILL)
