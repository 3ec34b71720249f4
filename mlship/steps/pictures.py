"""The pictures of a report as files: mlship's own plots, and those of `report.include`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from mlship import files
from mlship.domain import digests
from mlship.domain.attachments import (
    FILES_MOST,
    PICTURE_MOST,
    PICTURES_MOST,
    fault_of_picture,
    is_inside,
)
from mlship.domain.commit import named
from mlship.domain.digests import Digest
from mlship.errors import MlshipError
from mlship.reports.attachments import FOLDER, PLOTS
from mlship.reports.report import Report
from mlship.steps.pipeline import Pipeline

_PLOTS_MOST: Final = 4


def of_release(pipeline: Pipeline, report: Report) -> dict[str, bytes]:
    """Return the pictures of a report by their path in its folder.

    Those that this machine does not have are fetched from the store. What the store has lost, or
    has otherwise than it was recorded, is not among them.
    """
    places = _places(pipeline, report)
    absent = [
        start + name for start, name, _ in _names(report) if not (places[start][0] / name).exists()
    ]
    if absent:
        _fetch(pipeline, report, absent, places)
    return _read(report, places)


def paths(pipeline: Pipeline, report: Report) -> dict[str, str]:
    """Return the files of these pictures, for a reader on this machine."""
    places = _places(pipeline, report)
    return {
        name: str(places[f"{start}/"][0] / rest)
        for name in of_release(pipeline, report)
        for start, _, rest in [name.partition("/")]
    }


def _fetch(
    pipeline: Pipeline,
    report: Report,
    names: Sequence[str],
    places: Mapping[str, tuple[Path, str]],
) -> None:
    wanted = [name for name in names if is_inside(name)]
    pipeline.state.mkdir(parents=True, exist_ok=True)
    with files.temporary_folder(pipeline.state, ".pictures-") as temporary:
        try:
            fetched = pipeline.store.fetch(report.release, temporary / "files", files=wanted)
        except MlshipError as error:
            pipeline.progress.note(f"pictures are left out ({named(wanted)}): {error.message}")
            return
        for name in wanted:
            start, _, rest = name.partition("/")
            goal = places[f"{start}/"][0] / rest
            goal.parent.mkdir(parents=True, exist_ok=True)
            (fetched / name).replace(goal)


def _places(pipeline: Pipeline, report: Report) -> dict[str, tuple[Path, str]]:
    plots = pipeline.state / "plots" / digests.short(report.release.bundle)
    return {PLOTS: (plots, ""), FOLDER: (pipeline.attachments(report.release), "")}


def of_folder(folder: Path, report: Report) -> dict[str, bytes]:
    """Return the pictures of a report that another job wrote into a folder.

    The folder is data from elsewhere: links are not followed, and what is no picture of fair size
    is not among them.
    """
    return _read(report, {start: (folder, start) for start in (PLOTS, FOLDER)})


def _read(report: Report, places: Mapping[str, tuple[Path, str]]) -> dict[str, bytes]:
    pictures: dict[str, bytes] = {}
    room = PICTURES_MOST
    for start, name, digest in _names(report):
        folder, prefix = places[start]
        content = _content(folder, prefix + name)
        if content is None or len(content) > room or len(pictures) == FILES_MOST:
            continue
        if digest in (None, digests.of_bytes(content)):
            pictures[start + name] = content
            room -= len(content)
    return pictures


def _names(report: Report) -> Iterator[tuple[str, str, Digest | None]]:
    """Yield each picture's folder, its path there and its digest, if its training recorded one."""
    for name in (report.tested.plots if report.tested else ())[:_PLOTS_MOST]:
        yield PLOTS, name, None
    for file in report.trained.attachments.files if report.trained else ():
        if file.kind == "picture":
            yield FOLDER, file.place, file.digest


def _content(folder: Path, name: str) -> bytes | None:
    """Return a picture; `None` if there is none, or it is behind a link."""
    if not is_inside(name):
        return None
    path = folder / name
    try:
        if path.resolve(strict=True) != folder.resolve() / name:
            return None
        content = files.read_regular(path, PICTURE_MOST + 1)
    except (OSError, ValueError, RuntimeError):  # of a link to itself, before Python 3.13
        return None
    return None if fault_of_picture(content) else content
