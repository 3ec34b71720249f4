"""A student's repository to make mistakes in, and the real command line run on it."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.harness import commands
from tests.harness.repositories import QUICK

ROOT = Path(__file__).parents[2]
AUTHOR = "ada@example.org"
_OBJECTS = f"{os.sep}.git{os.sep}objects{os.sep}"
_NO_STATE = {"locks", ".gitignore"}
_QUICK = """
gates:
  test: {accuracy: {min: 0.5}}
  promote: {metric: accuracy, min_labels: 1, approvals: 1}
workload: workload/staging.jsonl
targets:
  staging: {kind: local}
  production: {kind: local, challenger_weight: 50}
store: {kind: directory}
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        """The lines that say what is wrong."""
        return self._after("error: ")

    @property
    def hints(self) -> list[str]:
        """The lines that say what to do."""
        return self._after(" next: ")

    def _after(self, start: str) -> list[str]:
        lines = self.stderr.splitlines()
        return [line.removeprefix(start) for line in lines if line.startswith(start)]


class Project:
    """A repository with iris_example in it: no tests, a directory store, one replica."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = contextlib.ExitStack()
        """What a mistake holds until the project is done with: a lock, a port, a small disk."""
        self.variables: dict[str, str] = {}
        """What each command of the project finds in its environment besides."""

    @classmethod
    def new(cls, folder: Path) -> "Project":
        """Make a repository of the example with one commit."""
        skipped = shutil.ignore_patterns("tests", ".*_cache", "__pycache__", ".mlship")
        shutil.copytree(ROOT / "iris_example", folder, ignore=skipped)
        project = cls(folder)
        config = project.read("mlship.yaml")
        project.write("mlship.yaml", config[: config.index("\ntests:")] + _QUICK)
        project.git("init", "-q", "-b", "develop")
        project.commit()
        return project

    def copy(self, folder: Path) -> "Project":
        """Copy the repository with all that mlship learnt; nothing runs in the copy."""
        skipped = shutil.ignore_patterns("targets", "locks")
        shutil.copytree(self.folder, folder, ignore=skipped, symlinks=True, copy_function=_copied)
        made = Project(folder)
        made.variables.update(self.variables)
        return made

    def read(self, name: str) -> str:
        """Return a file's text."""
        return (self.folder / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str | bytes) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def edit(self, name: str, old: str, new: str) -> None:
        """Change one place of a file."""
        text = self.read(name)
        assert text.count(old) == 1, (name, old)
        self.write(name, text.replace(old, new))

    def git(self, *arguments: str) -> None:
        """Run git as the student."""
        who = {"NAME": "Ada", "EMAIL": AUTHOR}
        identity = {
            f"GIT_{role}_{key}": who[key] for role in ("AUTHOR", "COMMITTER") for key in who
        }
        subprocess.run(
            ["git", *QUICK, *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            env={**os.environ, **identity},
        )

    def commit(self) -> None:
        """Commit all that there is."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "A change")

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what a command sees: nothing of mlship's but what is given."""
        ours = ("MLSHIP_", "MLFLOW_", "GITHUB_", "GIT_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**clean, "PYTHONPATH": str(ROOT), **self.variables, **(extra or {})}

    def mlship(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        below: str = ".",
        seconds: float = 120,
    ) -> Answer:
        """Run a command to its end."""
        done = commands.run(
            *arguments,
            folder=self.folder / below,
            environment=self.environment(environment),
            seconds=seconds,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def done(self, *arguments: str) -> str:
        """Run a command that must succeed; return what it printed."""
        answer = self.mlship(*arguments)
        assert answer.code == 0, answer.stderr
        return answer.stdout

    def state(self) -> dict[str, str]:
        """Return all that mlship keeps: the digest of each file by its path.

        Locks and empty files hold nothing: they may come and stay; `.gitignore` too.
        """
        kept = self.folder / ".mlship"
        return {
            path.relative_to(kept).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(kept.rglob("*"))
            if path.is_file() and path.stat().st_size and not _NO_STATE & set(path.parts)
        }

    def drafts(self) -> list[str]:
        """Return what is left of work that was given up."""
        kept = self.folder / ".mlship"
        return [
            path.relative_to(kept).as_posix()
            for path in kept.rglob(".*")
            if path.name not in (".lock", ".gitignore", ".ballast")
        ]


def _copied(source: str, target: str) -> str:
    """Copy a file; what git has stored never changes, and is linked."""
    if _OBJECTS not in source:
        return shutil.copy2(source, target)
    os.link(source, target)
    return target


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Put a disk of so many kilobytes under a folder, with what was in it."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder.with_name(folder.name + "-before")
    shutil.copytree(folder, kept)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k"]
    subprocess.run(["mount", *options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(kept)


def can_mount() -> bool:
    """Tell whether this machine lets tests make a small disk."""
    if os.geteuid() != 0 or shutil.which("mount") is None or shutil.which("unshare") is None:
        return False
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def fill(folder: Path) -> Path:
    """Fill the disk of a folder to its last byte; return the file that does it."""
    ballast = folder / ".ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    return ballast
