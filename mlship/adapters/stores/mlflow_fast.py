"""Reads registered versions from MLflow without importing it, which takes a second or more.

A server is read by its documented REST API (https://mlflow.org/docs/latest/rest-api.html), a sqlite
database directly.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mlship.adapters.http.retries import Patience
from mlship.adapters.mlflow.database import reading
from mlship.adapters.mlflow.rest import PATIENCE, Server, connected
from mlship.domain.digests import Digest
from mlship.domain.versions import Version
from mlship.errors import NotFoundError, shown

RELEASE: Final = "mlship.release"
ARCHIVED: Final = "mlship.archived"

_PAGE: Final = 200
_COLUMNS: Final = {
    "model_versions": {"name", "version", "creation_time", "current_stage"},
    "model_version_tags": {"name", "version", "key", "value"},
    "registered_model_aliases": {"name", "version", "alias"},
}

Entry = tuple[int, int, Mapping[str, str]]
"""The number of a version, its creation time in milliseconds since 1970, and its tags."""


def listed(entries: Iterable[Entry], aliases: Mapping[str, int], page: str = "") -> list[Version]:
    """Return the versions that mlship registered, oldest first.

    Args:
        entries: all registered versions, also those of others.
        aliases: the version of each alias.
        page: the address of a version without its number; empty for no links.
    """
    return [
        Version(
            number=str(number),
            release=Digest(tags[RELEASE]),
            aliases=tuple(sorted(alias for alias in aliases if aliases[alias] == number)),
            archived=tags.get(ARCHIVED) == "true",
            created=datetime.fromtimestamp(created / 1000, UTC),
            link=f"{page}{number}" if page else "",
        )
        for number, created, tags in sorted(entries, key=lambda entry: entry[0])
        if RELEASE in tags
    ]


def from_database(uri: str, path: Path, name: str) -> list[Version] | None:
    """Return the versions in a database; `None` if its tables are unknown.

    Raises:
        UnavailableError: it is locked or not readable.
        IntegrityError: the file is not a database.
    """
    if not path.exists():
        return []
    with reading(uri, path, _COLUMNS) as database:
        return _select(database, name) if database else None


def from_server(
    uri: str, name: str, environ: Mapping[str, str], patience: Patience = PATIENCE
) -> list[Version]:
    """Return the versions that a tracking server has.

    Raises:
        UnavailableError: the server does not answer, or denies access.
    """
    with connected(uri, environ, patience=patience) as server:
        return of_server(server, uri, name)


def of_server(
    server: Server, uri: str, name: str, seconds: float = PATIENCE.deadline
) -> list[Version]:
    """Return the versions on a connected server, with a deadline in seconds per request."""
    try:
        answer = server.get("registered-models/get", {"name": name}, within=seconds)
    except NotFoundError:
        return []
    model = answer["registered_model"]
    query = {"filter": f"name='{name}'", "max_results": str(_PAGE)}
    pages = server.pages("GET", "model-versions/search", query, within=seconds)
    versions = [entry for page in pages for entry in page.get("model_versions", [])]
    entries = [
        (
            int(entry["version"]),
            int(entry["creation_timestamp"]),
            {tag["key"]: tag.get("value", "") for tag in entry.get("tags", [])},
        )
        for entry in versions
    ]
    aliases = {entry["alias"]: int(entry["version"]) for entry in model.get("aliases", [])}
    return listed(entries, aliases, f"{shown(uri).rstrip('/')}/#/models/{name}/versions/")


def _select(database: sqlite3.Connection, name: str) -> list[Version]:
    tags: dict[int, dict[str, str]] = {}
    query = "SELECT version, key, value FROM model_version_tags WHERE name = ?"
    for number, key, value in database.execute(query, (name,)):
        tags.setdefault(number, {})[key] = value
    query = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"
    aliases = dict(database.execute(query, (name,)).fetchall())
    query = (
        "SELECT version, creation_time FROM model_versions "
        "WHERE name = ? AND current_stage != 'Deleted_Internal'"
    )
    entries = database.execute(query, (name,)).fetchall()
    return listed([(number, created, tags.get(number, {})) for number, created in entries], aliases)
