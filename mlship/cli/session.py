"""The input of every command: the global options, and the pipeline that they configure."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

# --help must be fast: a pipeline's dependencies are imported only when one is built.
if TYPE_CHECKING:
    from mlship.config.layers import Resolved
    from mlship.domain.ports import Progress
    from mlship.steps.pipeline import Pipeline
    from mlship.wire import Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """The global options of a command."""

    config: Path
    json: bool
    flags: tuple[str, ...]

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.config.resolve().parent

    def resolved(self) -> "Resolved":
        """Return the Config, with the origin of each setting."""
        from mlship import wire

        return wire.read(self.config, wire.environment(), self.flags)

    def pipeline(
        self,
        progress: "Progress | None" = None,
        purpose: "Purpose" = "change",
        key: Path | None = None,
    ) -> "Pipeline":
        """Return the project's pipeline.

        Args:
            progress: receives progress notes; by default they are printed.
            purpose: what the command does: only `change` waits for a server that restarts.
            key: an SSH key of a person, which signs the command's records.
        """
        from mlship import wire
        from mlship.cli.progress import Lines

        resolved = self.resolved()
        config, origins = resolved.config, resolved.origins
        overridden = [key for key, layer in origins.items() if layer in ("environment", "flags")]
        progress = progress or Lines()
        environment = wire.environment()
        by = None if key is None else wire.personal_key(key, environment, _passphrase)
        return wire.assemble(config, self.root, progress, environment, purpose, overridden, by)


def _passphrase(path: Path) -> str:
    """Ask for the passphrase of a key, on the terminal."""
    from mlship.errors import ConfigError

    if not sys.stdin.isatty():
        message = f"the key {path} has a passphrase, and nobody can be asked for it"
        raise ConfigError(message, hint=f"run `ssh-add {path}`, then give --key {path}.pub")
    return str(typer.prompt(f"passphrase of {path}", hide_input=True, err=True))


def session(context: typer.Context) -> Session:
    """Return the session that the app's callback created."""
    if not isinstance(context.obj, Session):
        raise TypeError(context.obj)
    return context.obj
