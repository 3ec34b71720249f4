"""What a connection and the server know of each other."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mlship.runtime.budget import Budget
from mlship.runtime.http import Request, Response


class Exchange(Protocol):
    """A request that is being answered."""

    def cancel(self) -> None:
        """Drop it if its computation has not begun: its client has gone."""

    def hold(self) -> None:
        """Take memory until `end` is called: its response is written, and not read yet."""

    def end(self) -> None:
        """Give back the memory that it takes."""


class Connection(Protocol):
    """A connection on which a request came."""

    def reply(self, response: Response) -> None:
        """Write the response to the request that was begun last."""


class Answers(Protocol):
    """What answers the requests of a server."""

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Return whether a client has a valid API key, or needs none."""

    def begin(self, request: Request, reply: Callable[[Response], None]) -> Exchange | None:
        """Answer a request, at once or later; return what can be cancelled."""


class Server(Protocol):
    """What connections share.

    Attributes:
        budget: for bodies.
        date: the current value of the header `date`.
    """

    budget: Budget
    date: bytes

    def opened(self, connection: Any, /) -> None:
        """Count a connection."""

    def lost(self, connection: Any, /) -> None:
        """Forget a connection."""

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Return whether a client has a valid API key, or needs none: its body is kept."""

    def refused(self, url: bytes, status: int, /) -> None:
        """Count what is refused before it is a request."""

    def begin(self, request: Request, connection: Connection) -> Exchange | None:
        """Answer a request by `connection.reply`, at once or later."""

    def end(self) -> None:
        """Count a request as answered or abandoned."""


class Watcher(Protocol):
    """Hears what the pool does, for metrics and for people."""

    def sent(self, rows: int) -> None:
        """Rows were sent to a worker in one message."""

    def refused(self, reason: str) -> None:
        """A request was dropped without an answer: `gone`."""

    def restarted(self, *, hung: bool) -> None:
        """A worker has ended and is started again."""

    def note(self, text: str) -> None:
        """Show a line to the operator."""
