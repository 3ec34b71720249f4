"""Lines of the prediction log: one that was changed anywhere is told from a whole one."""

from datetime import UTC, datetime

import msgspec
import pytest

from mlship.domain.digests import Digest
from mlship.domain.lines import has_checksum, is_whole, lines_of
from mlship.domain.prediction import Prediction

PREDICTION = Prediction(
    id="a.0",
    release=Digest("sha256:" + "0" * 64),
    slot="r0",
    time=datetime(2026, 11, 21, 12, tzinfo=UTC),
    inputs={"name": 'Ada "crc":"00000000"}', "length": 1e23},
    outputs={"species": "é"},
    latency_ms=0.5,
)


def test_a_line_is_json_that_former_versions_read_too() -> None:
    line = lines_of([PREDICTION])
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=Prediction) == PREDICTION
    assert has_checksum(line)
    assert is_whole(line)


def test_lines_follow_each_other() -> None:
    other = msgspec.structs.replace(PREDICTION, id="a.1")
    assert lines_of([PREDICTION, other]) == lines_of([PREDICTION]) + lines_of([other])
    assert lines_of([]) == b""


def test_a_line_without_a_checksum_is_known_as_such() -> None:
    assert not has_checksum(msgspec.json.encode(PREDICTION) + b"\n")
    assert not has_checksum(b"\n")


@pytest.mark.parametrize("bit", [0, 5])
def test_no_bit_of_a_line_changes_unseen(bit: int) -> None:
    line = lines_of([PREDICTION])
    for place in range(len(line)):
        changed = bytearray(line)
        changed[place] ^= 1 << bit
        assert not (has_checksum(bytes(changed)) and is_whole(bytes(changed))), place


def test_no_part_of_a_line_is_missing_unseen() -> None:
    line = lines_of([PREDICTION])
    for place in range(1, len(line)):
        assert not is_whole(line[place:])
        torn = line[:place] + line
        assert not is_whole(torn)
