"""The journal of a run: a line for each part whose output is there."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from mlship.domain import batch as batches
from mlship.domain.batch import Counts, Finished, Plan, Scored


class Journal:
    """A file of lines, of which a kill may cut off the last one.

    Args:
        path: of the file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def add(self, part: Scored) -> None:
        """Note that a part is done."""
        if self._file is None:
            # A line of its own after one that a kill has cut off.
            self._file = self._path.open("ab")
            self._file.write(b"\n")
        self._file.write(msgspec.json.encode(part) + b"\n")
        self._file.flush()

    def finished(
        self, plan: Plan, sizes: Mapping[str, int], rejected: Mapping[str, int]
    ) -> Mapping[str, Finished]:
        """Return the parts of a plan that are noted and there, by name.

        Args:
            plan: of the run.
            sizes: of the outputs that are there, by the name of the file.
            rejected: the same for the files with rejected rows.
        """
        decode = msgspec.json.Decoder(Finished).decode
        wanted = {part.name for part in plan.parts}
        found = {}
        for line in self._lines():
            with suppress(msgspec.DecodeError):  # of a kill in the middle of a line
                part = decode(line)
                name = batches.file_of(part.name, plan.format)
                refused = rejected.get(f"part-{part.name}.jsonl", 0)
                is_whole = (sizes.get(name), refused) == (part.size, part.rejected_size)
                if part.name in wanted and is_whole:
                    found[part.name] = part
        return found

    def counts(self) -> Iterator[Mapping[str, Counts]]:
        """Return the counts of each part that is done."""
        decode = msgspec.json.Decoder(Scored).decode
        known: set[str] = set()
        for line in self._lines():
            with suppress(msgspec.DecodeError):
                part = decode(line)
                if part.name not in known:
                    known.add(part.name)
                    yield part.counts

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _lines(self) -> Iterator[bytes]:
        with suppress(FileNotFoundError), self._path.open("rb") as lines:
            yield from (line for line in lines if line.strip())
