"""Pictures that are small and real, for reports."""

import struct
import zlib


def png(width: int = 2, height: int = 2, grey: int = 128) -> bytes:
    """Return a grey PNG; other numbers give another file."""
    rows = b"".join(b"\0" + bytes([grey]) * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def jpeg(width: int = 2, height: int = 2) -> bytes:
    """Return the head of a JPEG: a comment, a table and the frame header."""
    comment = b"\xff\xfe\x00\x06none"
    table = b"\xff\xdb\x00\x43" + bytes(65)
    frame = b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
    return b"\xff\xd8" + comment + table + frame


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
