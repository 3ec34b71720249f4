"""Iceberg tables as data: told by id, snapshot and schema of the metadata file that is named."""

import importlib.util
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlship.adapters.checkout import datafiles
from mlship.adapters.rows import iceberg
from mlship.adapters.rows.listing import LakeFiles
from mlship.adapters.tables import iceberg as iceberg_tables
from mlship.config.data import DataConfig
from mlship.errors import ConfigError, NotFoundError, ProjectError
from mlship.training.data import load, read

pytest.importorskip("pyiceberg", reason="pyiceberg is not installed: pip install pyiceberg")
ROWS = pd.DataFrame({"a": [1, 2, 3], "y": ["x", None, "z"]})


def digest(root: Path, text: str) -> str:
    return datafiles.sources(root, DataConfig(train=text, target="y"))[text]


def append(table: Any, rows: pd.DataFrame) -> str:
    """Append rows to a table; return the name of its metadata file, seen from the warehouse."""
    table.append(pa.Table.from_pandas(rows, schema=table.schema().as_arrow()))
    return str(table.metadata_location).rpartition("/warehouse/")[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "warehouse").mkdir()
    return tmp_path / "warehouse"


@pytest.fixture
def table(root: Path) -> Any:
    from pyiceberg.catalog.sql import SqlCatalog

    database = f"sqlite:///{root.parent}/catalog.db"
    catalog = SqlCatalog("local", uri=database, warehouse=f"file://{root}")
    catalog.create_namespace("plants")
    return catalog.create_table("plants.flowers", schema=pa.Table.from_pandas(ROWS).schema)


def test_a_metadata_file_is_its_snapshot_whatever_is_written_later(root: Path, table: Any) -> None:
    first = append(table, ROWS)
    known = digest(root, first)
    pd.testing.assert_frame_equal(load(root, first), ROWS)
    second = append(table, pd.DataFrame({"a": [4], "y": ["w"]}))
    assert second != first
    assert digest(root, first) == known
    pd.testing.assert_frame_equal(load(root, first), ROWS)
    assert digest(root, second) != known
    assert sorted(load(root, second).a) == [1, 2, 3, 4]


def test_a_column_that_is_renamed_is_another_digest_of_the_same_rows(
    root: Path, table: Any
) -> None:
    first = append(table, ROWS)
    with table.update_schema() as update:
        update.rename_column("a", "b")
    renamed = str(table.metadata_location).rpartition("/warehouse/")[2]
    assert digest(root, renamed) != digest(root, first)
    assert list(load(root, renamed)) == ["b", "y"]


def test_a_path_and_a_url_are_the_same_table(root: Path, table: Any) -> None:
    name = append(table, ROWS)
    address = f"file://{root}/{name}"
    assert digest(root, address) == digest(root, name)
    config = DataConfig(train=address, test=name, target="a")
    assert list(read(root, config).targets[0].test) == [1, 2, 3]


def test_what_is_missing_or_is_no_metadata_is_named(root: Path, table: Any) -> None:
    name = append(table, ROWS)
    with pytest.raises(ProjectError, match="missing"):
        digest(root, "none.metadata.json")
    (root / "other.metadata.json").write_text('{"rows": 3}')
    with pytest.raises(ProjectError, match=r"other\.metadata\.json cannot be read"):
        digest(root, "other.metadata.json")
    shutil.rmtree((root / name).parent.parent / "data")
    with pytest.raises(ProjectError, match="a file of the Iceberg table"):
        load(root, name)


def test_a_table_does_not_choose_code_to_run(root: Path, table: Any) -> None:
    name = append(table, ROWS)
    values = json.loads((root / name).read_text())
    values["properties"]["py-io-impl"] = "os.system"
    (root / "own.metadata.json").write_text(json.dumps(values))
    with pytest.raises(ProjectError, match="names code in its property py-io-impl"):
        digest(root, "own.metadata.json")


def test_it_needs_its_library(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="needs the library pyiceberg"):
        digest(root, "v1.metadata.json")


def test_a_batch_reads_the_files_of_a_snapshot(root: Path, table: Any) -> None:
    first = append(table, ROWS)
    second = append(table, pd.DataFrame({"a": [4], "y": ["w"]}))
    lake = LakeFiles(root, root / ".mlship")
    [one] = lake.list([first])
    assert pq.read_table(one.path).num_rows == 3
    assert [pq.read_table(each.path).num_rows for each in lake.list([second])].count(1) == 1
    assert len(lake.list([second])) == 2
    with pytest.raises(ConfigError, match="is an Iceberg table") as caught:
        lake.list(["plants"])
    assert "metadata.json" in caught.value.hint


def test_a_batch_refuses_a_table_whose_files_do_not_show_its_rows(root: Path, table: Any) -> None:
    append(table, ROWS)
    with table.update_schema() as update:
        update.rename_column("a", "b")
    renamed = str(table.metadata_location).rpartition("/warehouse/")[2]
    lake = LakeFiles(root, root / ".mlship")
    with pytest.raises(ConfigError, match="column a was renamed or made again"):
        lake.list([renamed])
    with pytest.raises(NotFoundError, match="a file of the Iceberg table"):
        lake.list(["nobody.metadata.json"])


@pytest.mark.parametrize(
    ("deletes", "form", "says"),
    [(["d.parquet"], "PARQUET", "another file deletes"), ([], "ORC", "are no Parquet")],
)
def test_a_batch_refuses_files_that_are_not_the_rows(
    monkeypatch: pytest.MonkeyPatch, deletes: list[str], form: str, says: str
) -> None:
    file = SimpleNamespace(file_path="s3://lake/a", file_format=SimpleNamespace(value=form))
    task = SimpleNamespace(delete_files=deletes, file=file)
    scan = SimpleNamespace(plan_files=lambda: [task])
    table = SimpleNamespace(metadata=SimpleNamespace(schemas=[]), scan=lambda: scan)
    monkeypatch.setattr(iceberg_tables, "opened", lambda *_: nullcontext(table))
    with pytest.raises(ConfigError, match=says):
        iceberg.files_of("s3://lake/1.metadata.json", "s3://lake/1.metadata.json")
