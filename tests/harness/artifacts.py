"""Repositories of a fake or a real registry, for documents of mlship."""

import uuid
from pathlib import Path

import httpx
import msgspec

from mlship.adapters.artifacts.artifacts import SharedArtifacts
from mlship.adapters.images.registry.client import PATIENCE
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.domain.image import reference
from tests.fakes.registry import FakeRegistry
from tests.fakes.timing import patient
from tests.harness import asking
from tests.harness.services import require

ADDRESS = "localhost:5000"


class Place:
    """A repository of a registry, real without a fake.

    Attributes:
        repository: its name in the registry.
        transport: stands in for the real registry.
        waits: the pauses between attempts, in seconds.
    """

    def __init__(self, fake: FakeRegistry | None, name: str, **environment: str) -> None:
        self.name = name
        self.repository = f"contract/{uuid.uuid4().hex}"
        self.waits: list[float] = []
        self.transport = fake.transport if fake else None
        self._environment = environment

    def artifacts(self, cache: Path) -> SharedArtifacts:
        """Return the documents as the next command opens them."""
        where = f"{ADDRESS}/{self.repository}"
        registries = Registries(
            ImageConfig(repository=where),
            self._environment,
            transport=self.transport,
            timing=patient(self.waits),
            patience=msgspec.structs.replace(PATIENCE, attempts=3),
        )
        return SharedArtifacts(registries, reference(where), self.name, cache)


def real_place(name: str) -> Place:
    """Return a new repository of the real registry; skip the test where it does not answer."""
    require("registry", answers(), "services up registry")
    return Place(None, name)


def answers() -> bool:
    """Return whether the real registry answers."""
    try:
        return asking.get(f"http://{ADDRESS}/v2/", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
