"""Bodies of requests that are compressed."""

import gzip
import random
import zlib
from typing import Any
from unittest import mock

import pytest

from mlship.runtime import encodings
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.http import BODY_BYTES, Request


def zipped(data: bytes, level: int = 9) -> bytes:
    return gzip.compress(data, level, mtime=0)


EMPTY = zipped(b"")
NOISE = random.Random(1).randbytes(300_000)


def plain(body: bytes, encoding: str = "gzip") -> bytes:
    request = Request(method="POST", path="/", headers={"content-encoding": encoding}, body=body)
    return encodings.plain(request).body


def test_all_members_of_a_gzip_file_are_read() -> None:
    members = [b"", b"{", NOISE, b"", NOISE[:100_000], b"}", b""]
    assert plain(b"".join(map(zipped, members))) == b"".join(members)
    assert plain(zlib.compress(NOISE), "deflate") == NOISE


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072])
def test_a_member_may_end_where_a_piece_ends(size: int) -> None:
    """The first member is stored as it is, so its length is known."""
    member = zipped(NOISE[: size - 100], 0)
    body = zipped(NOISE[: size - 100 + size - len(member)], 0)
    assert len(body) == size
    assert plain(body) == NOISE[: 2 * size - 100 - len(member)]
    assert plain(body + zipped(b"x")) == plain(body) + b"x"


@pytest.mark.parametrize(
    ("body", "encoding", "status", "message"),
    [
        (EMPTY * 1_001, "gzip", 413, "the body has more than 1,000 gzip members"),
        (zipped(bytes(BODY_BYTES + 1)), "gzip", 413, "the body is larger than"),
        (zipped(bytes(BODY_BYTES)) + zipped(b"x"), "gzip", 413, "is larger than"),
        (zipped(NOISE)[:-1], "gzip", 400, "it is not complete"),
        (EMPTY + EMPTY[:5], "gzip", 400, "it is not complete"),
        (EMPTY + b"x", "gzip", 400, "cannot be decompressed by gzip"),
        (b"{}", "deflate", 400, "cannot be decompressed by deflate"),
    ],
    ids=["members", "large", "large at last", "cut", "cut later", "more", "no deflate"],
)
def test_what_cannot_be_decompressed_is_refused(
    body: bytes, encoding: str, status: int, message: str
) -> None:
    with pytest.raises(RefusedRequest) as caught:
        plain(body, encoding)
    assert caught.value.status == status
    assert message in caught.value.fault.message


def test_what_follows_a_member_is_not_copied_for_each_of_them() -> None:
    """A body of 10 MB that was copied for each of its empty members took seconds."""
    decompressor = zlib.decompressobj
    given: list[int] = []

    class Stream:
        def __init__(self, window: int) -> None:
            self._stream = decompressor(window)

        def decompress(self, data: bytes, room: int) -> bytes:
            given.append(len(data))
            return self._stream.decompress(data, room)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    with mock.patch("zlib.decompressobj", Stream):
        assert plain(EMPTY * 900 + zipped(NOISE)) == NOISE
    assert len(given) >= 901
    assert max(given) <= 65_536
