"""The route's file: the source of truth for the traffic split, in Envoy's format.

Its `version_info` is the revision: a number that increases with each change, and a digest.
"""

from typing import Any

import msgspec

from mlship.adapters.targets.envoy import resources, routes
from mlship.adapters.targets.local.state import State, unreadable, write
from mlship.domain import digests
from mlship.domain.deployment import Revision, Split
from mlship.errors import ConfigError, IntegrityError, MlshipError

FIRST = Revision("0")


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The route in the file: its split, its revision, and Envoy's route table."""

    split: Split
    revision: Revision
    table: dict[str, Any]


def read(state: State) -> Written:
    """Return the route in the file; without a file, a route without weights.

    Raises:
        IntegrityError: the file is not a route that mlship wrote.
    """
    try:
        data = state.routes.read_bytes()
    except FileNotFoundError:
        return Written(split=Split(), revision=FIRST, table=routes.table(Split(), None))
    except OSError as error:
        raise unreadable(state.routes, error) from error
    try:
        document = msgspec.json.decode(data)
        table = document["resources"][0]
        return Written(
            split=routes.split_of(table), revision=Revision(document["version_info"]), table=table
        )
    except (msgspec.DecodeError, LookupError, TypeError, ConfigError) as error:
        message = f"{state.routes} is damaged: {error!r}"
        hint = "run `mlship down`, remove the file, deploy again, then run `mlship traffic`"
        raise IntegrityError(message, hint=hint) from error


class Current:
    """The split in the file, which is read again only after a change."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._version = 0, 0
        self._split = Split()

    def read(self) -> Split:
        """Return the split; one without weights if there is no file or it cannot be read.

        A command says what is wrong with a damaged file.
        """
        try:
            status = self._state.routes.stat()
            version = status.st_ino, status.st_mtime_ns
            if version != self._version:
                self._split = read(self._state).split
                self._version = version
        except (OSError, MlshipError):
            return Split()
        return self._split


def ensure(state: State) -> None:
    """Write a first route if there is none, because Envoy needs one to start."""
    if not state.routes.exists():
        _write(state, routes.table(Split(), None), FIRST)


def change(state: State, split: Split, sticky_header: str | None) -> Revision:
    """Write the route for a split, unless it is unchanged.

    The caller holds the lock and has compared the revision.

    Raises:
        ConfigError: there is a shadow, but no traffic to copy.
        UnavailableError: it cannot be written; the route is unchanged.
    """
    table = routes.table(split, sticky_header, falls_back=True)
    before = read(state)
    if table == before.table and before.revision != FIRST:
        return before.revision
    number = int(before.revision.partition("-")[0]) + 1
    revision = Revision(f"{number}-{digests.short(digests.of_value(table))}")
    _write(state, table, revision)
    return revision


def _write(state: State, table: dict[str, Any], revision: Revision) -> None:
    write(state.routes, resources.file("route.v3.RouteConfiguration", revision, [table]))
