"""What a training writes is kept with its release, and brought back where it is missing."""

from pathlib import Path

import pytest

from mlship.domain import outputs, shapes
from mlship.domain.facts import Trained
from mlship.steps import test as testing
from mlship.steps.train import train
from tests.fakes.ports import World, world

MODEL = "artifacts/model.joblib"


@pytest.fixture
def here(tmp_path: Path) -> World:
    made = world(tmp_path)
    for name in (MODEL, "metrics.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    made.trainer.outputs = (MODEL, "metrics.csv", "gone.txt")
    return made


def told(here: World) -> list[str]:
    return [line for line in here.progress.notes if "brought back" in line or "cannot" in line]


def test_what_was_written_is_recorded_and_kept(here: World) -> None:
    record = train(here.pipeline)
    kept = shapes.of(record, Trained).outputs
    assert list(kept) == [MODEL, "metrics.csv"]
    files = here.store.files[record.evidence.release.id]
    assert files[f"outputs/{MODEL}"] == MODEL.encode()


@pytest.mark.parametrize("again", [train, lambda p: testing.test(p, p.release())])
def test_what_is_missing_is_brought_back_and_what_is_there_stays(
    here: World, again: object, tmp_path: Path
) -> None:
    train(here.pipeline)
    (tmp_path / MODEL).unlink()
    (tmp_path / "artifacts").rmdir()
    (tmp_path / "metrics.csv").write_text("mine")
    again(here.pipeline)  # type: ignore[operator]
    assert (tmp_path / MODEL).read_text() == MODEL
    assert (tmp_path / "metrics.csv").read_text() == "mine"
    assert told(here) == [f"brought back what training wrote: {MODEL}"]
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir()) == ["model.joblib"]
    again(here.pipeline)  # type: ignore[operator]
    assert len(told(here)) == 1


def test_what_the_store_lost_or_changed_is_not_written(here: World, tmp_path: Path) -> None:
    release = train(here.pipeline).evidence.release
    files = here.store.files[release.id]
    files[f"outputs/{MODEL}"] = b"another"
    for name in (MODEL, "metrics.csv"):
        (tmp_path / name).unlink()
    train(here.pipeline)
    assert not (tmp_path / MODEL).exists()
    assert (tmp_path / "metrics.csv").exists()
    files.clear()
    (tmp_path / "metrics.csv").unlink()
    train(here.pipeline)
    assert "cannot be brought back" in told(here)[-1]


def test_no_file_is_written_through_a_link_out_of_the_project(
    here: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    train(here.pipeline)
    outside = tmp_path_factory.mktemp("outside")
    (tmp_path / MODEL).unlink()
    (tmp_path / "artifacts").rmdir()
    (tmp_path / "artifacts").symlink_to(outside)
    train(here.pipeline)
    assert not list(outside.iterdir())


def test_files_of_tools_links_and_folders_are_not_kept(tmp_path: Path) -> None:
    names = ["mlruns/0/a", "a/__pycache__/b.pyc", ".mlship/x", "plots/a.png", "folder/a", "../out"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("x")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "linked").symlink_to(tmp_path)
    found, reason = outputs.chosen(tmp_path / "in", [*names, "link", "linked/out", "folder"])
    assert list(found) == ["folder/a", "plots/a.png"]
    assert reason == ""


def test_too_many_or_too_large_files_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(bytes(1_000_000))
    names = [path.name for path in tmp_path.iterdir()]
    monkeypatch.setattr(outputs, "FILES_MOST", 2)
    assert outputs.chosen(tmp_path, names) == (
        {},
        "training wrote 3 files, and at most 2 are kept: none is",
    )
    monkeypatch.setattr(outputs, "FILES_MOST", 3)
    monkeypatch.setattr(outputs, "BYTES_MOST", 2_000_000)
    assert outputs.chosen(tmp_path, names) == ({}, "training wrote 3 MB, more than is kept")
