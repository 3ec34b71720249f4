"""Messages between a worker and the process of a model: a length in 4 bytes, then msgpack.

The model's process gets a `Start`, and says `Ready` or `Failed`. Then it gets `Values` and sends
`Results` or `Failed`, one for the other.
"""

import socket
import struct
from typing import Any, TypeAlias

import msgspec

from mlship.domain.stream import Settings, Side


class Start(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What to load, and how to answer."""

    side: Side
    settings: Settings


class Values(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The values of messages, and the ids of their predictions.

    Attributes:
        shadow: whether they are copies, whose answers nobody gets.
    """

    ids: list[str]
    values: list[bytes | None]
    shadow: bool = False


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model is loaded and gives the outputs of its golden examples."""


class Results(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What came of each message.

    Attributes:
        values: of the outputs; `None` where there is none.
        faults: reason and column of each message without an output, by its place.
    """

    values: list[bytes | None]
    faults: dict[int, tuple[str, str]]


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An error of `mlship.errors`: no message is to blame."""

    error: str
    message: str
    hint: str


Message: TypeAlias = Start | Values | Ready | Results | Failed

_LENGTH = struct.Struct("!I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def send(connection: socket.socket, message: Message) -> None:
    """Send a message.

    Raises:
        OSError: the other side has gone, or did not read in time.
    """
    data = _encode(message)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> Any:
    """Wait for a message and return it; `None` if the other side has closed the link.

    Raises:
        OSError: nothing came in time.
    """
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    data = _exactly(connection, _LENGTH.unpack(head)[0])
    return None if data is None else _decode(data)


def _exactly(connection: socket.socket, size: int) -> bytearray | None:
    parts = bytearray()
    while len(parts) < size:
        data = connection.recv(min(size - len(parts), 1 << 20))
        if not data:
            return None
        parts += data
    return parts
