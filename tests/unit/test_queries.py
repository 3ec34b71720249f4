"""Data of a query: what its name in mlship.yaml must be."""

from pathlib import Path

import pytest

from mlship.adapters.checkout import datafiles, queries
from mlship.config.data import DataConfig
from mlship.errors import ConfigError, MlshipError, ProjectError

ADDRESS = "postgresql://reader@db.example.org:5432/lake"


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (ADDRESS, ConfigError, "the file of the query is missing"),
        (f"{ADDRESS}#train.csv", ConfigError, "the file of the query is missing"),
        (f"{ADDRESS}#../other/train.sql", ConfigError, "the file of the query is missing"),
        (f"{ADDRESS}#/etc/train.sql", ConfigError, "the file of the query is missing"),
        (f"{ADDRESS}#sql/none.sql", ProjectError, "sql/none.sql"),
        ("postgresql://a:secret@db/lake#train.sql", ConfigError, "a password does not belong"),
        ("postgresql://db/lake?password=secret#train.sql", ConfigError, "a password does not"),
    ],
)
def test_a_name_that_is_no_query_is_refused_without_its_password(
    tmp_path: Path, text: str, kind: type[MlshipError], says: str
) -> None:
    assert queries.is_query(text)
    (tmp_path / "train.sql").write_text("SELECT 1")
    with pytest.raises(kind, match=says) as caught:
        datafiles.sources(tmp_path, DataConfig(train=text, target="y"))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("text", ["data/train.csv", "s3://bucket/train.csv", "train.sql"])
def test_other_data_are_no_query(text: str) -> None:
    assert not queries.is_query(text)
