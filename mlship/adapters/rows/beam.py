"""Apache Beam as the workers of a batch."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from mlship.adapters.rows.sessions import SessionWorkers
from mlship.adapters.rows.workers import ChildWorkers
from mlship.domain import environment as environments
from mlship.domain.batch_work import BeamOption


class BeamWorkers(SessionWorkers):
    """The port Workers, as elements of pipelines of Beam.

    Args:
        bundle: the folder of the bundle.
        options: of the pipelines, such as `runner`.
        environment: of the command.
        named: variables that the project lets its own code have, and its pipelines.
    """

    def __init__(
        self,
        bundle: Path,
        options: Mapping[str, BeamOption],
        environment: Mapping[str, str],
        named: Iterable[str] = (),
    ) -> None:
        super().__init__(
            "Beam",
            bundle,
            environments.of_user_code(environment, named) | {"PYTHONHASHSEED": "1"},
            ("--beam", msgspec.json.encode(options).decode()),
            ChildWorkers(bundle, 1, environment, named),
        )
