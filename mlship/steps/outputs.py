"""The outputs of a training, brought back where they are missing."""

import os
import shutil
from pathlib import Path

from mlship import files
from mlship.domain import digests, outputs, shapes
from mlship.domain.commit import named
from mlship.domain.facts import Trained
from mlship.domain.outputs import FOLDER
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import MlshipError
from mlship.steps.pipeline import Pipeline


def bring_back(pipeline: Pipeline, release: Release, records: Records) -> None:
    """Write the files that a release's training wrote, where the project's folder has none of them.

    Files that are there stay as they are. What the store has lost, or has otherwise than it was
    recorded, is told and not written: the tests that need it fail.
    """
    record = records.latest("train", release)
    kept = shapes.of(record, Trained).outputs if record else {}
    absent = outputs.missing(pipeline.root, kept)
    if not absent:
        return
    pipeline.state.mkdir(parents=True, exist_ok=True)
    with files.temporary_folder(pipeline.state, ".outputs-") as temporary:
        place = temporary / "files"
        try:
            names = [f"{FOLDER}/{name}" for name in absent]
            fetched = pipeline.store.fetch(release, place, files=names) / FOLDER
        except MlshipError as error:
            note = f"what training wrote cannot be brought back ({named(absent)}): {error.message}"
            pipeline.progress.note(note)
            return
        whole = [name for name in absent if digests.of_file(fetched / name) == kept[name]]
        written = [name for name in whole if _put(fetched, pipeline.root, name)]
    if written:
        pipeline.progress.note(f"brought back what training wrote: {named(written)}")


def _put(fetched: Path, root: Path, name: str) -> bool:
    """Move a file into the project; return whether it had none and no link leads out of it."""
    goal = root / name
    if not goal.parent.resolve().is_relative_to(root.resolve()):
        return False
    goal.parent.mkdir(parents=True, exist_ok=True)
    draft = goal.with_name(f".{goal.name}.{os.getpid()}.tmp")
    shutil.copyfile(fetched / name, draft)
    try:
        os.link(draft, goal)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True
