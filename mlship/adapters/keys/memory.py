"""What this machine has seen of a ledger, in a private file of the user's.

    ~/.local/state/mlship/ledgers/<digest of project and ledger>    the last records, a line each

So who can write to the ledger alone cannot hide that its newest records are gone.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from mlship import files
from mlship.adapters.keys.places import of_user
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import IntegrityError

_MOST: Final = 100_000
"""Bytes of a file: a ledger with so many heads that it is longer is not kept in mind."""
_FILES: Final = 500


class UserMemory:
    """The port `mlship.domain.checkpoint.Memory`.

    Args:
        environment: the environment variables, which say where the user's files are.
        ledger: the project and the place of its ledger.
    """

    def __init__(self, environment: Mapping[str, str], ledger: tuple[str | None, ...]) -> None:
        folder = of_user(environment, "XDG_STATE_HOME", ".local/state") / "ledgers"
        self._path: Path = folder / digests.short(digests.of_value(ledger))

    def seen(self) -> frozenset[Digest]:
        """Return the last records that this machine has seen; none if it knows nothing."""
        try:
            lines = files.read_regular(self._path, _MOST).decode().split()
            return frozenset(map(digests.parse, lines))
        except (OSError, UnicodeDecodeError, IntegrityError):
            return frozenset()

    def keep(self, heads: Iterable[Digest]) -> None:
        """Keep the last records instead of those before; a full disk keeps nothing."""
        lines = "\n".join(sorted(heads))
        with suppress(OSError):
            if len(lines) > _MOST:
                self._path.unlink(missing_ok=True)
                return
            if not self._path.exists():
                files.make_private(self._path.parent)
                self._sweep()
            files.write_atomically(self._path, lines.encode(), mode=0o600)

    def _sweep(self) -> None:
        """Remove what is known of the ledgers that were not read for the longest time."""
        known = sorted(self._path.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in known[: max(0, len(known) - _FILES)]:
            path.unlink()
