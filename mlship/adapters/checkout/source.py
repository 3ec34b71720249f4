"""The commit that a project has checked out, and how the checkout differs from another."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mlship.adapters.checkout import changes, git
from mlship.adapters.checkout.differences import differences
from mlship.config.check_files import CheckFiles
from mlship.domain.commit import Commit
from mlship.errors import ProjectError


class GitSource:
    """The commit that a project's folder has checked out: `ports.Source`."""

    def __init__(self, root: Path, checks: CheckFiles | None = None) -> None:
        self._root, self._checks = root, checks or CheckFiles()

    def commit(self) -> Commit:
        """Return the commit; only files under the project's folder can make it dirty.

        Raises:
            ProjectError: there is no git, no repository, no commit, or no file of the project
                is in it.
        """
        state = changes.state(self._root)
        if not state.sha:
            message = f"the git repository of {self._root} has no commit yet"
            raise ProjectError(message, hint=f"{git.cd(self._root)} && git add -A && git commit")
        if not state.has_files:
            message = f"no file of {self._root} is tracked by its git repository"
            raise ProjectError(message, hint=f"{git.cd(self._root)} && git add -A && git commit")
        shown = ("log", "-1", "--no-show-signature", "--format=%ae%x00%s", state.sha, "--")
        author, subject = git.run(self._root, *shown).rstrip("\n").split("\0", 1)
        return Commit(
            sha=state.sha,
            dirty=bool(state.changes),
            branch=state.branch,
            author=author,
            subject=subject,
            changes=state.changes,
        )

    def differences(self, commit: str, beside: Iterable[str] = ()) -> tuple[str, ...]:
        """Return what is not as in a commit, and the check files that git ignores.

        Raises:
            ProjectError: there is no git or no repository.
        """
        return differences(self._root, commit, self._checks, beside)

    def descends(self, commit: str, earlier: str) -> bool | None:
        """Return whether a commit was made from another one; `None` if it is not known here."""
        with suppress(ProjectError):
            if self._leads(earlier, commit):
                return True
            # Both ways: what a shallow clone has may be enough.
            if self._leads(commit, earlier):
                return False
            is_whole = git.run(self._root, "rev-parse", "--is-shallow-repository") == "false\n"
            known = (
                self._says("cat-file", "-e", f"{each}^{{commit}}") for each in (commit, earlier)
            )
            if is_whole and all(known):
                return False
        return None

    def changed(self, path: str) -> datetime | None:
        """Return when a file was last changed by a commit; `None` if by none that git knows."""
        with suppress(ProjectError):
            shown = ("log", "-1", "--no-show-signature", "--format=%cI", "--", path)
            if text := git.run(self._root, *shown, check=False).strip():
                return datetime.fromisoformat(text)
        return None

    def _leads(self, earlier: str, commit: str) -> bool:
        return self._says("merge-base", "--is-ancestor", earlier, commit)

    def _says(self, *arguments: str) -> bool:
        return git.succeeds(self._root, *arguments)
