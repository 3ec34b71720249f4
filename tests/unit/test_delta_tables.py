"""Delta tables as data: told by id and version, and read as they are."""

import importlib.util
import shutil
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable, write_deltalake

from mlship.adapters.checkout import datafiles
from mlship.config.data import DataConfig
from mlship.errors import ConfigError, ProjectError, UnavailableError
from mlship.training.data import load, read

ROWS = pd.DataFrame({"a": [1, 2, 3], "y": ["x", None, "z"]})


def digest(root: Path, text: str = "flowers") -> str:
    return datafiles.sources(root, DataConfig(train=text, target="y"))[text]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_deltalake(tmp_path / "flowers", ROWS)
    return tmp_path


def test_a_version_is_another_digest_and_the_latest_is_read(root: Path) -> None:
    first = digest(root)
    assert digest(root) == first
    pd.testing.assert_frame_equal(load(root, "flowers"), ROWS)
    write_deltalake(root / "flowers", pd.DataFrame({"a": [4], "y": ["w"]}), mode="append")
    assert digest(root) != first
    assert sorted(load(root, "flowers").a) == [1, 2, 3, 4]
    DeltaTable(root / "flowers").restore(0)
    assert digest(root) != first


def test_a_table_that_was_made_anew_is_another_one_at_the_same_version(root: Path) -> None:
    first = digest(root)
    shutil.rmtree(root / "flowers")
    write_deltalake(root / "flowers", ROWS)
    assert digest(root) != first


def test_an_address_and_a_folder_are_the_same_table(root: Path) -> None:
    address = f"delta+file://{root}/flowers"
    assert digest(root, address) == digest(root)
    pd.testing.assert_frame_equal(load(root, address), ROWS)
    config = DataConfig(train=address, test="flowers", target="a")
    assert list(read(root, config).targets[0].test) == [1, 2, 3]


def test_a_version_that_is_named_stays_what_it_was(root: Path) -> None:
    pinned, first = "delta+flowers?version=0", digest(root)
    write_deltalake(root / "flowers", pd.DataFrame({"a": [4], "y": ["w"]}), mode="append")
    assert digest(root, pinned) == first != digest(root)
    pd.testing.assert_frame_equal(load(root, pinned), ROWS)
    assert digest(root, "delta+flowers?version=1") == digest(root)
    with pytest.raises(UnavailableError, match=r"version=7 cannot be read") as caught:
        digest(root, "delta+flowers?version=7")
    assert "still has this version" in caught.value.hint


def test_what_is_no_table_is_named(root: Path) -> None:
    with pytest.raises(ProjectError, match=r"there is no Delta table delta\+none"):
        digest(root, "delta+none")


def test_it_needs_its_library(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the library deltalake") as caught:
        digest(root)
    assert caught.value.hint == "pip install deltalake pyarrow"
