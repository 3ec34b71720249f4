"""Kill pods and the database under load: is any acknowledged prediction missing from PostgreSQL?

A release of iris runs in a cluster, as a champion with two pods behind a Gateway, and logs to
PostgreSQL. Requests arrive through the Gateway at a constant 100 per second. At random moments, the
process of a ready pod gets SIGKILL. If the pod was killed before, it is also deleted without a
grace period and replaced, because of the kubelet's growing back-off. Half-way, all processes of
PostgreSQL get SIGKILL, and it is restarted. Afterwards, each prediction id that a client received
is looked up in the table.

The control is the same image, but it responds first and logs a second later
(benchmarks/late_log.py). It shows that lost predictions are detected.

    TEST_KUBECONFIG=... python benchmarks/pods.py --kills 20

The cluster's nodes must be on this machine, and the user must be root, because processes are
killed by their ids. Images are pushed to localhost:5000.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import demo
import msgspec
from durability import Tally, Users

from mlship import wire
from mlship.adapters.observations.postgres import PostgresObservations
from mlship.adapters.targets.kubernetes import KubernetesTarget
from mlship.adapters.targets.kubernetes.api import Manifest
from mlship.adapters.targets.kubernetes.pod_status import is_ready
from mlship.cli.progress import Lines
from mlship.config.backends import ObservationsConfig
from mlship.config.project import Config, TargetConfig
from mlship.domain.deployment import Artifact, Slot, Split, slot_of
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from tests.harness import clusters, postgres
from tests.harness.clusters import Cluster
from tests.harness.postgres import Server

RATE = 100
PAUSES = 2.0, 4.0
"""The minimum and the maximum of seconds between two kills."""
PATIENCE = 300.0
"""The time limit in seconds for pods to become ready on a busy machine."""
CONTROL = 5
"""The number of kills for the control."""
CREDENTIALS = "predictions"
REPOSITORY = f"{clusters.REGISTRY}/mlship-benchmarks/iris"
SETTINGS = {
    "MLSHIP_IMAGE__REPOSITORY": REPOSITORY,
    "MLSHIP_IMAGE__BASE": f"{clusters.REGISTRY}/library/python:3.11-slim",
}


class Side(NamedTuple):
    """The kills on one side, the responses to its clients, and the missing predictions."""

    name: str
    kills: int
    tally: Tally
    missing: int

    def row(self) -> str:
        """Return it as a line."""
        got, failed = len(self.tally.acknowledged), self.tally.failed
        return (
            f"{self.name:10} {got + failed.total()} requests, {got} acknowledged, "
            f"{self.missing} of them missing, {failed.total()} failed {dict(failed) or ''}"
        ).rstrip()


def main() -> None:
    """Run the benchmark; exit with 1 if a prediction is missing, or the control loses none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7, help="of the moments and the victims")
    options = parser.parse_args()
    clusters.kubeconfig()  # before minutes are spent on what needs it
    os.environ.update(SETTINGS)
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "iris"
        demo.new_repository(folder)
        for command in ("train", "containerize", "push-to-registry"):
            demo.mlship(folder, command)
        release, image = pushed(folder)
        protected = measure("protected", folder, release, image, options.kills, dice)
        late = answering_early(image, folder / ".mlship")
        control = measure("control", folder, release, late, min(options.kills, CONTROL), dice)
    sys.exit(not verdict(protected, control))


def pushed(folder: Path) -> tuple[Release, Artifact]:
    """Return the release that was trained, and its image in the registry."""
    config = wire.read(folder / "mlship.yaml", os.environ, ()).config
    targets = {"production": TargetConfig(kind="kubernetes")}
    config = msgspec.structs.replace(config, targets=targets)
    pipeline = wire.assemble(config, folder, Lines(), os.environ)
    records = pipeline.read()
    release = pipeline.release(None, records)
    return release, pipeline.artifact(release, "production", records)


def answering_early(image: Artifact, folder: Path) -> Artifact:
    """Return an image with one difference: it responds before it logs."""
    clusters.run("docker", "pull", "--quiet", image.location)
    form = "{{json .Config.Entrypoint}}"
    start = json.loads(clusters.run("docker", "inspect", "--format", form, image.location))
    module = start.index("-m")
    start[module : module + 2] = ["/late_log.py"]
    text = f"FROM {image.location}\nCOPY late_log.py /\nENTRYPOINT {json.dumps(start)}\n"
    (folder / "Dockerfile").write_text(text)
    shutil.copy(Path(__file__).with_name("late_log.py"), folder)
    location = clusters.built(f"{REPOSITORY}:late", folder)
    return Artifact(kind="image", digest=Digest(location.partition("@")[2]), location=location)


def measure(
    name: str, folder: Path, release: Release, image: Artifact, kills: int, dice: random.Random
) -> Side:
    """Serve a release from pods, kill pods under load, and count missing predictions."""
    print(f"\n{name}: {kills} kills of pods, 1 of PostgreSQL", flush=True)
    with clusters.cluster() as place, postgres.server(place.host()) as database:
        url = database.create("predictions")
        config = configured(folder, place, url.replace(f":{database.password}@", "@"))
        place.secret(CREDENTIALS, PGPASSWORD=database.password)
        target = wire.cluster_target("production", config, "", Lines(), os.environ)
        assert isinstance(target, KubernetesTarget)
        place.target = target
        slot = slot_of(release)
        place.target.deploy(release, image, slot, replicas=2)
        place.target.route(Split(weights={slot: 100}), expected=place.target.routes().revision)
        users = Users(place.target.routes().endpoint, demo.flowers(folder)[0][0], RATE)
        try:
            kill_all(place, slot, database, kills, dice)
        finally:
            tally = users.end()
        observations = PostgresObservations(url, {}, config.name)
        logged = {one.id for one in observations.predictions({release.id})}
    missing = sum(one not in logged for one in tally.acknowledged)
    side = Side(name=name, kills=kills, tally=tally, missing=missing)
    print(side.row(), flush=True)
    return side


def configured(folder: Path, place: Cluster, url: str) -> Config:
    """Return the example's settings, with production in the cluster and predictions in a database.

    The Secret has nothing but the password.
    """
    config = wire.read(folder / "mlship.yaml", os.environ, ()).config
    own = msgspec.structs.replace(place.kubernetes, env_from_secret=CREDENTIALS)
    production = msgspec.structs.replace(place.config, kubernetes=own, ready_seconds=PATIENCE)
    return msgspec.structs.replace(
        config,
        targets={"production": production},
        observations=ObservationsConfig(kind="postgres", url=url),
    )


def kill_all(place: Cluster, slot: Slot, database: Server, kills: int, dice: random.Random) -> None:
    """Kill at random moments, and wait for the last replies."""
    for number in range(kills):
        let_serve(place, slot, dice)
        kill(place, dice.choice(ready(place, slot)))
        print(f"  {number + 1} of {kills} killed", flush=True)
        if number == kills // 2:
            let_serve(place, slot, dice)
            database.kill()
            database.start()
    ready(place, slot, 2)
    time.sleep(1)


def let_serve(place: Cluster, slot: Slot, dice: random.Random) -> None:
    """Serve requests for a random time, because a kill before that shows nothing."""
    ready(place, slot)
    time.sleep(dice.uniform(*PAUSES))


def ready(place: Cluster, slot: Slot, count: int = 1) -> list[Manifest]:
    """Wait for ready pods of a slot; return them."""
    found: list[Manifest] = []

    def look() -> bool:
        found[:] = [pod for pod in place.pods(slot) if is_ready(pod)]
        return len(found) >= count

    clusters.until(look, seconds=PATIENCE)
    return found


def kill(place: Cluster, pod: Manifest) -> None:
    """Send SIGKILL to the processes in a pod's container, found by its id in their groups."""
    (status,) = pod["status"]["containerStatuses"]
    container = status["containerID"].rpartition("/")[2]
    for group in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            is_inside = container in group.read_text()
        except OSError:
            continue
        if is_inside:
            os.kill(int(group.parent.name), signal.SIGKILL)
    if status["restartCount"]:
        with place.api() as api:
            api.delete("Pod", pod["metadata"]["name"], grace=0)


def verdict(protected: Side, control: Side) -> bool:
    """Print the result of both sides; return whether it is as expected."""
    total = len(protected.tally.acknowledged)
    said = f"{protected.missing} of {total} acknowledged predictions are missing"
    print(f"\n{said} after {protected.kills} kills of pods and one of PostgreSQL")
    if not control.missing:
        print("the control lost none, so the benchmark would not detect lost predictions")
    return total > 0 and not protected.missing and control.missing > 0


if __name__ == "__main__":
    main()
