"""Metrics that a project names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from mlship.domain.bundle import Bundle, Hooks, Model, Row, Schema, Task, Value
from mlship.errors import ConfigError, ProjectError
from mlship.training.scoring.scorers import Scorers

TRUTH: list[Value] = ["no", "yes", "yes", "no", "no", "yes"]
SHARES = [0.1, 0.9, 0.4, 0.6, 0.2, 0.8]
OUTPUTS: list[Row] = [
    {
        "paid": "yes" if share > 0.5 else "no",
        "probability_no": 1 - share,
        "probability_yes": share,
    }
    for share in SHARES
]


def bundle(task: Task = "classification") -> Bundle:
    classes = ("no", "yes") if task == "classification" else ()
    model = Model(format="onnx", path="m", layout="matrix", columns=(), classes=classes)
    return Bundle(
        name="loans",
        task=task,
        target="paid",
        schema=Schema(inputs=(), outputs=()),
        model=model,
        hooks=Hooks(),
        metrics={},
        requirements=(),
        python="3.11",
    )


def measured(what: str, task: Task = "classification", **rows: Any) -> float:
    scorers = Scorers(root=Path(), named={"m": what})
    truth, outputs = rows.get("truth", TRUTH), rows.get("outputs", OUTPUTS)
    return scorers.measure(bundle(task), {"paid": truth}, outputs)["m"]


def test_scorers_of_scikit_learn_by_their_names() -> None:
    codes = [value == "yes" for value in TRUTH]
    assert measured("roc_auc") == pytest.approx(sklearn.metrics.roc_auc_score(codes, SHARES))
    assert measured("balanced_accuracy") == pytest.approx(2 / 3)
    assert measured("neg_log_loss") == pytest.approx(-sklearn.metrics.log_loss(codes, SHARES))
    assert measured("matthews_corrcoef") == pytest.approx(1 / 3)


def test_a_metric_of_one_class() -> None:
    assert measured("recall[yes]") == pytest.approx(2 / 3)
    assert measured("precision[no]") == pytest.approx(2 / 3)
    assert np.isnan(measured("recall[yes]", truth=["no"] * 6))


def test_metrics_of_numbers() -> None:
    truth, outputs = [1.0, 2.0, 4.0], [{"paid": 1.0}, {"paid": 3.0}, {"paid": 4.0}]
    ways = {"neg_mean_absolute_percentage_error": -1 / 6, "mean_pinball_loss": 1 / 6, "r2": 0.7857}
    for what, value in ways.items():
        found = measured(what, "regression", truth=truth, outputs=outputs)
        assert found == pytest.approx(value, abs=1e-4)


def test_a_function_of_the_projects_own(tmp_path: Path) -> None:
    (tmp_path / "costs_of_loans.py").write_text(
        "def cost(truth, outputs):\n"
        "    return float(((truth == 'yes') & (outputs['paid'] == 'no')).sum() * 100)\n"
        "def text(truth, outputs):\n    return 'high'\n"
        "def broken(truth, outputs):\n    return outputs['price'].sum()\n"
    )
    scorers = Scorers(root=tmp_path, named={"cost": "costs_of_loans:cost"})
    assert scorers.measure(bundle(), {"paid": TRUTH}, OUTPUTS) == {"cost": 100.0}
    for function, said in (("text", "returned str"), ("broken", r"costs_of_loans\.py:6: KeyError")):
        scorers = Scorers(tmp_path, {"m": f"costs_of_loans:{function}"})
        with pytest.raises(ProjectError, match=said):
            scorers.measure(bundle(), {"paid": TRUTH}, OUTPUTS)


def test_a_function_of_rows_measures_their_mean_and_a_promotion_needs_it(tmp_path: Path) -> None:
    (tmp_path / "losses_of_loans.py").write_text(
        "def cost(truth, outputs):\n    return 4.0 * (truth != outputs['paid'])\n"
        "def total(truth, outputs):\n    return cost(truth, outputs).sum()\n"
    )

    def found(function: str) -> dict[str, float]:
        name = f"losses_of_loans:{function}"
        scorers = Scorers(tmp_path, {name: name}, promoted=name)
        return scorers.measure(bundle(), {"paid": TRUTH}, OUTPUTS)

    assert found("cost") == {"losses_of_loans:cost": pytest.approx(4 / 3)}
    with pytest.raises(ProjectError, match="total returned float64 for 6 rows"):
        found("total")


@pytest.mark.parametrize(
    ("what", "said", "hint"),
    [
        ("roc_auk", "no scorer roc_auk", "did you mean roc_auc"),
        ("recall[maybe]", "no class maybe", "no, yes"),
        ("get_scorer", "no scorer get_scorer", ""),
    ],
)
def test_a_metric_that_does_not_exist(what: str, said: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        measured(what)
    assert hint in caught.value.hint


def test_a_metric_that_the_outputs_do_not_allow() -> None:
    outputs: list[Row] = [{"paid": row["paid"]} for row in OUTPUTS]
    with pytest.raises(ProjectError, match=r"metrics\.m: roc_auc cannot be computed"):
        measured("roc_auc", outputs=outputs)
