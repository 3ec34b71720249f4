"""The facts of `batch`: counts and digests, never a value of a row."""

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
