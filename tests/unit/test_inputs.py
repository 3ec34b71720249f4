"""Which release a tree has: by the files that a training read, and whatever it wrote itself."""

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from mlship.domain import scores, shapes
from mlship.domain.commit import named
from mlship.domain.digests import Digest, of_bytes
from mlship.domain.evidence import Record
from mlship.domain.facts import Trained
from mlship.domain.inputs import Inputs, Opened
from mlship.errors import ConflictError, NotFoundError, RefusedError
from mlship.steps.deploy import deploy_production
from mlship.steps.train import train
from tests.fakes.ports import World, world

ONE, TWO, THREE = (of_bytes(text) for text in (b"1", b"2", b"3"))


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


def found(here: World) -> bool:
    """Tell whether the tree has a release."""
    try:
        here.pipeline.release()
    except NotFoundError:
        return False
    return True


def changed(here: World, monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    """Make files of the tree differ from its commit."""
    commit = msgspec.structs.replace(here.source.commit(), dirty=bool(paths), changes=tuple(paths))
    monkeypatch.setattr(here.source, "commit", lambda: commit)


def test_code_that_git_ignores_counts_as_uncommitted(here: World) -> None:
    here.trainer.opened = Opened(ignored=("mlship.yaml",))
    record = train(here.pipeline)
    assert record.evidence.release.dirty
    assert shapes.of(record, Trained).uncommitted == "mlship.yaml"
    assert found(here)


def test_a_training_that_moves_head_is_of_no_commit(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains = here.trainer.train

    def commits(into: Path) -> scores.Trained:
        here.source.sha = "b" * 40
        return trains(into)

    monkeypatch.setattr(here.trainer, "train", commits)
    with pytest.raises(ConflictError, match=r"HEAD moved from a{12} to b{12} while training ran"):
        train(here.pipeline)
    assert not found(here)


CHECKS = ["mlship.yaml", "tests/unit/test_a.py", "conftest.py", "pytest.ini", "requirements.txt"]


@pytest.mark.parametrize("path", CHECKS)
@pytest.mark.parametrize("by_training", [True, False])
def test_a_training_that_rewrites_what_it_is_tested_by_is_refused(
    here: World, monkeypatch: pytest.MonkeyPatch, path: str, by_training: bool
) -> None:
    trains = here.trainer.train
    here.trainer.opened = Opened(written=(path,) if by_training else ())

    def rewrites(into: Path) -> scores.Trained:
        changed(here, monkeypatch, path)
        return trains(into)

    monkeypatch.setattr(here.trainer, "train", rewrites)
    if by_training:
        with pytest.raises(ConflictError, match=f"training itself changed {path}, which decides"):
            train(here.pipeline)
        assert not here.pipeline.read()
    else:
        # Somebody edited it meanwhile: the training had read it before, the tests will differ.
        assert not train(here.pipeline).evidence.release.dirty
        assert not found(here)


def test_a_training_may_write_data_beside_its_tests_and_rewrite_a_file_as_it_was(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains = here.trainer.train
    here.trainer.opened = Opened(written=("mlship.yaml", "tests/unit/rows.csv"))

    def writes(into: Path) -> scores.Trained:
        changed(here, monkeypatch, "tests/unit/rows.csv")
        return trains(into)

    monkeypatch.setattr(here.trainer, "train", writes)
    assert not train(here.pipeline).evidence.release.dirty


@pytest.mark.parametrize("by_training", [True, False])
def test_who_changed_the_data_decides_what_to_do_about_it(
    here: World, monkeypatch: pytest.MonkeyPatch, by_training: bool
) -> None:
    trains = here.trainer.train
    here.trainer.opened = Opened(written=("train.csv",) if by_training else ())

    def rewrites(into: Path) -> scores.Trained:
        here.trainer.data = "other"
        return trains(into)

    monkeypatch.setattr(here.trainer, "train", rewrites)
    with pytest.raises(ConflictError) as caught:
        train(here.pipeline)
    own = "training itself changed train.csv, which it depends on; nothing was recorded"
    assert (caught.value.message == own) == by_training
    assert caught.value.hint.startswith("write to another file" if by_training else "train again")


def test_a_file_that_was_read_makes_another_release_when_it_changes(here: World) -> None:
    here.trainer.opened = Opened(read={"params.json": ONE})
    here.trainer.files = {"params.json": ONE}
    first = train(here.pipeline).evidence.release
    assert train(here.pipeline).evidence.release == first
    here.trainer.files = {"params.json": TWO}
    assert not found(here)
    here.trainer.opened = Opened(read={"params.json": TWO})
    second = train(here.pipeline).evidence.release
    assert second.code != first.code
    assert here.trainer.trainings == 2
    here.trainer.files = {"params.json": ONE}
    assert here.pipeline.release() == first


def test_a_file_that_many_trainings_read_is_looked_at_once(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def current(paths: Iterable[str]) -> dict[str, Digest | None]:
        wanted = list(paths)
        asked.extend(wanted)
        return dict.fromkeys(wanted, THREE)

    for digest in (ONE, TWO):
        here.trainer.opened = Opened(read={"large.bin": digest})
        train(here.pipeline, anew=True)
    monkeypatch.setattr(here.trainer, "current", current)
    assert not found(here)
    assert asked == ["large.bin"]


def test_a_file_that_was_missing_makes_another_release_when_it_is_there(here: World) -> None:
    here.trainer.opened = Opened(read={"override.json": None})
    train(here.pipeline)
    assert found(here)
    here.trainer.files = {"override.json": ONE}
    assert not found(here)


def test_what_the_training_wrote_neither_hides_its_release_nor_makes_it_dirty(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.trainer.opened = Opened(written=("metrics.json",))
    release = train(here.pipeline).evidence.release
    assert not release.dirty
    changed(here, monkeypatch, "metrics.json")
    assert found(here)
    assert not train(here.pipeline, anew=True).evidence.release.dirty


def test_a_change_of_somebody_elses_hides_a_clean_release(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.trainer.opened = Opened(written=("metrics.json",))
    train(here.pipeline)
    changed(here, monkeypatch, "metrics.json", "README.md")
    assert not found(here)
    record = train(here.pipeline)
    assert record.evidence.release.dirty
    assert shapes.of(record, Trained).uncommitted == "README.md"
    assert "uncommitted changes: README.md; the release cannot go to production" in (
        here.progress.notes
    )
    with pytest.raises(RefusedError, match=r"with uncommitted changes: README\.md"):
        deploy_production(here.pipeline, record.evidence.release)
    changed(here, monkeypatch, "metrics.json")
    assert not here.pipeline.release().dirty


def test_an_output_that_was_read_as_well_is_a_change_that_counts(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(here, monkeypatch, "scores.json")
    here.trainer.opened = Opened(
        read={"scores.json": ONE}, left={"scores.json": TWO}, written=("scores.json",)
    )
    here.trainer.files = {"scores.json": TWO}
    assert train(here.pipeline).evidence.release.dirty
    assert found(here)


def test_a_file_that_was_read_and_changed_is_known_before_and_after(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.trainer.opened = Opened(
        read={"scores.json": ONE}, left={"scores.json": TWO}, written=("scores.json",)
    )
    release = train(here.pipeline).evidence.release
    assert not release.dirty
    here.trainer.files = {"scores.json": ONE}
    assert here.pipeline.release() == release
    here.trainer.files = {"scores.json": TWO}
    changed(here, monkeypatch, "scores.json")
    assert here.pipeline.release() == release
    here.trainer.files = {"scores.json": THREE}
    assert not found(here)


def inputs(**files: Digest) -> Inputs:
    return Inputs(
        data=ONE,
        params=ONE,
        environment=ONE,
        settings=ONE,
        sources={"d.csv": ONE},
        files={name.replace("__", "."): digest for name, digest in files.items()},
    )


CHANGES: dict[str, tuple[Callable[[Inputs], Inputs], str]] = {
    "data": (lambda old: msgspec.structs.replace(old, data=TWO, sources={"d.csv": TWO}), "d.csv"),
    "code": (lambda old: inputs(a__py=TWO, m__ubj=ONE), "a.py"),
    "removed code": (lambda old: inputs(m__ubj=ONE), "a.py"),
    "packages": (
        lambda old: msgspec.structs.replace(old, environment=TWO),
        "the installed packages",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_changed_while_training_ran_is_named_and_nothing_recorded(
    case: str, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, name = CHANGES[case]
    old = inputs(a__py=ONE, m__ubj=ONE)
    told = iter([old, change(old)])
    monkeypatch.setattr(here.trainer, "inputs", lambda: next(told))
    with pytest.raises(ConflictError, match=f"^{name} changed while training ran"):
        train(here.pipeline)
    assert not here.pipeline.read()


def trained(here: World, monkeypatch: pytest.MonkeyPatch, *told: Inputs) -> Record:
    """Train where the inputs are these before, and after."""
    rest = iter(told)
    monkeypatch.setattr(here.trainer, "inputs", lambda: next(rest))
    return train(here.pipeline)


def test_a_model_that_a_compiled_library_wrote_over_is_an_output(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = inputs(a__py=ONE, m__ubj=ONE), inputs(a__py=ONE, m__ubj=TWO)
    release = trained(here, monkeypatch, before, after).evidence.release
    here.trainer.files = {"m.ubj": TWO}
    changed(here, monkeypatch, "m.ubj")
    assert trained(here, monkeypatch, after).evidence.release == release
    assert not release.dirty


def test_a_model_that_may_have_been_read_unseen_counts_as_uncommitted(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(here, monkeypatch, "m.ubj")
    before, after = inputs(a__py=ONE, m__ubj=ONE), inputs(a__py=ONE, m__ubj=TWO)
    release = trained(here, monkeypatch, before, after).evidence.release
    assert release.dirty
    here.trainer.files = {"m.ubj": TWO}
    assert trained(here, monkeypatch, after).evidence.release == release
    here.trainer.files = {"m.ubj": THREE}
    assert trained(here, monkeypatch, after, after).evidence.release != release


def test_a_model_that_was_read_and_changed_meanwhile_is_a_conflict(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.trainer.opened = Opened(read={"m.ubj": ONE})
    with pytest.raises(ConflictError, match=r"m\.ubj changed while training ran"):
        trained(here, monkeypatch, inputs(m__ubj=ONE), inputs(m__ubj=TWO))


def test_code_that_the_training_writes_itself_is_an_output(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.trainer.opened = Opened(written=("made.py",))
    before, after = inputs(a__py=ONE), inputs(a__py=ONE, made__py=TWO)
    release = trained(here, monkeypatch, before, after).evidence.release
    assert trained(here, monkeypatch, after).evidence.release == release


def test_uncommitted_files_elsewhere_in_the_repository_make_a_release_of_their_own(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "../shared/scale.py"
    here.trainer.files = {place: ONE}
    here.trainer.opened = Opened(read={place: ONE})
    clean = trained(here, monkeypatch, inputs(a__py=ONE), inputs(a__py=ONE)).evidence.release
    here.trainer.files = {place: TWO}
    here.trainer.opened = Opened(read={place: TWO}, shared=(place,))
    record = trained(here, monkeypatch, inputs(a__py=ONE), inputs(a__py=ONE))
    release = record.evidence.release
    assert (clean.dirty, release.dirty) == (False, True)
    assert shapes.of(record, Trained).uncommitted == place
    assert any(f"uncommitted changes: {place}" in note for note in here.progress.notes)
    assert trained(here, monkeypatch, inputs(a__py=ONE)).evidence.release == release
    here.trainer.files = {place: ONE}
    assert trained(here, monkeypatch, inputs(a__py=ONE)).evidence.release == clean


def test_five_names_are_shown_and_the_rest_counted() -> None:
    assert named(["a"]) == "a"
    assert named(list("abcde")) == "a, b, c, d, e"
    assert named(list("abcdefgh")) == "a, b, c, d, e and 3 more"
    assert named(["a\n::error::b", "\udcff"]) == "a\\n::error::b, \\udcff"
