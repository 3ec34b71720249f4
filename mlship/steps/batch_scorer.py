"""A release that scores rows in a batch, alone or in a split, and what it answered."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from mlship.domain import batch_profile, batch_sides
from mlship.domain import bundle as bundles
from mlship.domain.batch import Counts, Manifest
from mlship.domain.batch_ports import Workers
from mlship.domain.batch_record import Batched
from mlship.domain.batch_sides import Player
from mlship.domain.bundle import Schema
from mlship.domain.release import Release
from mlship.steps.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
    """A release that scores rows.

    Attributes:
        player: what it is in a split; `None` if it scores all rows.
    """

    release: Release
    bundle: Path
    schema: Schema
    workers: Workers
    player: Player | None = None

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        workers: Callable[[Path], Workers],
        release: Release,
        player: Player | None = None,
    ) -> "Scorer":
        """Return a release with what scores its rows; no process is started yet."""
        bundle = pipeline.bundle(release)
        return cls(
            release=release,
            bundle=bundle,
            schema=bundles.manifest(bundle, expected=release.bundle).schema,
            workers=workers(bundle),
            player=player,
        )

    @property
    def role(self) -> str:
        """Its role in a split; empty if there is none."""
        return self.player.role if self.player else ""


def profiled(scorer: Scorer, counts: Mapping[str, Counts], manifest: Manifest) -> Player:
    """Return a release of a split with the profile of what it answered."""
    if scorer.player is None:
        raise TypeError(scorer)
    role, outputs = scorer.player.role, scorer.schema.outputs
    own = {
        field.name: counts[name]
        for field in outputs
        if (name := batch_sides.counted(role, field.name)) in counts
    }
    rows = sum(part.rows - part.rejected for part in manifest.parts if part.side == role)
    profile = batch_profile.profile(own, outputs, rows)
    return msgspec.structs.replace(scorer.player, profile=profile)


def of_player(facts: Batched, player: Player, manifest: Manifest) -> Batched:
    """Return the facts of a run that are about one release."""
    own = [part for part in manifest.parts if part.side == player.role]
    return msgspec.structs.replace(
        facts,
        side=player.role,
        share=player.weight,
        rows=sum(part.rows for part in own),
        rejected=sum(part.rejected for part in own),
        profile=player.profile,
    )
