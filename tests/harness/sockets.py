"""Listeners on this machine that behave as a test tells them to, and a certificate for one."""

import datetime as dt
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PIECE = 1 << 18


def unused_port(*hosts: str) -> int:
    """Return a port that nobody listens on at these loopback addresses, and nobody is given soon.

    Envoy shares a port with another Envoy without a word: those of other tests begin at fixed
    ports, so the system chooses one of its own range.
    """
    for _ in range(100):
        with socket.create_server((hosts[0] if hosts else "127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            with suppress(OSError):
                for host in hosts[1:]:
                    socket.create_server((host, port)).close()
                return port
    message = f"no port is free at all of {hosts}"
    raise OSError(message)


@contextmanager
def silent() -> Iterator[int]:
    """Give the port of a listener that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def self_signed(path: Path, address: str, *, days: int = 1) -> Path:
    """Write a certificate of an address that nobody vouches for, with its key; return the path."""
    certificate, key = identity("nobody vouches", address, days=days)
    path.write_bytes(key + certificate)
    return path


def identity(name: str, *addresses: str, days: int = 1) -> tuple[bytes, bytes]:
    """Return a certificate of its own and its key, valid since two days ago, for some days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now + dt.timedelta(days=days))
    )
    if addresses:
        names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(pem), private


class Gate:
    """Forwards bytes to a server that does not speak HTTP; open, shut, or silent."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.is_silent = False
        self._listening: socket.socket | None = None
        self._held: list[socket.socket] = []
        self.port = 0
        self.up()

    def up(self) -> None:
        """Listen: the first time at a free port, then at the same one again."""
        if self._listening is None:
            self._listening = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listening.getsockname()[1]
            _spawn(self._accept, self._listening)

    def down(self) -> None:
        """Listen no more; connections that there are break."""
        if self._listening is not None:
            # A thread that waits for a connection holds the socket: it is woken first.
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        for one in self._held:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._held.clear()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                self._held.append(client)
                if not self.is_silent:
                    server = socket.create_connection(("127.0.0.1", self._to))
                    self._held.append(server)
                    _spawn(_pipe, client, server)
                    _spawn(_pipe, server, client)


def _spawn(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_PIECE):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def gate(port: int) -> Iterator[Gate]:
    """Give a gate before a server, and shut it in the end."""
    made = Gate(port)
    try:
        yield made
    finally:
        made.down()
