"""What a training depends on: what is known before it starts, and the files that it opened."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from mlship.domain import digests
from mlship.domain.commit import Commit
from mlship.domain.digests import Digest
from mlship.domain.release import Release

SCRIPT = ".py"
OUTSIDE = "../"
"""The beginning of the path of a file of the repository outside of the project."""


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of what a training depends on, known before it starts.

    Attributes:
        data: of the training and the held-out data.
        params: of the parameters.
        environment: of the pinned requirements.
        settings: of the settings of data and model that shape a training.
        sources: what `data` is the digest of, by the names in mlship.yaml.
        files: the project's code and saved models, by their path in the project.
    """

    data: Digest
    params: Digest
    environment: Digest
    settings: Digest
    sources: Mapping[str, Digest] = {}
    files: Mapping[str, Digest] = {}

    def code(
        self, read: Mapping[str, Digest | None] | None = None, written: Collection[str] = ()
    ) -> Digest:
        """Return the digest of the code, of the settings and of the other files that were read.

        Args:
            read: the files that a training read, by their path.
            written: the files that it wrote, which are not among what it depends on.
        """
        files: dict[str, Digest | None] = {
            path: digest for path, digest in self.files.items() if path not in written
        }
        return digests.of_value({"files": files | dict(read or {}), "settings": self.settings})

    def changed(self, now: "Inputs", opened: "Opened") -> list[str]:
        """Return what is no longer as it was, for people; not what the training wrote itself.

        A compiled library may write a saved model unseen: one that was not seen to be read is
        none of these.
        """
        sources = [name for name, digest in self.sources.items() if now.sources.get(name) != digest]
        files = [
            path
            for path, digest in self.files.items()
            if now.files.get(path) != digest
            and path not in opened.written
            and (path.endswith(SCRIPT) or path in opened.read)
        ]
        packages = ["the installed packages"] if now.environment != self.environment else []
        return [*sources, *files, *packages]

    def beside(self, now: "Inputs", opened: "Opened") -> "Opened":
        """Return what a training opened beside the files that count whether they are read or not.

        A saved model that changed and that was not seen to be opened was written by a compiled
        library, which may have read it before: it counts as both.

        Args:
            now: the inputs after the training.
            opened: the files that it was seen to open.
        """
        unseen: dict[str, Digest | None] = {
            path: digest
            for path, digest in self.files.items()
            if now.files.get(path) != digest and path not in (*opened.read, *opened.written)
        }
        written = {*opened.written, *unseen}
        read = {
            path: digest
            for path, digest in opened.read.items()
            if path not in self.files or path in written
        }
        return Opened(
            read=read | unseen,
            left=opened.left | {path: now.files.get(path) for path in unseen},
            written=tuple(sorted(written)),
            ignored=opened.ignored,
            shared=opened.shared,
        )


class Opened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The files of the project that a training opened, by their path in the project.

    What it reads elsewhere in the repository counts too, such as `../shared/metrics.py`.

    Attributes:
        read: the digest of each file that it read, as it was then; `None` for one that it tried to
            read and that did not exist.
        left: of these, the digest of each file that the training itself then changed, after it.
        written: the files that it wrote.
        ignored: the settings and the code that it depends on and that git ignores: a clone has
            none of them.
        shared: of the files that it read elsewhere in the repository, those that were not as in the
            commit.
    """

    read: dict[str, Digest | None] = {}
    left: dict[str, Digest | None] = {}
    written: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def current(self, now: Mapping[str, Digest | None]) -> dict[str, Digest | None]:
        """Return the files that it read as they are now.

        One that still is as the training left it counts as it was when it was read.
        """
        return {
            path: before if self._is_as_left(path, now) else now.get(path)
            for path, before in self.read.items()
        }

    def uncommitted(self, changes: Sequence[str]) -> tuple[str, ...]:
        """Return the uncommitted changes that the training may depend on.

        A file that it wrote without reading it is none of them. Ignored code is one of them.
        """
        own = (path for path in changes if path not in self.written or path in self.read)
        return tuple(dict.fromkeys((*own, *self.ignored, *self.shared)))

    def explains(self, changes: Sequence[str], now: Mapping[str, Digest | None]) -> bool:
        """Return whether the training itself made all changes of the tree."""
        return all(
            path in self.written and (path not in self.read or self._is_as_left(path, now))
            for path in changes
        )

    def _is_as_left(self, path: str, now: Mapping[str, Digest | None]) -> bool:
        return path in self.left and now.get(path) == self.left[path]


def made(release: Release, commit: Commit, inputs: Inputs) -> bool:
    """Return whether a release may be of this tree, as far as it is told without other files."""
    return (release.commit, release.data, release.params, release.environment) == (
        commit.sha,
        inputs.data,
        inputs.params,
        inputs.environment,
    )


def matches(
    release: Release,
    opened: Opened,
    commit: Commit,
    inputs: Inputs,
    now: Mapping[str, Digest | None],
) -> bool:
    """Return whether training this tree again would make a release of the same inputs.

    Args:
        release: what was trained.
        opened: the files that its training opened.
        commit: the tree.
        inputs: of the tree.
        now: the digests of the files that the training read, as they are now.
    """
    if not made(release, commit, inputs):
        return False
    if release.code != inputs.code(opened.current(now), opened.written):
        return False
    if release.dirty:
        return bool(opened.uncommitted(commit.changes))
    return opened.explains(commit.changes, now)
