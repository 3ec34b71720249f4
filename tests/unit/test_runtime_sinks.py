from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlship.errors import ConfigError, shown
from mlship.runtime.record import Recorder
from mlship.runtime.sinks import open_sink

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_folder_is_a_log_of_segments(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "log"), "r0", lambda: NOON)
    assert isinstance(sink, Recorder)
    sink.close()
    assert list((tmp_path / "log").glob("r0-*.jsonl"))


def test_an_address_of_another_kind_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="kafka://broker") as caught:
        open_sink("kafka://me:secret@broker", "r0", lambda: NOON)
    assert "secret" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://mlflow:5000/base", "http://mlflow:5000/base"),
        ("https://ada:se@cret@mlflow/base", "https://mlflow/base"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("postgresql://ada:s/e?c@db/iris", "postgresql://db/iris"),
        ("postgresql://db/iris?password=x&sslmode=require", None),
        ("shared/ledger", "shared/ledger"),
    ],
)
def test_a_message_shows_an_address_without_its_password(
    address: str, expected: str | None
) -> None:
    assert shown(address) == (expected or "postgresql://db/iris?password=***&sslmode=require")
