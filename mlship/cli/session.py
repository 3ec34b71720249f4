"""What every command is given: the global options, and the pipeline that they lead to."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import typer

# --help must be quick: what a pipeline needs is imported when there is one.
if TYPE_CHECKING:
    from mlship.config.layers import Resolved
    from mlship.domain.ports import Progress
    from mlship.steps.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """The global options of one call."""

    config: Path
    json: bool
    flags: tuple[str, ...]

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.config.resolve().parent

    def resolved(self) -> "Resolved":
        """Return the Config with its origins."""
        from mlship import wire

        return wire.read(self.config, wire.environment(), self.flags)

    def pipeline(self, progress: "Progress | None" = None) -> "Pipeline":
        """Return the project's pipeline."""
        from mlship import wire
        from mlship.cli.progress import Lines

        config = self.resolved().config
        return wire.assemble(config, self.root, progress or Lines(), wire.environment())


def session(context: typer.Context) -> Session:
    """Return the session that the app's callback made."""
    made = context.obj
    if not isinstance(made, Session):
        raise TypeError(made)
    return made
