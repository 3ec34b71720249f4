"""The backends of a batch: files, processes, and runs in a folder."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlship.adapters.rows.beam import BeamWorkers
from mlship.adapters.rows.delta_runs import DeltaOutputs
from mlship.adapters.rows.listing import LakeFiles
from mlship.adapters.rows.object_runs import ObjectRuns
from mlship.adapters.rows.outputs import OutputFiles
from mlship.adapters.rows.postgres_runs import PostgresTable
from mlship.adapters.rows.runs import FolderRuns, ManifestFiles
from mlship.adapters.rows.spark import SparkWorkers
from mlship.adapters.rows.table_runs import TableRuns
from mlship.adapters.rows.workers import ChildWorkers, processors
from mlship.adapters.tables.delta import ADDRESS
from mlship.config.project import Config
from mlship.config.spark import check_spark
from mlship.domain import digests
from mlship.domain.batch_ports import OpenRuns, Runs, Workers
from mlship.domain.batch_sides import SHADOW
from mlship.domain.bundle import Field
from mlship.domain.databases import is_address
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
            check_spark(settings.spark)
            _check_installed("spark", "pyspark")
            return SparkWorkers(bundle, settings.spark, environment, named)
        if settings.engine == "beam":
            _check_installed("beam", "apache_beam")
            return BeamWorkers(bundle, settings.beam, environment, named)
        return ChildWorkers(bundle, settings.workers or processors(), environment, named)

    files = LakeFiles(root, root / ".mlship")
    return Batching(
        files=files,
        workers=workers,
        runs=runs_in(root),
        shadows=shadows_in(root),
        manifests=ManifestFiles(),
        outputs=OutputFiles(),
    )


def _check_installed(engine: str, library: str) -> None:
    if importlib.util.find_spec(library) is None:
        message = f"batch.engine is {engine}, and the library {library} is not installed"
        raise ConfigError(message, hint=f'pip install "mlship-cd[{engine}]"')


def runs_in(root: Path) -> OpenRuns:
    """Return what opens the runs in an output: a folder, a URL or a table.

    Args:
        root: the project's folder.
    """

    def runs(output: str, fields: Sequence[Field]) -> Runs:
        if is_address(output):
            return TableRuns(PostgresTable(output, fields), _copies(root, output))
        if output.startswith(ADDRESS):
            return TableRuns(DeltaOutputs(root, output, fields), _copies(root, output))
        return _files_in(root, output)

    return runs


def shadows_in(root: Path) -> OpenRuns:
    """Return what opens the runs of shadows: below the output, or beside the copies of a table.

    A table has no place that its readers pass over.

    Args:
        root: the project's folder.
    """

    def runs(output: str, _: Sequence[Field]) -> Runs:
        if is_address(output) or output.startswith(ADDRESS):
            return FolderRuns(_copies(root, output) / SHADOW)
        return _files_in(root, f"{output.rstrip('/')}/{SHADOW}")

    return runs


def _files_in(root: Path, output: str) -> Runs:
    if "://" in output:
        return ObjectRuns(output, root / ".mlship" / "batch" / "journals")
    return FolderRuns((root / output).absolute())


def _copies(root: Path, output: str) -> Path:
    """Return the folder with the copies of what a table got."""
    return (root / ".mlship" / "batch" / "outputs" / _name(output)).absolute()


def _name(output: str) -> str:
    """Return the name of the folder with the copies of what an address got."""
    return digests.short(digests.of_bytes(output.encode()))
