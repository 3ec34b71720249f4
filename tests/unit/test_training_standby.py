"""Who proves a bundle: the process that waited, or a new one where there is code of the project."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlship.domain import bundle as bundles
from mlship.domain.bundle import ModelFormat, Row
from mlship.domain.prediction import Answer
from mlship.errors import IntegrityError
from mlship.training import standby
from mlship.training.columns import rows_of
from mlship.training.standby import StandbyPredictor, has_code
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

pytestmark = pytest.mark.fits

CODE = """
from sklearn.tree import DecisionTreeClassifier

def train(data, params):
    return DecisionTreeClassifier(max_depth=4).fit(data[["length", "width"]], data.species)
"""
HOOK = """
def preprocess(frame):
    return frame
"""


class Anew:
    """A new process, of which this counts the questions."""

    def __init__(self) -> None:
        self.asked = 0

    @contextmanager
    def answers(self, bundle: Path, rows: Sequence[Row]) -> Iterator[Callable[[], list[Answer]]]:
        self.asked += 1
        with InProcess().answers(bundle, rows) as answers:
            yield answers


def sealed(root: Path, code: str = CODE, **model: str) -> Path:
    frame = flowers()[["length", "width", "species"]]
    module = project(root, code, frame)
    named = {key: f"{module}:{value}" for key, value in model.items()}
    made = request(root, config(module=module, **named))
    train(made, InProcess())
    return made.into


def rows() -> list[Row]:
    frame = flowers()[["length", "width"]]
    return [*rows_of(frame.head(5)), {"length": None, "width": 1.0}]


def predictor(root: Path) -> tuple[StandbyPredictor, Anew]:
    waiting, anew = StandbyPredictor(root), Anew()
    waiting._anew = anew  # type: ignore[assignment]
    return waiting, anew


def asked(waiting: StandbyPredictor, bundle: Path) -> list[Answer]:
    with waiting.answers(bundle, rows()) as answers:
        return answers()


def test_a_bundle_without_code_is_proven_by_the_process_that_waited(tmp_path: Path) -> None:
    bundle = sealed(tmp_path)
    waiting, anew = predictor(tmp_path)
    answers = asked(waiting, bundle)
    assert answers == InProcess().answered(bundle, rows())
    assert answers[-1].refusal
    assert anew.asked == 0
    # It has waited for one question; the next one is of a new process.
    assert asked(waiting, bundle) == answers
    assert anew.asked == 1


@pytest.mark.parametrize("form", ["onnx", "transformers"])
def test_the_process_may_be_told_what_to_expect(form: ModelFormat, tmp_path: Path) -> None:
    bundle = sealed(tmp_path)
    waiting, anew = predictor(tmp_path)
    waiting.expect(form)
    assert asked(waiting, bundle) == InProcess().answered(bundle, rows())
    assert anew.asked == 0
    waiting.expect(form)


def test_a_bundle_with_a_hook_is_proven_by_a_new_process(tmp_path: Path) -> None:
    bundle = sealed(tmp_path, CODE + HOOK, preprocess="preprocess")
    assert has_code(bundle)
    waiting, anew = predictor(tmp_path)
    assert len(asked(waiting, bundle)) == len(rows())
    assert anew.asked == 1


def test_a_bundle_with_files_of_the_project_is_proven_by_a_new_process(tmp_path: Path) -> None:
    bundle = sealed(tmp_path)
    assert not has_code(bundle)
    (bundle / bundles.CODE).mkdir()
    assert has_code(bundle)


def test_what_the_process_refuses_is_told_by_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = sealed(tmp_path)
    monkeypatch.setattr(standby, "has_code", lambda _: False)
    waiting, anew = predictor(tmp_path)
    (bundle / bundles.read(bundle).model.path).write_bytes(b"another")
    with pytest.raises(IntegrityError):
        asked(waiting, bundle)
    assert anew.asked == 1


def test_a_process_that_crashes_is_followed_by_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = sealed(tmp_path)
    monkeypatch.setattr(standby, "_proven", lambda *_: os._exit(3))
    waiting, anew = predictor(tmp_path)
    assert asked(waiting, bundle) == InProcess().answered(bundle, rows())
    assert anew.asked == 1


def test_the_process_is_no_child_of_the_training(tmp_path: Path) -> None:
    """The user's code may wait for all of its own."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        StandbyPredictor(tmp_path)
        try:
            os.wait()
        except ChildProcessError:
            os.write(writer, b"none")
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 10) == b"none"
    os.wait()
