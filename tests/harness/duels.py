"""A champion and a challenger that behave as told, on a target that counts their requests."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from mlship.adapters.targets.kubernetes import KubernetesTarget
from mlship.adapters.targets.local import LocalTarget
from mlship.adapters.targets.local.state import Logging
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Artifact, Deployment, Slot
from mlship.domain.facts import Verified
from mlship.domain.release import Release
from mlship.steps import test as testing
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.train import train
from mlship.steps.watch import Watch, watch
from tests.fakes.ports import CONFIG, World, world
from tests.harness.clusters import Cluster
from tests.harness.places import STAND_IN, Place


class Local(LocalTarget):
    """A local target whose next replicas behave as told."""

    def __init__(self, local: Place, config: TargetConfig) -> None:
        logs = Logging(place=str(local.folder / "log"))
        super().__init__(
            "production", local.folder / "target", config, logs, local.notes, runtime=STAND_IN
        )
        self._local = local
        self.behaviour: dict[str, Any] = {}

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        """Deploy what behaves as told instead of the artifact."""
        location = self._local.artifact(slot, **self.behaviour).location
        behaving = msgspec.structs.replace(artifact, location=location)
        return super().deploy(release, behaving, slot, replicas=replicas)


class InCluster(KubernetesTarget):
    """A cluster whose next pods behave as told."""

    def __init__(self, place: Cluster) -> None:
        super().__init__(place.scope, place.config, place.access, place.notes)
        self._place = place
        self.behaviour: dict[str, Any] = {}

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        """Deploy what behaves as told instead of the artifact."""
        del artifact
        behaving = self._place.artifact(slot, **self.behaviour)
        return super().deploy(release, behaving, slot, replicas=replicas)


class Duel:
    """A champion, and a challenger with a share of the traffic.

    Args:
        folder: of the project.
        config: of production, as the steps read it.
        target: production itself.
        champion: how it behaves; by default well.
        challenger: likewise.
    """

    def __init__(
        self,
        folder: Path,
        config: TargetConfig,
        target: Local | InCluster,
        champion: dict[str, Any] | None = None,
        challenger: dict[str, Any] | None = None,
    ) -> None:
        targets = {**CONFIG.targets, "production": config}
        self.here: World = world(folder, msgspec.structs.replace(CONFIG, targets=targets))
        self.here.pipeline = dataclasses.replace(
            self.here.pipeline, clock=lambda: datetime.now(UTC)
        )
        self.target = target
        self.here.targets["production"] = target
        self.champion = self._deployed("C=1", champion or {})
        self.challenger = self._deployed("C=2", challenger or {})
        self.endpoint = target.routes().endpoint

    def _deployed(self, params: str, behaviour: dict[str, Any]) -> Release:
        here = self.here
        here.trainer.params = params
        release = train(here.pipeline).evidence.release
        testing.test(here.pipeline, release)
        deploy_staging(here.pipeline, release)
        here.pipeline.learn(release, "verify-staging-workload", "passed", Verified())
        self.target.behaviour = behaviour
        deploy_production(here.pipeline, release)
        return release

    def watch(self, seconds: float) -> Watch:
        """Look each second for so many seconds."""
        return watch(self.here.pipeline, every=1, seconds=seconds)

    @property
    def weights(self) -> dict[Slot, int]:
        """The weights that the load balancer has."""
        return self.target.routes().split.weights
