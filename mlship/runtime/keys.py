"""The API keys that a server accepts: a file, which is read again when it changes."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mlship import files
from mlship.domain import api_keys
from mlship.errors import ConfigError
from mlship.runtime.faults import RefusedRequest

REALM = 'Bearer realm="mlship"'
"""The value of the header `www-authenticate` beside status 401."""
_MISSING = "send it in the header `authorization: Bearer KEY`, or `x-api-key: KEY`"
_WRONG = "check it, or ask whoever runs the model for one (`mlship api-keys add NAME`)"


class KeyFile(Collector):
    """Names the keys of requests, and counts them.

    A file that is missing or damaged at the start is an error. Later the former keys stay in force
    until there is a valid file: a mistake in it must not lock all clients out.

    Args:
        path: of the file.
        note: shows a line to the operator.

    Raises:
        ConfigError: the file cannot be read.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path = path
        self._note = note
        self._version = self._tried = _version_of(path)
        self._keys = api_keys.read(path)
        self._requests: defaultdict[str, int] = defaultdict(int)
        self._refused: dict[Literal["missing", "wrong"], int] = {"missing": 0, "wrong": 0}
        self._tell()

    def check(self) -> None:
        """Read the file again if it has changed."""
        version = _version_of(self._path)
        if version == self._version:
            return
        is_new, self._tried = version != self._tried, version
        try:
            self._keys = api_keys.read(self._path)
        except ConfigError as error:
            if is_new:
                self._note(f"the API keys stay as they were: {error.message}")
            # One that could not be read is read again: it may be without a key that was removed.
            if not isinstance(error.__cause__, OSError):
                self._version = version
        else:
            self._version = version
            self._tell()

    def known(self, headers: Mapping[str, str]) -> str:
        """Return the name of a request's key, without counting it; empty if it has no valid one."""
        return next(filter(None, map(self._keys.name_of, _tokens(headers))), "")

    def name_of(self, headers: Mapping[str, str]) -> str:
        """Return the name of a request's key, and count the request.

        Raises:
            RefusedRequest: with status 401, if it has none, or one that is not in the file.
        """
        if name := self.known(headers):
            self._requests[name] += 1
            return name
        tokens = _tokens(headers)
        self._refused["wrong" if tokens else "missing"] += 1
        message = "the API key is not valid" if tokens else "the request has no API key"
        raise RefusedRequest(message, hint=_WRONG if tokens else _MISSING, status=401)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics for the registry."""
        requests = CounterMetricFamily(
            "mlship_api_key_requests", "Requests by the name of their API key.", labels=("key",)
        )
        for name, count in self._requests.items():
            requests.add_metric((name,), count)
        yield requests
        refused = CounterMetricFamily(
            "mlship_unauthorized",
            "Requests that were refused because their API key was missing or wrong.",
            labels=("reason",),
        )
        for reason, count in self._refused.items():
            refused.add_metric((reason,), count)
        yield refused

    def _tell(self) -> None:
        self._note(f"API keys that are accepted: {', '.join(self._keys.names) or 'none'}")


def _tokens(headers: Mapping[str, str]) -> list[str]:
    """Return what may be the key of a request: at most two texts."""
    scheme, _, bearer = headers.get("authorization", "").strip().partition(" ")
    texts = (bearer if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
    return [token for text in texts if (token := text.strip())]


def _version_of(path: Path) -> files.Version | None:
    """Return the version of a file; `None` if there is none."""
    try:
        return files.version_of(path)
    except OSError:
        return None
