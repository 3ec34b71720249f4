"""The backends of a batch: files, processes, and runs in a folder."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from mlship.adapters.rows.listing import LakeFiles
from mlship.adapters.rows.runs import FolderRuns, ManifestFiles
from mlship.adapters.rows.spark import SparkWorkers
from mlship.adapters.rows.workers import ChildWorkers, processors
from mlship.config.project import Config
from mlship.domain.batch_ports import Runs, Workers
from mlship.errors import ConfigError
from mlship.steps.batch import Batching


def batching(config: Config, root: Path, environment: Mapping[str, str]) -> Batching:
    """Return the ports of a batch. Nothing is opened or started yet."""

    def workers(bundle: Path) -> Workers:
        if importlib.util.find_spec("pyarrow") is None:
            message = "a batch needs the library pyarrow, which is not installed"
            raise ConfigError(message, hint='pip install "mlship-cd[batch]"')
        settings, named = config.batch, config.model.environment
        if settings.engine == "spark":
            if importlib.util.find_spec("pyspark") is None:
                message = "batch.engine is spark, and the library pyspark is not installed"
                raise ConfigError(message, hint='pip install "mlship-cd[spark]"')
            return SparkWorkers(bundle, settings.spark, environment, named)
        return ChildWorkers(bundle, settings.workers or processors(), environment, named)

    def runs(output: str) -> Runs:
        if "://" in output:
            message = f"batch.output {output} is a URL, and outputs are written to a folder"
            raise ConfigError(message, hint="give a folder, which may be a mounted one")
        return FolderRuns((root / output).absolute())

    files = LakeFiles(root, root / ".mlship")
    return Batching(files=files, workers=workers, runs=runs, manifests=ManifestFiles())
