"""The backends of a batch: files, processes, and runs in a folder."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from mlship.adapters.rows.listing import LakeFiles
from mlship.adapters.rows.runs import FolderRuns, ManifestFiles
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
        count = config.batch.workers or processors()
        return ChildWorkers(bundle, count, environment, config.model.environment)

    def runs(output: str) -> Runs:
        if "://" in output:
            message = f"batch.output {output} is a URL, and outputs are written to a folder"
            raise ConfigError(message, hint="give a folder, which may be a mounted one")
        return FolderRuns((root / output).absolute())

    files = LakeFiles(root, root / ".mlship")
    return Batching(files=files, workers=workers, runs=runs, manifests=ManifestFiles())
