"""The repository on GitHub that the environment variables of a job name, and its API."""

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlship.errors import ConfigError

if TYPE_CHECKING:
    import httpx

    from mlship.adapters.forges.github.client import Rest
    from mlship.adapters.http.retries import Timing

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class Connection:
    """One repository on GitHub. It connects on first use.

    Args:
        environment: GITHUB_API_URL, GITHUB_SERVER_URL, GITHUB_REPOSITORY and GITHUB_TOKEN.
        transport: replaces GitHub in tests.
        timing: time and randomness.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        transport: "httpx.BaseTransport | None" = None,
        timing: "Timing | None" = None,
    ) -> None:
        self._environment = environment
        self._transport = transport
        self._timing = timing

    @functools.cached_property
    def timing(self) -> "Timing":
        """Time and randomness."""
        from mlship.adapters.http.retries import Timing

        return self._timing or Timing()

    @property
    def is_set_up(self) -> bool:
        """Whether the environment names a repository and has a token."""
        names = ("GITHUB_REPOSITORY", "GITHUB_TOKEN")
        return all(self._environment.get(name, "").strip() for name in names)

    @functools.cached_property
    def rest(self) -> "Rest":
        """The client of the API.

        Raises:
            ConfigError: there is no token, or no URL.
        """
        # Most commands do not use the forge, and start faster without these imports.
        from mlship.adapters.forges.github.client import Rest
        from mlship.adapters.http.clients import Reach

        token = self._environment.get("GITHUB_TOKEN", "").strip()
        if not token:
            raise ConfigError(
                "GITHUB_TOKEN is not set, and GitHub needs it",
                hint="add `GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}` to the env of the step",
            )
        url = self._environment.get("GITHUB_API_URL") or "https://api.github.com"
        if not url.startswith(("https://", "http://")):
            raise ConfigError(
                f"GITHUB_API_URL is not a URL: {url[:200]}",
                hint="set it to a URL such as https://api.github.com, or unset it",
            )
        reach = Reach(environment=self._environment, transport=self._transport)
        return Rest(url, token, reach=reach, timing=self.timing)

    @functools.cached_property
    def repository(self) -> str:
        """The repository as owner/name.

        Raises:
            ConfigError: it is not named.
        """
        name = self._environment.get("GITHUB_REPOSITORY", "")
        if not name:
            raise ConfigError(
                "GITHUB_REPOSITORY is not set",
                hint="run this in a GitHub workflow, or set it to owner/name",
            )
        if not _REPOSITORY.fullmatch(name):
            raise ConfigError(
                f"GITHUB_REPOSITORY is not a repository: {name[:80]!r}",
                hint="set it to owner/name; in a GitHub job it is set",
            )
        return name

    @property
    def path(self) -> str:
        """The path of the repository in the API."""
        return f"/repos/{self.repository}"

    @property
    def page(self) -> str:
        """The URL of the repository for people."""
        server = self._environment.get("GITHUB_SERVER_URL") or "https://github.com"
        return f"{server.rstrip('/')}/{self.repository}"
