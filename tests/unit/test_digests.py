import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlship import files
from mlship.domain import digests
from mlship.errors import IntegrityError

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_digest_of_nothing_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert digests.of_bytes(b"") == digests.of_file(tmp_path / "empty") == EMPTY


def test_a_file_of_many_pieces_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) * 2 + 17)
    (tmp_path / "large").write_bytes(data)
    assert digests.of_file(tmp_path / "large") == digests.of_bytes(data)


def test_canonical_json_has_one_text_whatever_the_order_of_keys() -> None:
    assert digests.canonical_json({"b": [1, None], "a": {"ü": True}}) == (
        '{"a":{"ü":true},"b":[1,null]}'.encode()
    )
    assert digests.of_value({"a": 1, "b": 2}) == digests.of_value({"b": 2, "a": 1})
    assert digests.of_value({"a": 1}) != digests.of_value({"a": "1"})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "wrapped", [lambda n: n, lambda n: {"a": [1.0, n]}, lambda n: [{"deep": (n,)}]]
)
def test_canonical_json_refuses_what_json_cannot_carry(
    number: float, wrapped: Callable[[float], Any]
) -> None:
    with pytest.raises(ValueError, match="cannot be represented in JSON"):
        digests.canonical_json(wrapped(number))


def test_plain_turns_them_into_text_and_keeps_the_rest() -> None:
    value = {"a": (math.nan, 1.5), "b": {"c": -math.inf}, "t": datetime(2026, 1, 1, tzinfo=UTC)}
    assert digests.plain(value) == {
        "a": ["nan", 1.5],
        "b": {"c": "-inf"},
        "t": "2026-01-01T00:00:00Z",
    }


@pytest.mark.slow
@unhurried
@given(st.recursive(st.floats() | st.text(), st.lists, max_leaves=20))
def test_whatever_is_plain_has_a_canonical_text(value: Any) -> None:
    assert digests.canonical_json(digests.plain(value))


def test_a_set_of_files_counts_names_and_bytes_but_not_the_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    both = digests.of_files([("a", one), ("b", two)])
    assert both == digests.of_files([("b", two), ("a", one)])
    assert both != digests.of_files([("a", two), ("b", one)])
    assert both != digests.of_files([("a", one), ("c", two)])


@pytest.mark.parametrize(
    "text", ["", "sha256:", EMPTY[:-1], EMPTY + "0", EMPTY.upper(), "md5:" + EMPTY[7:], EMPTY[7:]]
)
def test_only_a_whole_sha256_is_a_digest(text: str) -> None:
    with pytest.raises(IntegrityError, match="invalid digest"):
        digests.parse(text)
    assert digests.parse(EMPTY) == EMPTY
    assert digests.short(digests.parse(EMPTY)) == "e3b0c44298fc"


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    files.write_atomically(path, b"old")

    def fails(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
