"""The facts of `batch`: counts and digests, never a value of a row."""

from datetime import datetime
from typing import Literal

from mlship.domain.batch_sides import Mode
from mlship.domain.digests import Digest
from mlship.domain.facts import Judged
from mlship.domain.profiles import Profile


class Batched(Judged, frozen=True):
    """The facts of `batch`.

    Attributes:
        input: the paths, folders and globs that were read, without credentials.
        data: the digest of all inputs.
        run: its name, from release and parts; `output` is its folder.
        table: that got the outputs, without user and password; `output` has a copy of them.
        rows: of the inputs, with those that were rejected.
        profile: of the predictions, to compare the next run with.
        challenger: how champion and challenger were compared; empty if one release scored all.
        side: the role of the release in a split, whose rows are counted.
        share: its share of the rows in percent.
        shadowed: the folder of the published run whose rows a shadow answered, too.
        published: when readers got the outputs; `None` for those that were not published, and
            in records of former versions.
    """

    input: tuple[str, ...] = ()
    files: int = 0
    data: Digest = Digest("")
    run: str = ""
    output: str = ""
    table: str = ""
    parts: int = 0
    rows: int = 0
    rejected: int = 0
    profile: Profile | None = None
    challenger: Mode | Literal[""] = ""
    side: str = ""
    share: int = 100
    shadowed: str = ""
    published: datetime | None = None

    @property
    def is_shadow(self) -> bool:
        """Whether its outputs are not the published ones."""
        return self.challenger == "shadow"
