"""Scores of predictions by a function of the project."""

import itertools
from pathlib import Path

import pytest

from mlship.adapters.checkout.children import RateRequest
from mlship.domain.bundle import Row, Value
from mlship.errors import ProjectError
from mlship.training.scoring.rate import rate

_numbers = itertools.count()
OUTPUTS: tuple[Row, ...] = tuple({"days": float(n), "sure": n % 2 == 0} for n in range(7))
TRUTH: tuple[Value, ...] = (0.0, 3.0, 2.0, 1.0, 4.0, 5.0, 16.0)


def rated(root: Path, body: str) -> list[float]:
    module = f"costs_{next(_numbers)}"
    text = "import pandas as pd\n\ndef cost(truth, outputs):\n    late = truth - outputs['days']\n"
    (root / f"{module}.py").write_text(f"{text}    {body}\n")
    return rate(
        RateRequest(
            root=root,
            function=f"{module}:cost",
            target="days",
            predictions=tuple(f"6f1c.{n}" for n in range(len(TRUTH))),
            outputs=OUTPUTS,
            truth=TRUTH,
        )
    )


@pytest.mark.parametrize(
    "body",
    [
        "return late.clip(lower=0)",
        "return late.clip(lower=0).to_numpy()",
        "return [max(0, x) for x in late]",
        "outputs['late'] = late.clip(lower=0); return outputs.late",
    ],
)
def test_each_prediction_gets_a_number_in_its_order(tmp_path: Path, body: str) -> None:
    assert rated(tmp_path, body) == [0, 2, 0, 0, 0, 0, 10]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "assert (late < 9).all(); return late",
            r"^prediction 6f1c\.6 \(days 6.0, outcome 16.0\): ",
        ),
        ("assert (late > -2).all(); return late", r"6f1c\.3 .*costs_\d+\.py:5: AssertionError"),
        ("return [1 / x if x else 0 for x in late + 2]", None),
        ("return [1 / x for x in late + 2]", r"^prediction 6f1c\.3 .*ZeroDivisionError"),
        (
            "return late.where(late < 9)",
            r"returned nan for prediction 6f1c\.6: days 6.0, outcome 16",
        ),
        ("return late.mean()", r"^costs_\d+:cost returned one number for 7 rows"),
        (
            "return late.mask(late > 9, 'much')",
            r"^prediction 6f1c\.6 .*returned Series, which is no numbers",
        ),
        ("return late * 1j", "returned Series, which is no numbers: they are complex"),
        ("return late.to_frame()", r"returned numbers of shape \(7, 1\) for 7 rows"),
        ("import sys; sys.exit(3)", "ended the program"),
        ("assert len(late) < 7; return late", r"^costs_\d+:cost failed at .*AssertionError"),
    ],
)
def test_a_function_that_fails_names_the_first_prediction_that_it_fails_on(
    tmp_path: Path, body: str, said: str | None
) -> None:
    if said is None:
        assert len(rated(tmp_path, body)) == len(TRUTH)
        return
    with pytest.raises(ProjectError, match=said) as error:
        rated(tmp_path, body)
    assert error.value.hint
