"""Ports of publishing a report: comments, their pictures, and the summary of a CI job.

As those of `mlship.domain.ports`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from mlship.domain.pullrequest import Posted


class Comments(Protocol):
    """Posts mlship's comment in a pull request."""

    def comment(self, number: int, body: str) -> Posted:
        """Post the comment, or update it if it was posted before.

        A job for a fork's pull request that may not write posts nothing; this is not an error.

        Raises:
            ConfigError: there is no token, or it lacks the permission to write.
            NotFoundError: there is no such pull request.
            UnavailableError: the forge does not respond, or its rate limit lasts too long.
        """


class Pictures(Protocol):
    """Keeps pictures of comments where whoever may read the repository can open them."""

    def keep(self, pull: int, pictures: Mapping[str, bytes]) -> Mapping[str, str]:
        """Keep the pictures of a pull request's comment; return the URL of each, by its name.

        Pictures that are kept already are not written again.

        Raises:
            ConfigError: there is no token, or it may not write.
            ConflictError: other jobs wrote each time.
            UnavailableError: the forge does not respond.
        """


class Summary(Protocol):
    """The summary page of a CI job."""

    def append(self, render: Callable[[int], str]) -> Path | None:
        """Append what `render` returns for the available bytes; `None` if no space is left.

        Raises:
            ConfigError: the command does not run in a CI job.
        """
