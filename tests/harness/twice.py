"""Commands that are run twice: what the second run writes into clusters and into the ledger."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mlship import wire
from mlship.adapters.targets.kubernetes.api import Kind, Manifest
from mlship.adapters.targets.kubernetes.manifests import KINDS
from mlship.cli.progress import Lines
from mlship.domain import digests
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Saw, Step
from mlship.domain.facts import PushedImage
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.steps.approve import approve
from mlship.steps.pipeline import Pipeline
from tests.fakes.store import tiny_bundle
from tests.harness import clusters, commands
from tests.harness.clusters import Cluster
from tests.harness.samples import better, nothing
from tests.harness.samples import release as sample

ROOT = Path(__file__).parents[2]
_KINDS: tuple[Kind, ...] = (*KINDS, "HTTPRoute", "ConfigMap")
_SECONDS = 600


class Ran(NamedTuple):
    """How a command ended, and the last line that it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """The line that tells a person how it went."""
        return [*self.stderr.splitlines(), *self.stdout.splitlines(), ""][-2 if self.stdout else 0]


@dataclasses.dataclass(frozen=True)
class Twice:
    """What the second of two equal commands did.

    Attributes:
        codes: the exit codes of both.
        generations: objects that came, went, or have another metadata.generation.
        writes: objects that are otherwise written anew, pods too: all but the status,
            resourceVersion where an object has none.
        touched: objects with another resourceVersion, whoever wrote it: controllers do so too.
        pods: how many came or went.
        records: the steps of the records that it added to the ledger.
        versions: whether the registry of models is another.
        said: what it told.
    """

    command: str
    codes: tuple[int, int]
    generations: list[str]
    writes: list[str]
    touched: list[str]
    pods: int
    records: list[str]
    versions: bool
    said: str


class _Seen(NamedTuple):
    generations: dict[str, Any]
    writes: dict[str, Any]
    touched: dict[str, Any]
    pods: frozenset[str]
    records: list[str]
    versions: Any


class Shop:
    """A project whose targets are in clusters, and its command line.

    Args:
        folder: with mlship.yaml.
        places: the cluster of each target, and any others of it; by any name.
        environment: added to that of the commands.
    """

    def __init__(
        self, folder: Path, places: Mapping[str, Cluster], environment: Mapping[str, str] = {}
    ) -> None:
        self.folder, self.places, self._added = folder, places, dict(environment)

    def pipeline(self) -> Pipeline:
        """Return the project's pipeline in this process."""
        environment = {**os.environ, **self._added}
        config = wire.read(self.folder / "mlship.yaml", {}, ()).config
        return wire.assemble(config, self.folder, Lines(), environment)

    def mlship(self, *arguments: str) -> Ran:
        """Run a command to its end."""
        done = commands.run(
            *arguments,
            folder=self.folder,
            environment={**os.environ, "PYTHONPATH": str(ROOT), **self._added},
            seconds=_SECONDS,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def done(self, *arguments: str) -> str:
        """Run a command that must succeed; return what it printed."""
        ran = self.mlship(*arguments)
        assert ran.code == 0, f"{arguments}: {ran.code}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def twice(self, *arguments: str) -> Twice:
        """Run a command, look, run it again, and look what is different."""
        # A pod that a busy machine keeps from answering its probe is none of the command's doing.
        clusters.until(self._are_ready, seconds=_SECONDS)
        first = self.mlship(*arguments)
        clusters.until(self._are_ready, seconds=_SECONDS)
        before = self.seen()
        second = self.mlship(*arguments)
        after = self.seen()
        return Twice(
            command=" ".join(arguments),
            codes=(first.code, second.code),
            generations=_other(before.generations, after.generations),
            writes=_other(before.writes, after.writes),
            touched=_other(before.touched, after.touched),
            pods=len(before.pods ^ after.pods),
            records=after.records[len(before.records) :],
            versions=before.versions != after.versions,
            said=second.said,
        )

    def _are_ready(self) -> bool:
        pipeline = self.pipeline()
        targets = pipeline.config.targets
        found = [one for name in targets for one in pipeline.target(name).inspect().values()]
        return all(one.ready == one.wanted for one in found)

    def seen(self) -> _Seen:
        """Return all that a second run should leave alone. Leases, taken and given back, are not.

        The status of an object is its controllers'; they may write it at any time.
        """
        generations, writes, touched, pods = {}, {}, {}, set()
        for where, place in self.places.items():
            with place.api() as api:
                for kind in _KINDS:
                    for one in api.list(kind, {}):
                        # The API leaves the kind out of lists.
                        name = f"{kind} {one['metadata']['name']} of {where}"
                        generations[name] = one["metadata"].get("generation")
                        writes[name] = _written(one)
                        touched[name] = one["metadata"]["resourceVersion"]
                for pod in api.list("Pod", {}):
                    pods.add(pod["metadata"]["uid"])
                    name = f"Pod {pod['metadata']['name']} of {where}"
                    writes[name] = _written(pod)
                    touched[name] = pod["metadata"]["resourceVersion"]
        pipeline = self.pipeline()
        records: list[str] = [record.evidence.step for record in pipeline.ledger.records()]
        return _Seen(
            generations, writes, touched, frozenset(pods), records, pipeline.store.versions()
        )


def _written(one: Manifest) -> str:
    """Return what changes with each write of an object, those of its status left out."""
    if not one.get("status", {}):
        return str(one["metadata"]["resourceVersion"])
    metadata = {key: value for key, value in one["metadata"].items() if key != "resourceVersion"}
    owned = [each for each in metadata.pop("managedFields", ()) if "subresource" not in each]
    rest = {key: value for key, value in one.items() if key not in ("metadata", "status")}
    return digests.of_value([metadata, owned, rest])


def proven(shop: Shop, name: str, router: str = "") -> Release:
    """Record a release whose image is the stand-in's, as training, tests and a push would.

    `router` is the image of the load balancer, for targets without a Gateway.
    """
    pipeline, folder = shop.pipeline(), shop.folder / f"bundle-{name}"
    release = msgspec.structs.replace(sample(name), bundle=tiny_bundle(folder, name))
    pipeline.store.record(Run(release=release, bundle=folder))
    image = clusters.artifact(slot_of(release))
    pushed = PushedImage(digest=image.digest, reference=image.location, router=router)
    steps: tuple[Step, ...] = ("train", "test", "test-container", "verify-staging-workload")
    saw = Saw(image=image.digest)
    for step in steps:
        pipeline.learn(release, step, "passed", nothing(step), saw)
    pipeline.learn(release, "push-to-registry", "passed", pushed, saw)
    return release


def won(shop: Shop, champion: Release, challenger: Release) -> None:
    """Record that the challenger is better, and that somebody approves of it."""
    pipeline = shop.pipeline()
    pipeline.learn(challenger, "evaluate", "passed", better(), Saw(champion=champion.id))
    approve(pipeline, challenger, "grace@example.org")


_NONE = object()


def _other(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = sorted({*before, *after})
    return [name for name in names if before.get(name, _NONE) != after.get(name, _NONE)]


def target(place: Cluster, **settings: Any) -> dict[str, Any]:
    """Return the section of mlship.yaml that leads to a namespace of a tests' cluster.

    `settings` are added to those of the cluster.
    """
    own = {"kubeconfig": str(place.path), "namespace": place.namespace}
    gateway = {"gateway": "gateway/gateway", "path": f"/{place.namespace}"}
    return section({**own, **gateway, **settings})


def section(kubernetes: dict[str, Any]) -> dict[str, Any]:
    """Return the section of a target with these settings of its cluster."""
    small = {"cpu": None, "memory": None, "prestop_seconds": 2}
    return {
        "kind": "kubernetes",
        "kubernetes": {**small, **kubernetes},
        "ready_seconds": 300,
        "drain_seconds": 5,
    }
