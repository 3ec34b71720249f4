"""CSV that is read block by block has the values that it has as a whole."""

import csv
import io
import itertools
from pathlib import Path

import pytest

from mlship.domain.batch import Block, Input, Reading
from mlship.domain.csv_text import Utf8Text, WholeLineEnds
from mlship.errors import ProjectError
from mlship.runtime.batches import reading
from mlship.runtime.batches.inspection import inspect


def test_no_read_ends_between_the_two_characters_of_a_line_end() -> None:
    for text in (b"", b"\r", b"\r\n", b"a\r\nb\r\r\n\r", b"\r\r\r\n\n"):
        for size in (-1, 1, 2, 3, 100):
            file = WholeLineEnds(io.BytesIO(text))
            blocks = list(iter(lambda file=file, size=size: file.read(size), b""))  # type: ignore[misc]
            assert b"".join(blocks) == text
            pairs = itertools.pairwise(blocks)
            assert not any(a.endswith(b"\r") and b.startswith(b"\n") for a, b in pairs)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "utf-32"])
def test_another_encoding_is_read_as_utf8(encoding: str) -> None:
    text = "a,b\r\n\xe9,\u20ac\r\n" * 9
    for size in (-1, 1, 3, 100):
        file = Utf8Text(io.BytesIO(text.encode(encoding)), encoding)
        assert b"".join(iter(lambda file=file, size=size: file.read(size), b"")) == text.encode()  # type: ignore[misc]


def values(path: Path, how: Reading) -> list[str]:
    each: Input = inspect(str(path), "csv", how)
    found: list[str] = []
    for block in each.blocks or [Block(0, -1)]:
        for batch in reading.batches(each, block, how, ["a", "b"], []):
            found += batch.column(1).to_pylist()
    return found


@pytest.mark.parametrize("encoding", ["", "utf-16", "latin-1"])
@pytest.mark.parametrize("part_bytes", [1 << 30, 3000])
def test_line_ends_in_values_survive_wherever_a_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, part_bytes: int
) -> None:
    monkeypatch.setattr(reading, "_TEXT_BLOCK", 256)
    how = Reading(sep=",", encoding=encoding, part_bytes=part_bytes)
    path = tmp_path / "a.csv"
    for length in range(1, 14):
        expected = [f"{'z' * length}\r\n{row}" for row in range(300)]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([("a", "b"), *enumerate(expected)])
        path.write_bytes(text.getvalue().encode(encoding or "utf-8"))
        assert values(path, how) == expected


@pytest.mark.parametrize("encoding", ["", "utf-16"])
def test_a_nul_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("a,b\n1,ab\0c\n2,d\n".encode(encoding or "utf-8"))
    with pytest.raises(ProjectError, match=r"a\.csv has a NUL character, at"):
        values(path, Reading(sep=",", encoding=encoding))
