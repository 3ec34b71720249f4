"""What probes find, what they may not find, and what they cost."""

import faulthandler
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from mlship.config.data import DataConfig, ReadConfig
from mlship.config.project import ModelConfig
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Field, Head, Model, Row
from mlship.domain.prediction import Answer
from mlship.errors import ProjectError
from mlship.runtime.formats import Computation
from mlship.training import train
from mlship.training.data import read
from mlship.training.fit import Prepared
from mlship.training.forms import conversion, convert
from mlship.training.forms.onnxfile import NotConvertedError
from mlship.training.original import examine
from mlship.training.proof import boundaries, probes, replies
from mlship.training.proof.answers import (
    MARGIN,
    Answers,
    Outputs,
    UnansweredError,
    ask,
    differing,
    margins_of,
)
from mlship.training.proof.probes import Probes
from mlship.training.proof.trial import Trial
from tests.harness.projects import InProcess, config, flowers, project, request

_TRAIN = """
import numpy as np
from sklearn.linear_model import LinearRegression, PoissonRegressor, SGDClassifier, SGDOneClassSVM
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def train(data, params):
    numbers, target = data[["length", "width", "leaves"]], data["{target}"]
    return make_pipeline(StandardScaler(), {model}).fit(numbers, target)
"""


def _sealed(root: Path, model: str, target: str) -> bundles.Bundle:
    code = _TRAIN.format(model=model, target=target)
    module = project(root, code, flowers())
    train.train(request(root, config(target=target, module=module)), InProcess())
    return bundles.read(root / "out" / "bundle")


@pytest.mark.fits
def test_label_that_equal_probabilities_do_not_tell_is_the_models(tmp_path: Path) -> None:
    # This loss gives many rows a probability of 0 or 1 for several classes.
    model = "SGDClassifier(loss='modified_huber', random_state=0)"
    assert _sealed(tmp_path, model, "species").model.format == "skops"


@pytest.mark.fits
def test_number_between_one_that_is_answered_and_one_that_overflows_has_no_limit(
    tmp_path: Path,
) -> None:
    fields = _sealed(tmp_path, "PoissonRegressor()", "price").schema.inputs
    assert all(field.limit is None or field.limit > 2**53 for field in fields)


HEADS = (Head(name="y", classes=(-1, 1)),)


def _answers(labels: list[Any], margins: list[float]) -> Answers:
    return Answers(Outputs(labels=np.array(labels), margins=np.array(margins)))


def test_label_may_differ_where_the_model_is_not_sure_but_must_be_a_class() -> None:
    wanted = _answers([1, 1, 1], [0.0, 0.0, 1.0])
    found = _answers([-1, 0, -1], [0.0, 0.0, 0.0])
    different = differing("classification", HEADS, wanted, found, np.arange(3))
    assert list(different) == [1, 2]


def test_only_rows_that_were_asked_are_compared() -> None:
    wanted, found = _answers([1, 1], [1.0, 1.0]), _answers([1, -1], [1.0, 1.0])
    assert not differing("classification", HEADS, wanted, found, np.array([0]))
    assert differing("classification", HEADS, wanted, found, np.array([1]))


def test_form_without_probabilities_differs_whichever_rows_are_asked() -> None:
    labels = np.array([1, 1])
    wanted = Answers(Outputs(labels=labels, probabilities=np.array([[0.1, 0.9]] * 2)))
    found = Answers(Outputs(labels=labels))
    assert list(differing("classification", HEADS, wanted, found, np.array([1]))) == [1]


def test_form_that_refuses_every_row_costs_few_predictions() -> None:
    asked = 0

    def refuse(rows: list[Row]) -> Outputs:
        nonlocal asked
        asked += 1
        message = "not supported"
        raise ValueError(message)

    rows: list[Row] = [{"x": float(number)} for number in range(2_000)]
    with pytest.raises(UnansweredError, match="not supported") as raised:
        ask(refuse, rows, must_answer=True)
    assert raised.value.row == 0
    assert asked < 20


def test_many_rows_that_lack_a_value_are_refused_in_few_predictions() -> None:
    asked = 0

    def predict(frame: pd.DataFrame) -> Outputs:
        nonlocal asked
        asked += 1
        if frame.x.isna().any() or (frame.y == 500).any():
            message = "cannot predict it"
            raise ValueError(message)
        return Outputs(labels=frame.y.to_numpy())

    numbers = np.arange(2_000.0)
    frame = pd.DataFrame({"x": np.where(numbers % 3 == 1, np.nan, 0.0), "y": numbers})
    answers = ask(predict, frame)
    wanted = [row for row in range(2_000) if row % 3 == 1 or row == 500]
    assert list(answers.refusals) == wanted
    assert answers.outputs.labels[answers.accepted].tolist() == numbers[answers.accepted].tolist()
    assert asked < 1.5 * len(wanted), "a prediction for each refusal, and few to divide the rows"


def test_rows_to_blame_are_found_among_those_that_are_asked() -> None:
    def predict(frame: pd.DataFrame) -> Outputs:
        if (frame.x > 7).any():
            message = "too large"
            raise ValueError(message)
        return Outputs(labels=frame.x.to_numpy() * 2)

    frame = pd.DataFrame({"x": np.arange(10.0)})
    answers = ask(predict, frame, np.array([1, 3, 9]))
    assert list(answers.refusals) == [9]
    assert answers.outputs.labels[[1, 3]].tolist() == [2.0, 6.0]


def test_words_of_a_vocabulary_are_tried_with_other_blanks_letters_and_cases() -> None:
    frame = pd.DataFrame({"text": ["good room", "bad food"] * 5})
    field = Field(name="text", kind="text", dtype="object")
    made = probes.make(frame, frame, (field,), {"text": ["bad food", "good room"]}, ())
    texts = made.frame.text[made.rows("unseen text", "text")].tolist()
    tried = [text for text in texts if any(word in text.lower() for word in ("good", "food"))]
    assert any("  " in text for text in tried)
    assert any("\n" in text for text in tried)
    assert any(not text.isascii() for text in tried)
    assert any(text != text.lower() for text in tried)


def test_booster_without_trees_has_boundaries_all_the_same() -> None:
    class Linear:
        def get_booster(self) -> Any:
            message = "not defined for this kind of booster"
            raise ValueError(message)

    frame = pd.DataFrame({"x": np.arange(20.0)})
    field = Field(name="x", kind="number", dtype="float64")
    made = boundaries.make(
        lambda rows: rows.x.to_numpy() > 7.5, Linear(), frame, (field,), is_exact=False
    )
    assert made is not None
    assert {True, False} == {value > 7.5 for value in made.frame.x}


@pytest.mark.parametrize("kind", ["float64", "int64"])
def test_neighbours_around_each_jump_are_found_in_few_predictions(
    kind: Literal["float64", "int64"],
) -> None:
    asked = 0

    def labels_of(rows: pd.DataFrame) -> Any:
        nonlocal asked
        asked += 1
        return np.searchsorted([-700.3, 12.9, 13.1, 512.25], rows.x.to_numpy())

    values = np.random.default_rng(3).integers(-1_000, 1_000, 200)
    frame = pd.DataFrame({"x": values.astype(kind)})
    field = Field(name="x", kind="number" if kind == "float64" else "integer", dtype=kind)
    made = boundaries.make(labels_of, None, frame, (field,), is_exact=False)
    assert made is not None
    jumps = pd.DataFrame({"x": made.frame.x, "jump": made.jumps}).groupby("jump")
    assert len(jumps) > 20
    for _, rows in jumps:
        low, high = rows.x.iloc[:2]
        assert len(set(labels_of(pd.DataFrame({"x": [low, high]})))) == 2
        assert abs(high - low) <= (1 if kind == "int64" else 2 * np.spacing(max(abs(rows.x))))
    assert asked - len(jumps) < 25, "the two numbers of a jump are 53 halvings apart"


@pytest.mark.fits
def test_nullable_whole_numbers_with_gaps_are_probed(tmp_path: Path) -> None:
    code = _TRAIN.format(model="LinearRegression()", target="price")
    code = code.replace("make_pipeline(", "make_pipeline(SimpleImputer(), ")
    frame = flowers()
    frame.loc[::7, "leaves"] = np.nan
    settings = config(target="price", module=project(tmp_path, code, frame))
    data = msgspec.structs.replace(settings.data, read=ReadConfig(dtype={"leaves": "Int64"}))
    train.train(request(tmp_path, msgspec.structs.replace(settings, data=data)), InProcess())
    fields = bundles.read(tmp_path / "out" / "bundle").schema.inputs
    leaves = next(field for field in fields if field.name == "leaves")
    assert (leaves.dtype, leaves.nullable) == ("Int64", True)


@pytest.mark.fits
def test_detector_has_two_labels_at_its_threshold_too(tmp_path: Path) -> None:
    code = _TRAIN.format(model="SGDOneClassSVM(random_state=0)", target="odd")
    frame = flowers()
    frame["odd"] = np.where(frame.leaves > 7, -1, 1)
    module = project(tmp_path, code.replace("target)", "None)"), frame)
    train.train(request(tmp_path, config(target="odd", module=module)), InProcess())
    # The ONNX form of a detector has the label 0 as well.
    assert bundles.read(tmp_path / "out" / "bundle").model.format == "skops"


def test_margin_of_a_score_is_in_units_of_the_usual_score(tmp_path: Path) -> None:
    class Scorer(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.array([0, 1])

        def decision_function(self, rows: Any) -> Any:
            return np.asarray(rows)[:, 0] * 1e6

        def predict(self, rows: Any) -> Any:
            return (self.decision_function(rows) > 0).astype(int)

    frame = pd.DataFrame({"x": [-1.0, 1.0, 2.0, 1e-7], "odd": [0, 1, 1, 1]})
    frame.to_csv(tmp_path / "data.csv", index=False)
    data = read(tmp_path, DataConfig(train="data.csv", test="data.csv", target="odd"))
    prepared = Prepared(train=data.train, test=data.test, columns=data.fields)
    model = ModelConfig(train="pipeline:train")
    original = examine(Scorer(), model, data, prepared)
    assert (margins_of(original.ask_held_out().outputs) < MARGIN).tolist() == [
        False,
        False,
        False,
        True,
    ]


def test_reply_beside_a_jump_is_not_compared_again() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    rows = Probes(frame, ("boundary", "mixture"), ("x", ""), jumps=(1, 0))
    tried = Trial(
        original=None,  # type: ignore[arg-type]  # the replies do not ask it
        prepare=None,
        fields=(Field(name="x", kind="number"),),
        probes=rows,
        rows=[{"x": 1.0}, {"x": 2.0}],
        answers=Answers(Outputs(labels=np.array([5, 6]))),
        of_held_out=Answers(Outputs(labels=np.array([5]))),
    )
    made = replies.of_probes(
        tried,
        [0, 1],
        lambda outputs: [{"y": label} for label in outputs.labels.tolist()],
        [{}, {}],
    )
    assert [reply.is_sure for reply in made] == [False, True]


def test_whole_numbers_around_the_largest_of_a_word_are_tried() -> None:
    frame = pd.DataFrame({"n": np.arange(50)})
    rows = probes.make(frame, frame, (Field(name="n", kind="integer"),), {}, [])
    tried = set(rows.frame["n"].tolist())
    assert {2**31 - 1, 2**31, 3 * 10**9, 2**32 - 1, -(2**31)} <= tried


@pytest.mark.parametrize(("answer", "is_same"), [(100.009, True), (100.2, False)])
def test_number_may_be_as_far_off_as_in_the_trial_of_its_form(answer: float, is_same: bool) -> None:
    labels = np.linspace(0.0, 1000.0, 101)
    original = SimpleNamespace(task="regression", heads=(Head(name="y"),))
    slack = replies.slacks(original, Answers(Outputs(labels=labels)))  # type: ignore[arg-type]
    reply = replies.Reply(name="a row", row={}, outputs={"y": 100.0}, slack=slack[10])
    found = [Answer(outputs={"y": answer})]
    if is_same:
        replies.check([reply], found)
    else:
        with pytest.raises(ProjectError, match=r"the bundle returns y = 100\.2"):
            replies.check([reply], found)


@pytest.mark.slow
def test_form_that_ends_its_process_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = convert.prove

    def prove(trial: Trial, model: Model, computation: Computation) -> dict[int, str]:
        if model.format == "onnx":
            abort()  # as onnxruntime does when it looks for the neighbours of a huge number
        return own(trial, model, computation)

    monkeypatch.setattr(convert, "prove", prove)
    code = _TRAIN.format(model="LinearRegression()", target="price")
    module = project(tmp_path, code, flowers())
    trained = train.train(request(tmp_path, config(target="price", module=module)), InProcess())
    assert trained.format == "skops"
    assert "exit code -6" in trained.notes[0]


def abort() -> None:
    faulthandler.disable()  # pytest's, which would print a trace
    os.abort()


def test_what_a_child_raises_or_ends_with_is_told() -> None:
    assert conversion.in_child(lambda: {1: "one"}, "the trial") == {1: "one"}
    with pytest.raises(NotConvertedError, match="the trial ended its process with exit code -6"):
        conversion.in_child(abort, "the trial")
    with pytest.raises(NotConvertedError, match="division"):
        conversion.in_child(lambda: 1 // 0, "the trial")


def test_a_child_that_nobody_waits_for_is_ended() -> None:
    with conversion.Child(lambda: time.sleep(60), "a conversion") as child:
        process = child._process
    assert process is not None
    with pytest.raises(ChildProcessError):
        os.waitpid(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def _made(count: int) -> Probes:
    random = np.random.default_rng(0)
    names = [f"c{number}" for number in range(count)]
    frame = pd.DataFrame(random.normal(size=(60, count)), columns=names)
    frame["when"] = pd.Series(["2025-01-01", "9999-12-31"] * 30, dtype="datetime64[us]")
    fields = tuple(Field(name=name, kind="number", dtype="float64") for name in names)
    fields += (Field(name="when", kind="text", dtype="datetime64[us]"),)
    return probes.make(frame.head(40), frame.tail(20), fields, {}, ())


@pytest.mark.slow
def test_very_many_columns_are_tried_evenly_and_not_each_in_full() -> None:
    few, many = _made(4), _made(400)
    in_full = len(few.rows("number", "c1")) + len(few.rows("extreme", "c1"))
    tried = sum(bool(column) for column in many.columns)
    assert probes.ROWS <= tried < in_full * 100
    assert {f"c{number}" for number in range(400)} <= set(many.columns)


def test_what_is_tried_stands_in_its_column_and_nowhere_else() -> None:
    made = _made(4)
    rows = made.rows("extreme", "c2")
    sizes = made.frame["c2"].iloc[rows].abs().tolist()
    assert sizes == sorted(sizes)
    assert sizes[-1] == 1e308
    assert made.frame[["c0", "c1", "c3"]].iloc[rows].nunique().tolist() == [1, 1, 1]


def test_the_last_date_that_a_type_and_a_request_hold_is_no_obstacle() -> None:
    made = _made(1)
    years = made.frame["when"].iloc[made.rows("date", "when")].dt.year
    assert (years.min(), years.max()) == (1969, 9999)
    assert str(made.frame["when"].dtype) == "datetime64[us]"
