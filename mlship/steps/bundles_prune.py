"""bundles prune: remove bundles from this machine that nothing needs and the store has."""

import shutil
from contextlib import ExitStack
from pathlib import Path

from mlship import files
from mlship.domain import bundle as bundles
from mlship.domain import retention
from mlship.domain.release import Release
from mlship.domain.removal import Item
from mlship.domain.retention import Kept, Retention
from mlship.errors import IntegrityError, NotFoundError
from mlship.steps.images_prune import running, targets
from mlship.steps.pipeline import Pipeline


def prune_bundles(pipeline: Pipeline, *, keep_days: int, dry_run: bool) -> Retention:
    """Remove the local bundles of releases that nothing needs.

    A copy in the store is fetched and verified before a bundle is removed. Folders that the ledger
    does not know stay. Nothing is lost, so nothing is recorded: `Pipeline.bundle` fetches it again.

    Args:
        pipeline: the project.
        keep_days: releases with evidence from the last so many days are kept.
        dry_run: change nothing, and do not look into the store.

    Raises:
        UnavailableError: a target or the store does not answer.
        ConflictError: another command is changing a target.
    """
    with ExitStack() as stack:
        if not dry_run:
            for name in targets(pipeline):
                stack.enter_context(pipeline.locks.exclusive(name))
        records = pipeline.read()
        needed = retention.needed(records, running(pipeline), pipeline.clock(), keep_days)
        removed, kept = [], []
        reasons = {each.bundle: needed[each.id] for each in records.releases if each.id in needed}
        # Releases may share a bundle.
        for release in {each.bundle: each for each in records.releases}.values():
            folder = pipeline.bundle_folder(release.bundle)
            if not folder.is_dir():
                continue
            reason = reasons.get(release.bundle) or needed.get(release.bundle, "")
            if not reason and not dry_run and not _is_in_store(pipeline, release):
                reason = "the store has no copy of its bundle"
            if reason:
                kept.append(Kept(name=str(release), reason=reason))
                continue
            item = Item(kind="bundle", name=str(release), digest=release.bundle, size=_size(folder))
            removed.append(item)
            if not dry_run:
                shutil.rmtree(folder)
        return Retention(removed=tuple(removed), kept=tuple(kept))


def _is_in_store(pipeline: Pipeline, release: Release) -> bool:
    with files.temporary_folder(pipeline.state, ".bundle-") as folder:
        try:
            bundles.read(pipeline.store.fetch(release, folder / "copy"), expected=release.bundle)
        except (NotFoundError, IntegrityError):
            return False
    return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
