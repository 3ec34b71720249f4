"""Keys that ssh-agent has: it signs, and the private key never leaves it.

Two messages of its protocol are used: list the keys, and sign with one
(https://datatracker.ietf.org/doc/html/draft-miller-ssh-agent). An Ed25519 key signs the bytes that
it is given, so this is the signature that the key in a file would make. Nothing that the agent says
is relied on: a signature is verified before it is used.
"""

import socket
import time
from typing import Final

from mlship.adapters.keys.ed25519 import verify
from mlship.domain import ssh_keys
from mlship.domain.digests import Digest
from mlship.domain.public_keys import key_id
from mlship.errors import ConfigError, IntegrityError, NotFoundError, UnavailableError

_LIST, _KEYS = 11, 12
_SIGN, _SIGNED = 13, 14
_MOST: Final = 256 * 1024
"""Bytes of a message, as in OpenSSH."""
_SECONDS: Final = 60.0
"""For one message: an agent may ask its user to confirm a signature."""


class Agent:
    """The agent that listens at a socket.

    Args:
        path: of the socket, from `SSH_AUTH_SOCK`; empty if there is none.
        seconds: how long an answer may take.
    """

    def __init__(self, path: str, seconds: float = _SECONDS) -> None:
        self._path, self._seconds = path, seconds

    def has(self, blob: bytes) -> bool:
        """Return whether the agent has a key.

        Raises:
            ConfigError: no agent is named.
            UnavailableError: it does not answer, or not in its protocol.
        """
        answer = _Reader(self._asked(bytes([_LIST]), _KEYS))
        keys = []
        for _ in range(answer.number()):
            keys.append(answer.text())
            answer.text()
        return blob in keys

    def sign(self, blob: bytes, message: bytes) -> bytes:
        """Return the signature of a message with a key, which is not verified.

        Raises:
            ConfigError: no agent is named.
            UnavailableError: it does not answer, or does not sign.
        """
        request = bytes([_SIGN]) + _text(blob) + _text(message) + bytes(4)
        signature = _Reader(_Reader(self._asked(request, _SIGNED)).text())
        kind = signature.text()
        if kind != ssh_keys.KIND.encode():
            raise _unavailable(f"it signed with {kind[:40]!r}")
        return signature.text()

    def _asked(self, request: bytes, kind: int) -> bytes:
        """Return the answer to a request, without its length and its kind."""
        if not self._path:
            message = "no ssh-agent is running: SSH_AUTH_SOCK is not set"
            raise ConfigError(message, hint="start one and run ssh-add, or give the private key")
        if len(request) > _MOST:
            raise _unavailable(f"a message of {len(request)} bytes is too long for it")
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                deadline = time.monotonic() + self._seconds
                connection.settimeout(self._seconds)
                connection.connect(self._path)
                connection.sendall(_text(request))
                size = int.from_bytes(_received(connection, 4, deadline))
                if not 1 <= size <= _MOST:
                    raise _unavailable(f"its answer has {size} bytes")
                answer = _received(connection, size, deadline)
        except TimeoutError as error:
            raise _unavailable(f"no answer within {self._seconds:g} s") from error
        except OSError as error:
            raise _unavailable(error.strerror or str(error)) from error
        if answer[0] != kind:
            raise _unavailable("it refused")
        return answer[1:]


class AgentKey:
    """The port Signing with a key that an agent has.

    Args:
        agent: that has it.
        public: the public key, as `mlship.domain.public_keys.KEY`.
        where: the public key is from, for errors.
    """

    def __init__(self, agent: Agent, public: str, where: str) -> None:
        self._agent, self._where = agent, where
        self.public = public
        self.key: Digest = key_id(public)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message.

        Raises:
            ConfigError: no agent is named.
            NotFoundError: the agent does not have the key.
            UnavailableError: the agent does not answer, or does not sign.
            IntegrityError: what it returned is not the signature of this message with this key.
        """
        blob = ssh_keys.blob(self.public)
        if not self._agent.has(blob):
            private = self._where.removesuffix(".pub")
            text = f"ssh-agent does not have the key {self._where}"
            raise NotFoundError(text, hint=f"run `ssh-add {private}`")
        signature = self._agent.sign(blob, message)
        if not verify(self.public, message, signature):
            text = f"ssh-agent returned something else than a signature with {self._where}"
            raise IntegrityError(text, hint="nothing was recorded; use another agent")
        return signature


class _Reader:
    """The parts of an answer, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self) -> int:
        """Return the number that comes next."""
        return int.from_bytes(self._taken(4))

    def text(self) -> bytes:
        """Return the bytes that come next, without their length."""
        return self._taken(self.number())

    def _taken(self, size: int) -> bytes:
        if size > len(self._data):
            raise _unavailable("its answer is cut off")
        taken, self._data = self._data[:size], self._data[size:]
        return taken


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def _received(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Return that many bytes, read by a time."""
    data = b""
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(size - len(data))
        if not piece:
            raise _unavailable("it closed the connection")
        data += piece
    return data


def _unavailable(reason: str) -> UnavailableError:
    hint = "look at `ssh-add -l`, or give the private key instead of the file .pub"
    return UnavailableError(f"ssh-agent did not sign: {reason}", hint=hint)
