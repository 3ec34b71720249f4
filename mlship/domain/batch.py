"""A batch: files of rows, cut into parts that are scored apart, and the manifest that commits them.

    OUTPUT/release-3f9a0c12be77/run-77aa01c4d2e9/
        part-<name>.parquet      the outputs of a part, with the id of each row
        _rejected/part-<name>.jsonl   rows that the model does not accept, with the reason
        _manifest.json           all parts with their digests; written last

The name of a part follows from the digest of its input and its place in it, and the name of a run
from the release and the parts. So the same batch has the same names on every machine and engine.
Until a run is committed, its folder is `.run-...`. Readers of tables pass over names that begin
with a dot or an underscore.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from mlship.domain import digests
from mlship.domain.batch_sides import Player
from mlship.domain.bundle import Row
from mlship.domain.digests import Digest
from mlship.domain.profiles import Profile

Format = Literal["parquet", "csv", "jsonl"]
OutputFormat = Literal["parquet", "csv"]

MANIFEST: Final = "_manifest.json"
JOURNAL: Final = "_journal.jsonl"
REJECTED: Final = "_rejected"
SHOWN: Final = 5
"""So many reasons of rejected rows are shown and recorded; `_rejected/` has all."""
_VERSIONS: Final = ("ETag", "etag", "generation", "md5", "version_id", "VersionId")
_TIMES: Final = ("mtime", "LastModified", "last_modified", "updated", "created")
_ID: Final = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]*)")


class Block(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a file: row groups of Parquet, or bytes of text that begin and end with lines.

    Attributes:
        start: of its first row group or byte; `end` is after the last one, -1 for the file's end.
        rows: if they are known before the text is parsed.
    """

    start: int
    end: int
    rows: int | None = None


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """A file of rows, as it was when it was read for the plan.

    Attributes:
        path: of the file, or its URL.
        version: changes with the file, such as its inode, time and size, or its ETag.
        columns: name and Arrow type of each; `csv` for text that is still to be parsed. Lines of
            JSON have none, since each has its own.
    """

    path: str
    format: Format
    version: str
    digest: Digest
    size: int
    blocks: tuple[Block, ...]
    columns: tuple[tuple[str, str], ...] = ()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A block of an input, which one worker scores as a whole.

    Attributes:
        name: 24 hexadecimal digits.
        input: the path of its file.
        side: the role of the release that answers it in a split, which has a part of this block
            for each side; `of` is then what the block is called for all.
    """

    name: str
    input: str
    block: Block
    side: str = ""
    of: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How text files are read, as `data.read` says, and how files are cut.

    Attributes:
        missing: the texts that stand for a missing value.
        part_rows: a part of Parquet has whole row groups, and about so many rows.
        part_bytes: about the size of a part of a text file.
    """

    sep: str = ","
    decimal: str = "."
    thousands: str = ""
    encoding: str = ""
    missing: tuple[str, ...] = ()
    part_rows: int = 1_000_000
    part_bytes: int = 64 << 20


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch computes.

    Attributes:
        release: the id of the release.
        keep: columns of the input that are copied to the output.
        parts: in the order of the inputs.
        players: the releases of a split; none if one release answers all rows.
        key: the column by whose value a split gives rows to sides; empty for their places.
        shadows: the release whose predictions these shadow, with their ids.
    """

    release: Digest
    inputs: tuple[Input, ...]
    parts: tuple[Part, ...]
    keep: tuple[str, ...] = ()
    format: OutputFormat = "parquet"
    reading: Reading = Reading()
    players: tuple[Player, ...] = ()
    key: str = ""
    shadows: Digest | None = None

    @property
    def folder(self) -> str:
        """The folder of the release, or of those of a split, in the output."""
        if self.players:
            return "-".join(["split", *(digests.short(each.release) for each in self.players)])
        return f"release-{digests.short(self.release)}"

    @property
    def run(self) -> str:
        """The name of the run: of release, parts and form of the output."""
        how: tuple[Any, ...] = (self.keep, self.format, self.reading)
        if self.players:
            weights = [(each.slot, each.release, each.weight) for each in self.players]
            how = (*how, weights, self.key)
        if self.shadows:
            how = (*how, self.shadows)
        value = (self.release, [part.name for part in self.parts], how)
        return digests.short(digests.of_value(value))

    @property
    def data(self) -> Digest:
        """The digest of all inputs."""
        return digests.of_value([each.digest for each in self.inputs])


class Counts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The counts of one output in a part; see `mlship.domain.batch_profile`.

    Attributes:
        named: rows by value, of texts and booleans.
        buckets: rows by bucket, of numbers.
    """

    missing: int = 0
    named: dict[str, int] = {}
    others: int = 0
    buckets: dict[int, int] = {}


class Finished(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part whose output is on disk: a line of the journal.

    Attributes:
        name: of the part.
        rows: of its input, with those that were rejected.
        size: of its output in bytes, and `digest` of them.
        rejected_size: of the file with the rejected rows in bytes; 0 if there are none.
        reasons: those of the first rejected rows, for people.
    """

    name: str
    rows: int
    rejected: int
    size: int
    digest: Digest
    rejected_size: int = 0
    reasons: tuple[str, ...] = ()


class Scored(Finished, frozen=True, kw_only=True, omit_defaults=True):
    """The same with the counts of each output, which few readers need."""

    counts: dict[str, Counts] = {}


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part in the manifest: where its rows came from, and what became of them."""

    name: str
    input: str
    block: Block
    rows: int
    rejected: int
    size: int
    digest: Digest
    side: str = ""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An input in the manifest."""

    path: str
    format: Format
    version: str
    digest: Digest
    columns: tuple[tuple[str, str], ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A committed run: readers who want it whole and once read the parts that it names.

    Attributes:
        release: its id, and `name` for people.
        bundle: the digest of the bundle.
        time: when it was committed, in ISO 8601.
        players: the releases of a split; each part names the side that answered it.
        shadows: the release whose predictions these shadow, with their ids.
    """

    version: Literal[1] = 1
    run: str
    release: Digest
    name: str
    bundle: Digest
    time: str
    format: OutputFormat
    keep: tuple[str, ...]
    reading: Reading
    inputs: tuple[Seen, ...]
    parts: tuple[Entry, ...]
    reasons: tuple[str, ...] = ()
    profile: Profile | None = None
    seconds: float = 0.0
    players: tuple[Player, ...] = ()
    shadows: Digest | None = None

    def ids_of(self, part: Entry) -> Digest:
        """Return the release whose ids the rows of a part have."""
        roles = {each.role: each.release for each in self.players}
        return self.shadows or roles.get(part.side, self.release)

    @property
    def rows(self) -> int:
        """The rows of all inputs."""
        return sum(part.rows for part in self.parts)

    @property
    def rejected(self) -> int:
        """The rows that the model did not accept."""
        return sum(part.rejected for part in self.parts)


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a batch, found by its id: what the model got and what it answered.

    Attributes:
        time: of the commit, in ISO 8601.
        input: the file that it came from.
    """

    release: Digest
    inputs: Row
    outputs: Row
    time: str
    input: str


def parts_of(inputs: Iterable[Input], players: Sequence[Player] = ()) -> tuple[Part, ...]:
    """Return the parts of inputs, each for all players of a split.

    Files of the same bytes are told apart by their order.
    """
    parts, copies = [], Counter[Digest]()
    for each in inputs:
        copy = copies[each.digest]
        copies[each.digest] += 1
        for block in each.blocks:
            place: tuple[Any, ...] = (each.digest, block.start, block.end)
            text = repr((*place, copy) if copy else place)
            name = hashlib.sha256(text.encode()).hexdigest()[:24]
            whole = Part(name=name, input=each.path, block=block)
            parts += [_of_side(whole, player) for player in players] or [whole]
    return tuple(parts)


def _of_side(part: Part, player: Player) -> Part:
    name = hashlib.sha256(f"{part.name} {player.slot}".encode()).hexdigest()[:24]
    return msgspec.structs.replace(part, name=name, side=player.role, of=part.name)


def version_of_object(info: Mapping[str, Any]) -> str:
    """Return a text that changes with an object, from what fsspec knows of it."""
    parts = [info.get("size"), *(info[name] for name in (*_VERSIONS, *_TIMES) if name in info)]
    return digests.short(digests.of_bytes(repr(parts).encode()))


def prefix(release: Digest, part: str) -> str:
    """Return how the ids of a part's rows begin: `<prefix>.<row>`."""
    return hashlib.sha256(f"{release} {part}".encode()).hexdigest()[:32]


def row_of(prediction: str) -> tuple[str, int] | None:
    """Return the prefix and the row of the id of a batch; `None` if it is another id."""
    match = _ID.fullmatch(prediction)
    return (match[1], int(match[2])) if match else None


def file_of(part: str, form: str) -> str:
    """Return the name of the file with the outputs of a part."""
    return f"part-{part}.{form}"


def reasons_of(parts: Iterable[Finished]) -> tuple[str, ...]:
    """Return the first reasons of rejected rows."""
    reasons: list[str] = []
    for part in parts:
        reasons += part.reasons[: SHOWN - len(reasons)]
        if len(reasons) >= SHOWN:
            break
    return tuple(reasons)


def manifest_of(
    plan: Plan, done: Sequence[Finished], name: str, bundle: Digest, time: str
) -> Manifest:
    """Return the manifest of a run whose parts are all done.

    Raises:
        KeyError: a part is missing.
    """
    known = {each.name: each for each in done}
    entries = []
    for part in plan.parts:
        own = known[part.name]
        entries.append(
            Entry(
                name=part.name,
                input=part.input,
                block=part.block,
                rows=own.rows,
                rejected=own.rejected,
                size=own.size,
                digest=own.digest,
                side=part.side,
            )
        )
    return Manifest(
        run=plan.run,
        release=plan.release,
        name=name,
        bundle=bundle,
        time=time,
        format=plan.format,
        keep=plan.keep,
        reading=plan.reading,
        inputs=tuple(
            Seen(
                path=each.path,
                format=each.format,
                version=each.version,
                digest=each.digest,
                # Those of a CSV file are needed to read a part of it, which has no header.
                columns=each.columns if each.format == "csv" else (),
            )
            for each in plan.inputs
        ),
        parts=tuple(entries),
        reasons=reasons_of(known[part.name] for part in plan.parts),
        players=plan.players,
        shadows=plan.shadows,
    )
