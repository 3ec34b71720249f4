"""The input of every command: the global options, and the pipeline that they configure."""

import dataclasses
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
        self, progress: "Progress | None" = None, purpose: "Purpose" = "change"
    ) -> "Pipeline":
        """Return the project's pipeline.

        Args:
            progress: receives progress notes; by default they are printed.
            purpose: what the command does: only `change` waits for a server that restarts.
        """
        from mlship import wire
        from mlship.cli.progress import Lines

        resolved = self.resolved()
        config, origins = resolved.config, resolved.origins
        overridden = [key for key, layer in origins.items() if layer in ("environment", "flags")]
        progress = progress or Lines()
        return wire.assemble(config, self.root, progress, wire.environment(), purpose, overridden)


def session(context: typer.Context) -> Session:
    """Return the session that the app's callback created."""
    if not isinstance(context.obj, Session):
        raise TypeError(context.obj)
    return context.obj
