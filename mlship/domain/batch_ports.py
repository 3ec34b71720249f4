"""The ports of a batch: where its rows are, where its outputs go, and who scores them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from mlship.domain.batch import Counts, Entry, Finished, Format, Input, Manifest, Plan, Scored
from mlship.domain.batch_outcomes import Answered
from mlship.domain.batch_work import Find, Found, Inspect, Score
from mlship.domain.bundle import Field


class Listed(msgspec.Struct, frozen=True):
    """A file that a pattern names, and its version, which changes with it.

    Attributes:
        since: when the rows of a query were read, if a killed batch has read them.
    """

    path: str
    format: Format
    version: str
    since: str = ""


class Files(Protocol):
    """Finds the files of a batch, and remembers what is known of them."""

    def list(self, patterns: Sequence[str]) -> Sequence[Listed]:
        """Return the files of patterns, sorted by path, each once.

        Raises:
            NotFoundError: a pattern names no file.
            ConfigError: a file has no known format, or an address needs a library.
            UnavailableError: a folder cannot be read.
        """

    def held(self, patterns: Sequence[str], paths: Sequence[str]) -> AbstractContextManager[None]:
        """Keep the rows of queries until the batch ends, so that it goes on after a kill."""

    def known(self, plan: str) -> Mapping[str, Input]:
        """Return the inputs of an earlier plan of this name, by path."""

    def remember(self, plan: str, inputs: Sequence[Input]) -> None:
        """Remember the inputs of a plan; an error to do so is none of the batch."""


class Workers(Protocol):
    """Processes that read, score and write."""

    def inspect(self, requests: Iterable[Inspect]) -> Iterator[Input]:
        """Return each file as an input, in the order in which they are done.

        Raises:
            ProjectError: a file is invalid.
            NotFoundError, UnavailableError, ConfigError, IntegrityError: as the runtime's.
        """

    def score(self, requests: Iterable[Score]) -> Iterator[Scored]:
        """Return the parts as they are done, each durably written.

        Raises:
            ProjectError: a hook fails on any row, or a worker died.
            NotFoundError, UnavailableError, ConfigError, IntegrityError: as the runtime's.
        """

    def find(self, request: Find) -> Found:
        """Return one row with its outputs. Errors as of `score`."""


class Run(Protocol):
    """The outputs of a run that is not committed yet."""

    @property
    def folder(self) -> str:
        """Where parts are written."""

    def finished(self) -> Mapping[str, Finished]:
        """Return the parts whose outputs are there, by name."""

    def add(self, part: Scored) -> None:
        """Note that a part is done."""

    def counts(self) -> Iterator[Mapping[str, Counts]]:
        """Return the counts of each part that is done."""

    def commit(self, manifest: Manifest) -> str:
        """Publish the run, all of it or nothing; return its folder.

        Raises:
            IntegrityError: a part is not there, or has another size.
            UnavailableError: the folder cannot be written.
        """


class Runs(Protocol):
    """The runs in one output."""

    @property
    def table(self) -> str:
        """The table that gets the outputs, without user and password; empty for a folder."""

    def committed(self, plan: Plan) -> tuple[str, Manifest] | None:
        """Return the folder and the manifest of a run if it was committed.

        Raises:
            IntegrityError: a part of it is gone, or has another size.
        """

    def begin(self, plan: Plan) -> AbstractContextManager[Run]:
        """Open a run that is not committed, for this process alone.

        Raises:
            ConflictError: another process works on it.
            UnavailableError: the folder cannot be written.
        """


OpenRuns = Callable[[str, Sequence[Field]], Runs]
"""Opens the runs in an output, a folder or an address; the fields are those of the outputs."""


class Manifests(Protocol):
    """Reads the manifests of committed runs."""

    def read(self, folder: str) -> Manifest | None:
        """Return the manifest of a run's folder; `None` if it is gone."""


class Outputs(Protocol):
    """Reads the outputs of committed runs."""

    def rows(
        self,
        folder: str,
        manifest: Manifest,
        parts: Sequence[Entry],
        column: str,
        wanted: Collection[str],
    ) -> Iterator[Answered]:
        """Return the rows whose value in a column is wanted, part by part.

        Args:
            folder: of the run.
            manifest: of the run.
            parts: of the run, in which rows are looked for.
            column: `id` or a kept column.
            wanted: its values as text.

        Raises:
            NotFoundError: an output is gone.
            IntegrityError: an output was changed since it was written.
            ProjectError: values of the column have no single form as text.
            UnavailableError, ConfigError: an output cannot be read.
        """
