"""The home of a project: its git repository and its folder there, as one text.

Two projects may have one name, and share a tracking server, a ledger or a cluster. Their homes
tell them apart: `github.com/ada/homework//models/churn`, `github.com/ada/iris` for a project at the
top, `//models/churn` where git knows no remote. An empty text is an unknown home: former versions
recorded none.
"""

import re
from collections.abc import Sequence
from typing import Final

from mlship.domain.evidence import Record
from mlship.errors import ConflictError

UNKNOWN: Final = ""

_SCP: Final = re.compile(r"(?:[^@/\s]+@)?(?P<host>[A-Za-z0-9.-]{2,}):(?P<path>[^/].*)")
_URL: Final = re.compile(
    r"(?:https?|ssh|git)://(?:[^@/\s]*@)?(?P<host>[^/\s:]+)(?::\d+)?/(?P<path>.+)"
)


def of(remote: str, folder: str) -> str:
    """Return the home of a project.

    Args:
        remote: the URL of the repository, as git has it; empty if there is none. A path on this
            machine counts as none: another clone has another one.
        folder: of the project in the repository; empty for the top.
    """
    match = _URL.fullmatch(remote.strip()) or _SCP.fullmatch(remote.strip())
    repository = ""
    if match:
        path = match["path"].strip("/").removesuffix(".git").strip("/")
        # Hosts ignore the case of a repository's name, and clones are typed by people.
        repository = f"{match['host']}/{path}".lower()
    place = folder.strip("/")
    return f"{repository}//{place}" if place or not repository else repository


def is_same(one: str, other: str) -> bool:
    """Return whether two homes may be one: what is unknown of either is not compared."""
    if UNKNOWN in (one, other):
        return True
    (repository, place), (its_repository, its_place) = _parts(one), _parts(other)
    return place == its_place and (
        not repository or not its_repository or repository == its_repository
    )


def settled(kept: str, own: str) -> str:
    """Return the more exact of two texts for one home."""
    return own if not kept or (kept.startswith("//") and own) else kept


def check(what: str, kept: str, own: str, name: str) -> None:
    """Refuse to use what belongs to another project of the same name.

    Args:
        what: the object, for people.
        kept: the home that it has.
        own: the home of this project.
        name: of both.

    Raises:
        ConflictError: the homes differ.
    """
    if not is_same(kept, own):
        message = f"{what} belongs to another project called {name}, {shown(kept)}; this one is "
        raise ConflictError(
            message + shown(own),
            hint="give this project another `name` in mlship.yaml; if it is the same project, "
            f'moved, set `home: "{kept}"` there',
        )


def check_records(others: Sequence[Record], name: str, own: str) -> None:
    """Refuse a ledger with records of another project of the same name.

    Raises:
        ConflictError: it has such records.
    """
    same = [record.evidence for record in others if record.evidence.release.name == name]
    if same:
        check(f"a part of the ledger ({counted(len(same))})", same[-1].home, own, name)


def counted(records: int) -> str:
    """Return a number of records for people."""
    return "1 record" if records == 1 else f"{records} records"


def shown(home: str) -> str:
    """Return a home for people."""
    if home == UNKNOWN:
        return "of an unknown repository"
    repository, place = _parts(home)
    where = f"in folder {place}" if place else "at the top"
    return f"{where} of {repository}" if repository else f"{where} of a repository without remote"


def _parts(home: str) -> tuple[str, str]:
    repository, _, place = home.partition("//")
    return repository.lower(), place
