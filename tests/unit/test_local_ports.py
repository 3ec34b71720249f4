"""Ports of this machine: why one cannot be used, in words that lead on."""

import errno
import socket
from typing import Self

import pytest

from mlship.adapters.targets.local import loopback


class Probe:
    """A socket whose bind fails with an error, or not."""

    error: OSError | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def setsockopt(self, *_: object) -> None:
        pass

    def bind(self, _address: object) -> None:
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("error", "obstacle"),
    [
        (None, ""),
        (
            OSError(errno.EADDRINUSE, "taken"),
            "port 80 of 127.0.0.1 is already in use by another program",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "port 80 of 127.0.0.1 needs the permissions of an administrator",
        ),
        (
            OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
            "port 80 of 127.0.0.1 cannot be used: Cannot assign requested address",
        ),
    ],
)
def test_the_obstacle_of_a_port_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, error: OSError | None, obstacle: str
) -> None:
    monkeypatch.setattr(socket, "socket", Probe)
    monkeypatch.setattr(Probe, "error", error)
    assert loopback.obstacle(80) == obstacle
    assert loopback.is_free(80) is not bool(obstacle)
