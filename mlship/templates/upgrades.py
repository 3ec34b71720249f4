"""The three-way merge of generated files that a person edited: `mlship init --upgrade`.

The base of the merge is the text that the person edited. A workflow names it by the digest in its
first line; git's history has it. After a merge, that line names the text that was merged in, which
no commit has. So a copy of that text is written, in `.github/mlship`: the base of the next merge.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from mlship.domain.commit import Merger, Repository
from mlship.templates import workflows
from mlship.templates.generated import FORMER, NEEDED, data_of, is_untouched, text_of

FOLDER = ".github/mlship"
"""The folder of the copies, in a repository."""

_MARKS = re.compile(r"^<{7} .*^={7}$.*^>{7} ", re.MULTILINE | re.DOTALL)


class Outcome(NamedTuple):
    """The outcome of an upgrade for a file.

    Attributes:
        what: `merge` if all went in, `conflict` if marks show where a person must choose,
            `unmerged` if there are such marks from before, `keep` if nothing is merged.
        data: the merged file.
        reason: why nothing can be merged; empty if nothing need be.
    """

    what: Literal["merge", "conflict", "unmerged", "keep"]
    data: bytes = b""
    reason: str = ""


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """The upgrade of the files of a project.

    Attributes:
        repository: around the project; `None` if there is none.
        inside: the project's folder from the repository's top; empty for the top.
        prefix: of the names of its workflows: empty, or `churn-`.
        copies: the texts that edited files were last merged with, by the copies' names.
        merge: the three-way merge.
    """

    repository: Repository | None
    inside: str
    prefix: str
    copies: Mapping[str, str]
    merge: Merger

    def of(self, name: str, yours: bytes, new: bytes, former: str = "") -> Outcome:
        """Return the outcome for a file that somebody edited.

        Args:
            name: of the file, from the project's folder.
            yours: its content.
            new: the content that is generated now.
            former: its name until now, if a former version named it.
        """
        text, theirs = text_of(yours), text_of(new)
        if _MARKS.search(text):
            return Outcome("unmerged")
        if "\0" in text:
            return Outcome("keep", reason="it is not a text")
        base = self._base(name, former or name, text, theirs)
        if base is None:
            return Outcome("keep", reason=self._reason())
        if base == theirs:
            return Outcome("keep")
        # The first lines always differ, and so close to an edit they would make a conflict of it.
        merged = self.merge(_body(text), _body(base), _body(theirs))
        data = data_of(workflows.signature(theirs) + merged.text, yours)
        return Outcome("conflict" if merged.conflicts else "merge", data)

    def lacks(self, name: str, new: bytes) -> bool:
        """Return whether a later upgrade would not find the text that is generated now."""
        theirs = text_of(new)
        return theirs not in self._texts() and self.copies.get(copy_of(name, self.prefix)) != theirs

    def _base(self, name: str, present: str, text: str, theirs: str) -> str | None:
        copy = self.copies.get(copy_of(present, self.prefix), "")
        former = [copy, *self._texts(posixpath.normpath(posixpath.join(self.inside, present)))]
        if not workflows.is_ours(theirs):
            known = (theirs, *FORMER.get(name, ()))
            return next((base for base in former if base in known), None)
        wanted = workflows.signature(text)
        if not wanted:
            return next((base for base in former if is_untouched(name, base)), None)
        if wanted == workflows.signature(theirs):
            return theirs
        everything = (*self.copies.values(), *self._texts())
        candidates = (base for base in everything if base.startswith(wanted))
        return next((base for base in candidates if is_untouched(name, base)), None)

    def _texts(self, path: str | None = None) -> Iterator[str]:
        """Yield the former texts of a file, or of all, newest first."""
        versions = self.repository.versions if self.repository else ()
        return (text_of(version.data) for version in versions if path in (None, version.path))

    def _reason(self) -> str:
        if self.repository is None:
            return "it is in no git repository"
        return self.repository.gap or "no commit has it as it was generated, before the edits"


def covers(name: str) -> bool:
    """Return whether a file of a project can be merged; the others are examples."""
    return workflows.FOLDER in name or name in NEEDED


def copies(top: Path) -> dict[str, str]:
    """Return the texts in the folder of copies by the names of their files."""
    folder = top / FOLDER
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: text_of(path.read_bytes()) for path in paths if path.is_file()}


def copy_of(name: str, prefix: str) -> str:
    """Return the name of a file's copy.

    Args:
        name: of the file, from the project's folder: requirements.txt, or a path that ends with
            .github/workflows/churn-main.yml.
        prefix: of the names of the project's workflows.
    """
    if workflows.FOLDER in name:
        return Path(name).name
    # A file that is called .gitignore would count as one.
    return f"{prefix}{name.lstrip('.')}"


def _body(text: str) -> str:
    return text.removeprefix(workflows.signature(text))
