"""What every command is given: the global options, and the pipeline that they lead to."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import typer

# --help must be fast: a pipeline's dependencies are imported only when one is built.
if TYPE_CHECKING:
    from mlship.config.layers import Resolved
    from mlship.domain.ports import Progress
    from mlship.steps.pipeline import Pipeline


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

    def pipeline(self, progress: "Progress | None" = None) -> "Pipeline":
        """Return the project's pipeline."""
        from mlship import wire
        from mlship.cli.progress import Lines

        config = self.resolved().config
        return wire.assemble(config, self.root, progress or Lines(), wire.environment())


def session(context: typer.Context) -> Session:
    """Return the session that the app's callback created."""
    if not isinstance(context.obj, Session):
        raise TypeError(context.obj)
    return context.obj
