"""Spark as the workers of a batch."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from mlship.adapters.rows.sessions import SessionWorkers
from mlship.adapters.rows.workers import ChildWorkers
from mlship.domain import environment as environments

_MASTER: Final = "local[*,4]"
"""All cores of this machine; a task that fails is tried four times."""


class SparkWorkers(SessionWorkers):
    """The port Workers, as tasks of Spark.

    Args:
        bundle: the folder of the bundle.
        settings: of Spark.
        environment: of the command.
        named: variables that the project lets its own code have.
    """

    def __init__(
        self,
        bundle: Path,
        settings: Mapping[str, str],
        environment: Mapping[str, str],
        named: Iterable[str] = (),
    ) -> None:
        super().__init__(
            "Spark",
            bundle,
            environments.of_spark(environment, named),
            ("--spark", json.dumps({"spark.master": _MASTER, **settings})),
            ChildWorkers(bundle, 1, environment, named),
        )
