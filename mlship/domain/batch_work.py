"""What a batch asks of its workers, and what they answer: lines of JSON."""

from typing import TypeAlias

import msgspec

from mlship.domain.batch import Block, Format, Input, OutputFormat, Reading, Scored
from mlship.domain.batch_sides import Selection
from mlship.domain.bundle import Row
from mlship.domain.digests import Digest


class Inspect(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Look at a file for the plan; answered by an `Inspected`."""

    path: str
    format: Format
    reading: Reading


class Score(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Score a part and write its outputs into a folder; answered by a `Written`.

    Attributes:
        input: the file of the part, with one block.
        part: the name of the part.
        ids: the release whose ids the rows have, if it is another one that they shadow.
        selection: which rows of the part are answered, in a split.
    """

    bundle: str
    digest: Digest
    release: Digest
    input: Input
    part: str
    folder: str
    keep: tuple[str, ...]
    format: OutputFormat
    reading: Reading
    ids: Digest | None = None
    selection: Selection | None = None

    @property
    def block(self) -> Block:
        """The block of the file that is the part."""
        return self.input.blocks[0]


class Find(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Find a row of a part and its outputs; answered by a `Found`.

    Attributes:
        output: the file with the outputs of the part, and its digest when it was published.
        row: its place in the part.
    """

    bundle: str
    digest: Digest
    input: Input
    id: str
    row: int
    output: str
    published: Digest
    format: OutputFormat
    reading: Reading


Request: TypeAlias = Inspect | Score | Find

BeamOption: TypeAlias = str | int | bool | tuple[str, ...]
"""The value of an option of Beam's pipelines: a flag is true, an option with many values a list."""


def place_of(request: Request) -> str:
    """Return the file that a request is about."""
    return request.path if isinstance(request, Inspect) else request.input.path


class Inspected(msgspec.Struct, frozen=True, tag=True):
    """A file, as it is now."""

    input: Input


class Written(msgspec.Struct, frozen=True, tag=True):
    """A part whose outputs are on disk."""

    part: Scored


class Found(msgspec.Struct, frozen=True, tag=True):
    """A row as a request would have it, and its outputs."""

    inputs: Row
    outputs: Row


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An error of `mlship.errors` by the name of its class."""

    error: str
    message: str
    hint: str = ""


Answer: TypeAlias = Inspected | Written | Found | Fault
