"""Training rows that are read in batches: the features are those of all rows at once."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from mlship.config.data import DataConfig
from mlship.errors import ConfigError, IntegrityError, ProjectError
from mlship.training import baseline, fit
from mlship.training import batches as batches_
from mlship.training.data import Data, read
from mlship.training.train import train
from tests.harness.projects import InProcess, flowers, project, request
from tests.harness.projects import config as config_of

ROWS = 1_000


def rows(count: int = ROWS, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "amount": generator.integers(0, 1_000, count),
            "height": generator.normal(size=count),
            "colour": generator.choice(["red", "green"], count),
            "is_new": generator.random(count) < 0.5,
            "target": generator.choice(["no", "yes"], count),
        }
    )
    frame.loc[count - 7, "height"] = np.nan
    frame.loc[count - 5, "colour"] = "blue"
    return frame


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_, "_EVEN", 20)


def written(root: Path, train: pd.DataFrame, test: pd.DataFrame, size: int = 64) -> DataConfig:
    train.to_parquet(root / "train.parquet", row_group_size=100)
    test.to_parquet(root / "test.parquet")
    return DataConfig(train="train.parquet", test="test.parquet", target="target", batch_rows=size)


def prepared(root: Path, data: Data, body: str) -> fit.Prepared:
    name = project(root, f"import pandas as pd\ndef pre(rows):\n    {body}\n", flowers())
    return fit.prepare(root, data, f"{name}:pre")


SUMS = "return rows.assign(size=rows.amount * rows.height, colour=rows.colour.str.upper())"


@pytest.mark.parametrize("with_nulls", [False, True])
def test_the_features_are_those_of_all_rows_at_once(tmp_path: Path, with_nulls: bool) -> None:
    train, test = rows(), rows(50, seed=1)
    if with_nulls:
        train.loc[500, "amount"] = np.nan  # all others become floats
        test["is_new"] = test["is_new"].astype("object")
        test.loc[3, "is_new"] = None
    config = written(tmp_path, train, test)
    data = read(tmp_path, config)
    whole = read(tmp_path, msgspec.structs.replace(config, batch_rows=None))
    assert len(data.train) < 100
    assert data.count == ROWS
    assert data.fields == whole.fields
    found, wanted = (prepared(tmp_path, each, SUMS) for each in (data, whole))
    pd.testing.assert_frame_equal(found.train, wanted.train)
    pd.testing.assert_frame_equal(found.test, wanted.test)
    assert [field.kind for field in found.columns] == [field.kind for field in wanted.columns]
    assert data.targets[0].train.tolist() == whole.targets[0].train.tolist()


def test_the_sample_has_what_the_fields_are_made_of(tmp_path: Path) -> None:
    data = read(tmp_path, written(tmp_path, rows(), rows(50, seed=1)))
    fields = {field.name: field for field in data.fields}
    assert fields["height"].nullable
    assert not fields["amount"].nullable
    assert fields["colour"].choices == ("blue", "green", "red")
    train = rows()
    assert data.train["amount"].max() == train["amount"].max()
    assert data.train["height"].min() == train["height"].min()
    numbers = data.train.index
    assert data.train["amount"].tolist() == train["amount"].iloc[numbers].tolist()


def test_held_out_rows_among_the_training_rows_are_counted(tmp_path: Path) -> None:
    train = rows()
    test = pd.concat([rows(20, seed=1), train.iloc[[333, 777]]], ignore_index=True)
    assert baseline.repeated(read(tmp_path, written(tmp_path, train, test))) == 2


MISTAKES = {
    "mean": (
        "return rows.assign(height=rows.height - rows.height.mean())",
        r"returns height = .* for row \d+ of train\.parquet among others",
    ),
    "columns": (
        "return rows.assign(other=1) if len(rows) == 40 else rows",
        "returns other columns for rows 961 to 1000 than for the training rows: column other",
    ),
    "rows": ("return rows[:3]", "returned 3 rows for 64 rows"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_hook_that_looks_across_rows_is_refused(tmp_path: Path, name: str) -> None:
    body, message = MISTAKES[name]
    data = read(tmp_path, written(tmp_path, rows(), rows(50, seed=1)))
    with pytest.raises(ProjectError, match=message):
        prepared(tmp_path, data, body)


def test_data_that_change_between_the_two_readings_are_refused(tmp_path: Path) -> None:
    data = read(tmp_path, written(tmp_path, rows(), rows(50, seed=1)))
    rows(seed=2).to_parquet(tmp_path / "train.parquet", row_group_size=100)
    with pytest.raises(IntegrityError, match=r"train\.parquet was changed while"):
        prepared(tmp_path, data, SUMS)
    rows()[:512].to_parquet(tmp_path / "train.parquet", row_group_size=100)
    with pytest.raises(IntegrityError, match="was changed"):
        prepared(tmp_path, data, SUMS)


def test_a_row_without_a_target_is_named(tmp_path: Path) -> None:
    train = rows()
    train.loc[700, "target"] = None
    with pytest.raises(ProjectError, match="1 rows have no target, first row 701"):
        read(tmp_path, written(tmp_path, train, rows(50, seed=1)))


def test_what_cannot_be_read_in_batches_is_refused(tmp_path: Path) -> None:
    config = written(tmp_path, rows(), rows(50, seed=1))
    with pytest.raises(ConfigError, match=r"needs data\.test"):
        read(tmp_path, msgspec.structs.replace(config, test=None))
    with pytest.raises(ConfigError, match=r"needs data\.target"):
        read(tmp_path, msgspec.structs.replace(config, target=None))
    rows().to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(ConfigError, match=r"train\.csv is neither"):
        read(tmp_path, msgspec.structs.replace(config, train="train.csv"))
    rows().astype({"colour": "category"}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ProjectError, match="column colour has pandas categories"):
        read(tmp_path, config)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ProjectError, match=r"train\.parquet cannot be read"):
        read(tmp_path, config)


@pytest.mark.parametrize(
    ("value", "kinds"),
    [([1.0, 2.0], ("ndarray", r"list<\w+: double>")), ({"a": 1}, ("dict", "struct<a: int64>"))],
)
def test_a_column_of_lists_or_structures_is_named(
    tmp_path: Path, value: Any, kinds: tuple[str, str]
) -> None:
    train, test = rows().assign(parts=[value] * ROWS), rows(50, seed=1)
    config = written(tmp_path, train, test.assign(parts=[value] * 50))
    with pytest.raises(ProjectError, match=f"column parts holds values of type {kinds[0]}"):
        read(tmp_path, config)
    config = written(tmp_path, train, test)
    with pytest.raises(ProjectError, match=f"column parts holds values of type {kinds[1]}"):
        read(tmp_path, config)


def test_a_version_of_a_delta_table_is_read_in_batches(tmp_path: Path) -> None:
    config = written(tmp_path, rows(), rows(50, seed=1))
    write_deltalake(tmp_path / "table", rows())
    data = read(tmp_path, msgspec.structs.replace(config, train="table"))
    whole = read(tmp_path, msgspec.structs.replace(config, train="table", batch_rows=None))
    found, wanted = (prepared(tmp_path, each, SUMS) for each in (data, whole))
    assert len(data.train) < 100
    pd.testing.assert_frame_equal(found.train, wanted.train)


def test_a_snapshot_of_an_iceberg_table_is_read_in_batches(tmp_path: Path) -> None:
    catalogs = pytest.importorskip("pyiceberg.catalog.sql", reason="pip install pyiceberg")
    database = f"sqlite:///{tmp_path}/catalog.db"
    catalog = catalogs.SqlCatalog("local", uri=database, warehouse=f"file://{tmp_path}")
    catalog.create_namespace("lake")
    arrow = pa.Table.from_pandas(rows(), preserve_index=False)
    table = catalog.create_table("lake.rows", schema=arrow.schema)
    table.append(arrow)
    config = written(tmp_path, rows(), rows(50, seed=1))
    place = str(Path(table.metadata_location.removeprefix("file://")).relative_to(tmp_path))
    data = read(tmp_path, msgspec.structs.replace(config, train=place))
    whole = read(tmp_path, msgspec.structs.replace(config, train=place, batch_rows=None))
    assert [len(each) for each in data.batches.features()] == [64] * 15 + [40]  # type: ignore[union-attr]
    found, wanted = (prepared(tmp_path, each, SUMS) for each in (data, whole))
    pd.testing.assert_frame_equal(found.train, wanted.train)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"command": "python train.py", "saved": "m.onnx", "train": None}, "reads its data itself"),
        ({}, r"needs model\.preprocess"),
    ],
)
def test_batches_without_a_hook_of_mlships_are_refused(
    tmp_path: Path, model: dict[str, Any], message: str
) -> None:
    setting = config_of(**model)
    setting = msgspec.structs.replace(
        setting, data=msgspec.structs.replace(setting.data, batch_rows=10)
    )
    with pytest.raises(ConfigError, match=message):
        train(request(tmp_path, setting), InProcess())


@pytest.mark.fits
def test_a_model_of_batches_is_that_of_all_rows(tmp_path: Path) -> None:
    code = """
from sklearn.linear_model import LogisticRegression
def pre(rows):
    return rows[["length", "width"]].assign(area=rows.length * rows.width)
def train(data, params):
    return LogisticRegression(max_iter=5000).fit(data.drop(columns="species"), data.species)
"""
    module = project(tmp_path, code)
    flowers(900).to_parquet(tmp_path / "train.parquet")
    flowers(90).to_parquet(tmp_path / "test.parquet")
    setting = config_of(module=module, preprocess=f"{module}:pre")
    data = DataConfig(train="train.parquet", test="test.parquet", target="species", batch_rows=100)
    made = {}
    for name, batch_rows in (("batches", 100), ("whole", None)):
        own = msgspec.structs.replace(data, batch_rows=batch_rows)
        asked = request(tmp_path, msgspec.structs.replace(setting, data=own), name)
        trained = train(asked, InProcess())
        assert trained.rows == 900
        made[name] = {
            path.name: path.read_bytes() for path in asked.into.rglob("*") if path.suffix == ".onnx"
        }
    assert made["batches"]
    assert made["batches"] == made["whole"]
