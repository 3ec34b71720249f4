"""Data files as DataFrames: kinds, choices, and each mistake with a next step."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from mlship.adapters.checkout import heads
from mlship.config.data import DataConfig
from mlship.errors import ConfigError, IntegrityError, ProjectError
from mlship.training.columns import rows_of
from mlship.training.data import Data, read


def take(root: Path, text: str, name: str = "train.csv", **settings: Any) -> Data:
    (root / name).write_text(text)
    values = {"train": name, "target": "y", "split": {"fraction": 0.5}, **settings}
    return read(root, msgspec.convert(values, DataConfig))


def test_kinds_choices_and_examples(tmp_path: Path) -> None:
    text = "n,i,t,b,y\n" + "".join(f"{k}.5,{k},v{k % 2},{k % 3 == 0},{k}\n" for k in range(8))
    data = take(tmp_path, text)
    assert {field.name: field.kind for field in data.fields} == {
        "n": "number",
        "i": "integer",
        "t": "text",
        "b": "boolean",
    }
    assert data.fields[2].choices == ("v0", "v1")
    assert isinstance(data.fields[1].example, int)
    assert data.targets[0].name == "y"


def test_missing_values_make_a_column_nullable_and_integers_numbers(tmp_path: Path) -> None:
    text = "i,t,b,y\n1,a,True,0\n,,,0\n3,c,False,1\n4,d,True,1\n"
    data = take(tmp_path, text)
    assert [(field.kind, field.nullable) for field in data.fields] == [
        ("number", True),
        ("text", True),
        ("boolean", True),
    ]
    every = [*rows_of(data.train), *rows_of(data.test)]
    assert {"i": None, "t": None, "b": None} in every


def test_one_part_may_have_whole_numbers_only(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("x,y\n1.5,0\n2.5,1\n")
    data = take(tmp_path, "x,y\n1,0\n2,1\n", test="test.csv", split=None)
    assert data.fields[0].kind == "number"
    assert data.train["x"].dtype == data.test["x"].dtype == "float64"


def test_columns_may_stand_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("y,b,a\n0,2,1\n")
    data = take(tmp_path, "a,b,y\n1,2,0\n", test="test.csv", split=None)
    assert rows_of(data.test) == [{"a": 1, "b": 2}]


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz", "d.jsonl", "d.jsonl.gz", "d.parquet"])
def test_formats_give_the_same_rows(name: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2, 3, 4], "t": ["ä", "b", "c", "d"], "y": [0, 1, 0, 1]})
    path = tmp_path / name
    if ".parquet" in name:
        frame.to_parquet(path)
    elif "jsonl" in name:
        text = frame.to_json(orient="records", lines=True, force_ascii=False).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    else:
        frame.to_csv(path, index=False)
    values = {"train": name, "target": "y", "split": {"fraction": 0.5, "stratify": "y"}}
    data = read(tmp_path, msgspec.convert(values, DataConfig))
    rows = sorted([*rows_of(data.train), *rows_of(data.test)], key=str)
    assert sorted(rows, key=lambda row: str(row["x"])) == [
        {"x": x, "t": t} for x, t in zip([1, 2, 3, 4], "äbcd", strict=True)
    ]


def test_dates_become_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"day": pd.to_datetime(["2026-01-02", "2026-03-04"]), "y": [0, 1]})
    frame.to_parquet(tmp_path / "d.parquet")
    values = {"train": "d.parquet", "target": "y", "split": {"fraction": 0.5}}
    data = read(tmp_path, msgspec.convert(values, DataConfig))
    assert data.fields[0].kind == "text"
    assert str(data.fields[0].example).endswith("T00:00:00")


MISTAKES = {
    "empty": ("", "is empty", "header"),
    "no rows": ("a,y\n", "has no rows", "fill it"),
    "no target": ("a,Y_\n1,2\n", "has no column y", "there are: a, Y_"),
    "near target": ("a,yy\n1,2\n", "has no column y", "did you mean yy"),
    "missing target": ("a,y\n1,0\n2,\n", "1 rows have no y, first row 2", "fill"),
    "doubled": ("a,a,y\n1,2,3\n", "the column a twice", "rename"),
    "no features": ("y\n1\n2\n", "no column besides the target", "add"),
    "ragged": ("a,y\n1,2,3\n4,5,6\n", "row 1 has 3 fields, and the header 2", "correct the row"),
    "infinite": ("a,y\ninf,2\n1,3\n", "column a holds an infinite number", "cap"),
    "one row": ("a,y\n1,2\n", "cannot be split", "add rows"),
    "no text": ("a,y\n\ufffd,1\n", "is not in utf-8: byte 4 is 0xff", "encoding"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(name: str, tmp_path: Path) -> None:
    text, said, hint = MISTAKES[name]
    if name == "no text":
        (tmp_path / "train.csv").write_bytes(b"a,y\n\xff\xfe,1\n")
        values = {"train": "train.csv", "target": "y", "split": {"fraction": 0.5}}
        with pytest.raises(ProjectError, match=said):
            read(tmp_path, msgspec.convert(values, DataConfig))
        return
    with pytest.raises(ProjectError, match=said) as caught:
        take(tmp_path, text)
    assert hint in caught.value.hint


def test_dates_are_no_target(tmp_path: Path) -> None:
    days = pd.to_datetime(["2024-01-01", "2024-01-02"] * 10)
    pd.DataFrame({"a": range(20), "y": days}).to_parquet(tmp_path / "data.parquet")
    with pytest.raises(ProjectError, match="y has dates, which are neither labels nor numbers"):
        read(tmp_path, DataConfig(train="data.parquet", target="y"))


def test_parts_with_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("lenght,y\n1,0\n")
    with pytest.raises(ProjectError, match="length") as caught:
        take(tmp_path, "length,y\n1,0\n", test="test.csv", split=None)
    assert "did you mean lenght?" in caught.value.hint


def test_a_text_among_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("a,y\n1,0\nx,1\n")
    with pytest.raises(ProjectError, match="column a is integer in training and text in"):
        take(tmp_path, "a,y\n1,0\n", test="test.csv", split=None)


def test_a_broken_json_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="line 2"):
        take(tmp_path, '{"a": 1, "y": 0}\n{"a": \n', name="d.jsonl", train="d.jsonl")


def test_missing_file_and_unpulled_pointer(tmp_path: Path) -> None:
    config = DataConfig(train="data.csv", target="y", test="t.csv")
    with pytest.raises(ProjectError, match=r"no data file data\.csv"):
        read(tmp_path, config)
    (tmp_path / "data.csv.dvc").write_text(f"outs:\n- md5: {'ab' * 16}\n  path: data.csv\n")
    with pytest.raises(ProjectError) as caught:
        read(tmp_path, config)
    assert caught.value.hint == "dvc pull data.csv.dvc"


def test_pointer_is_followed_and_checked(tmp_path: Path) -> None:
    md5 = "7fc0a3ff9e80ac62fcb0e6a21d8b3c7d"
    (tmp_path / "d.csv.dvc").write_text(f"outs:\n- md5: {md5}\n  path: d.csv\n")
    (tmp_path / "d.csv").write_text("a,y\n1,0\n2,1\n")
    config = msgspec.convert(
        {"train": "d.csv.dvc", "target": "y", "split": {"fraction": 0.5}}, DataConfig
    )
    with pytest.raises(IntegrityError, match="is not the file that"):
        read(tmp_path, config)
    own = hashlib.md5((tmp_path / "d.csv").read_bytes(), usedforsecurity=False).hexdigest()
    (tmp_path / "d.csv.dvc").write_text(f"outs:\n- md5: {own}\n  path: d.csv\n")
    assert len(read(tmp_path, config).train) == 1


def test_an_address_needs_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the library fsspec") as caught:
        read(tmp_path, DataConfig(train="s3://bucket/d.csv", target="y", test="t.csv"))
    assert "pip install fsspec" in caught.value.hint


SEPARATORS = {
    "another, with decimal commas": ("x;wind;y\n1,5;2,5;3,5\n2,5;3,5;4,5\n", ",", '";"'),
    "another in all lines": ("x;y\n1;2\n2;3\n", ",", '";"'),
    "a tab": ("x\ty\n1,5\t2\n2,5\t3\n", ",", '"\\t"'),
    "a comma": ("x,y\n1,2\n2,3\n", ";", '","'),
}


@pytest.mark.parametrize("name", SEPARATORS)
def test_another_separator_is_named_with_the_line_to_add(name: str, tmp_path: Path) -> None:
    text, separator, shown = SEPARATORS[name]
    (tmp_path / "train.csv").write_text(text)
    config = msgspec.convert(
        {"train": "train.csv", "target": "y", "split": {}, "read": {"sep": separator}}, DataConfig
    )
    with pytest.raises(ProjectError, match=r"data file train\.csv has") as caught:
        heads.check(tmp_path, config)
    assert f"read: {{sep: {shown}}}" in caught.value.hint
    if name != "a comma":
        with pytest.raises(ProjectError) as trained:
            read(tmp_path, config)
        assert f"{{sep: {shown}}}" in trained.value.hint


def head(root: Path, text: str | bytes, name: str = "train.csv", **settings: Any) -> None:
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    values = {"train": name, "target": "y", "split": {}, **settings}
    heads.check(root, msgspec.convert(values, DataConfig))


def test_the_head_of_a_file_is_checked_without_its_end(tmp_path: Path) -> None:
    rows = "x,y\n" + '"a, b",1\n' * 60_000
    head(tmp_path, rows + "1,2,3\n")
    head(tmp_path, rows.encode("utf-16"))
    head(tmp_path, gzip.compress(rows.encode()), "train.csv.gz")
    head(tmp_path, 'x,y\n"a\nb",1\n', "lines.csv")
    head(tmp_path, "y\n1\n", "one.csv")
    head(tmp_path, '\n{"x": 1, "y": 2}\n', "train.jsonl")
    head(tmp_path, "no text is read of it", "train.parquet")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("x,Y\n1,2\n", "train.csv", "has no column y, the target"),
        ("x,y\n1,2\n1,2,3\n", "train.csv", "row 2 has 3 fields, and the header 2"),
        (b"x,y\n\xe9,1\n", "train.csv", "is not in utf-8: byte 4 is 0xe9"),
        (b"x,y\n", "train.csv.gz", "cannot be read"),
        ('{"x": 1}\n', "train.jsonl", "has no column y, the target"),
        ("{x: 1}\n", "train.jsonl", "cannot be read: line 1"),
    ],
)
def test_a_head_that_is_wrong_is_named(
    text: str | bytes, name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ProjectError, match=message) as caught:
        head(tmp_path, text, name)
    assert caught.value.hint
