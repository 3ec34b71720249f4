"""mlship.yaml as a file of a git repository: its text in the commit, and a commit of it alone."""

from collections.abc import Sequence
from pathlib import Path

from mlship import files
from mlship.adapters.checkout import git
from mlship.errors import ProjectError


class GitSettingsFile:
    """The port `SettingsFile`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root, self._name = path.resolve().parent, path.name

    def read(self) -> str:
        """Return its text, with its line ends."""
        return self._path.read_bytes().decode("utf-8")

    def write(self, text: str) -> None:
        """Replace its text atomically."""
        files.write_atomically(self._path.resolve(), text.encode("utf-8"), keeps_access=True)

    def committed(self) -> str:
        """Return its text in the current commit, with the line ends of a checkout.

        Raises:
            ProjectError: there is no repository, or no commit that has the file.
        """
        place = f"HEAD:./{self._name}"
        git.run(self._root, "rev-parse", "--show-toplevel")
        if not git.succeeds(self._root, "cat-file", "-e", place):
            message = f"no commit has {self._name} yet"
            raise ProjectError(message, hint=f"git add {self._name} && git commit, then again")
        return git.run(self._root, "cat-file", "--filters", place)

    def staged(self) -> Sequence[str]:
        """Return the other files with staged changes, by their path in the repository."""
        listed = git.run(self._root, "diff", "--cached", "--name-only", "-z").split("\0")
        above = git.run(self._root, "rev-parse", "--show-prefix").rstrip("\n")
        return [name for name in listed if name and name != f"{above}{self._name}"]

    def commit(self, message: str) -> str:
        """Commit the file alone; return the hash of the commit.

        Raises:
            ProjectError: git refuses, such as a hook of the repository.
        """
        options = ("--quiet", "--only", "--file=-", "--", self._name)
        git.run(self._root, "commit", *options, given=message)
        return git.run(self._root, "rev-parse", "HEAD").strip()
