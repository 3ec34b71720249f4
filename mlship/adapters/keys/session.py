"""The key of a job of GitHub Actions, in the runner's folder for temporary files.

    $RUNNER_TEMP/mlship/<project>/key.pem         the private key
    $RUNNER_TEMP/mlship/<project>/predicate.json  what the job lets GitHub attest of it
    $RUNNER_TEMP/mlship/<project>/bundle.json     the attestation, once it was verified

The runner empties the folder before and after each job. It is in no repository, cache or artifact.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlship import files
from mlship.adapters.keys.ed25519 import PrivateKey, generate
from mlship.domain import sessions
from mlship.domain.identity import MOST
from mlship.domain.sessions import Session
from mlship.errors import ConfigError, UnavailableError

VARIABLE: Final = "RUNNER_TEMP"
_MOST: Final = 10_000
"""Bytes of a file with a key."""


class SessionKey:
    """The key of a job for a project.

    Args:
        project: its name.
        environment: the environment variables, which say where the runner's folder is.

    Attributes:
        folder: with the files of the key; `None` outside of a job.
    """

    def __init__(self, project: str, environment: Mapping[str, str]) -> None:
        temporary = environment.get(VARIABLE)
        self.folder = Path(temporary) / "mlship" / project if temporary else None

    def new(self, home: str) -> tuple[PrivateKey, Path]:
        """Make a key, instead of one that is there; return it and the file with the predicate.

        Args:
            home: of the project.

        Raises:
            ConfigError: this is no job.
            UnavailableError: the folder cannot be written.
        """
        folder = self._required()
        private = generate()
        key = PrivateKey(private, str(folder / "key.pem"))
        said = Session(name=folder.name, home=home, key=key.public)
        predicate = folder / "predicate.json"
        try:
            files.make_private(folder.parent)
            files.make_private(folder)
            (folder / "bundle.json").unlink(missing_ok=True)
            files.write_atomically(folder / "key.pem", private, mode=0o600)
            files.write_atomically(predicate, sessions.predicate(said), mode=0o600)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return key, predicate

    def key(self) -> PrivateKey:
        """Return the key, also before it is attested.

        Raises:
            ConfigError: there is none, or others may read it.
        """
        folder = self._required()
        path = folder / "key.pem"
        try:
            data = files.read_regular(path, _MOST)
        except OSError as error:
            message = f"this job has no key of its own: cannot read {path}: {error.strerror}"
            raise ConfigError(message, hint="run `mlship keys session` in the job first") from error
        if not files.is_private(path):
            message = f"other users of this machine may read the private key {path}"
            raise ConfigError(message, hint="run `mlship keys session` again, under another umask")
        return PrivateKey(data, str(path))

    def keep(self, bundle: str) -> None:
        """Keep the bundle of the key, after it was verified: from then on the key signs.

        Raises:
            UnavailableError: the folder cannot be written.
        """
        folder = self._required()
        try:
            files.write_atomically(folder / "bundle.json", bundle.encode(), mode=0o600)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def bundle(self) -> str:
        """Return the bundle of the key; empty if this job has none."""
        if self.folder is None:
            return ""
        try:
            return files.read_regular(self.folder / "bundle.json", MOST).decode()
        except (OSError, UnicodeDecodeError):
            return ""

    def _required(self) -> Path:
        if self.folder is None:
            message = f"a key of a job is made in a job of GitHub Actions: {VARIABLE} is not set"
            raise ConfigError(message, hint="elsewhere, `mlship keys new` makes a key")
        return self.folder


def _unwritable(folder: Path, error: OSError) -> UnavailableError:
    message = f"cannot write the key of this job to {folder}: {error.strerror or error}"
    return UnavailableError(message, hint="make the folder writable, then run the command again")
