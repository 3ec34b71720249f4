"""What kind of problem a repository solves: what its code fits says so, or else its data."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from mlship.templates.scripts import Script
from mlship.templates.syntax import last_name

Task = Literal["classification", "regression", "clustering", "anomaly", ""]
"""Empty if it is not known."""

_ESTIMATORS: Final[tuple[tuple[Task, re.Pattern[str]], ...]] = (
    (
        "regression",
        re.compile(
            r"\w+Regressor|(Linear|PLS|Isotonic|ARD)Regression|((Bayesian|Kernel)?Ridge|(Multi|LassoLars|"
            r"MultiTask)?Lasso|(MultiTask)?ElasticNet|(Lasso)?Lars|OrthogonalMatchingPursuit)(CV|IC)?|"
            r"(Linear|Nu)?SVR|CCA|PLSCanonical"
        ),
    ),
    (
        "classification",
        re.compile(
            r"\w+Classifier(CV)?|LogisticRegression(CV)?|(Linear|Nu)?SVC|\w+NB|Perceptron|"
            r"(Linear|Quadratic)DiscriminantAnalysis|NearestCentroid|Label(Propagation|Spreading)"
        ),
    ),
    (
        "clustering",
        re.compile(r"\w*KMeans|(Bayesian)?GaussianMixture|Birch|MeanShift|AffinityPropagation"),
    ),
    ("anomaly", re.compile("IsolationForest|OneClassSVM|EllipticEnvelope")),
)
_OBJECTIVES: Final[tuple[tuple[Task, re.Pattern[str]], ...]] = (
    (
        "regression",
        re.compile(
            r"(reg|count|survival):.*|regression\w*|rmse|mae|mape|mse|r2|poisson|quantile.*|huber.*|"
            r"tweedie.*|gamma|fair|squared_error",
            re.IGNORECASE,
        ),
    ),
    ("classification", re.compile(r"(binary|multi).*|logloss|crossentropy", re.IGNORECASE)),
)
_OBJECTIVE_KEYS: Final = ("objective", "loss_function", "application")
_FEWEST_NUMBERS: Final = 20


def task_of_code(script: Script) -> Task:
    """Return what the estimators in a script and in what it imports are for.

    Empty if it names none, or estimators of several tasks.
    """
    nodes = [node for each in (script, *script.imported) for node in ast.walk(each.tree)]
    found = {_task_of(text, _ESTIMATORS) for node in nodes if (text := _name(node))}
    found |= {_task_of(text, _OBJECTIVES) for node in nodes for text in _objectives(node)}
    # Clusters and scores of anomalies may be features of a model that predicts.
    predicts = found & {"regression", "classification"}
    known = list(predicts or found - {""})
    return known[0] if len(known) == 1 else ""


def task_of_values(values: Sequence[str]) -> Task:
    """Return what predicts such values: of texts, classification; of many numbers, regression."""
    known = [value for value in (text.strip() for text in values) if value]
    if not known:
        return ""
    try:
        numbers = [float(value) for value in known]
    except ValueError:
        return "classification"
    if any(number != int(number) for number in numbers if number - number == 0):
        return "regression"
    return "regression" if len(set(numbers)) > _FEWEST_NUMBERS else "classification"


def _task_of(text: str, patterns: Iterable[tuple[Task, re.Pattern[str]]]) -> Task:
    return next((task for task, pattern in patterns if pattern.fullmatch(text)), "")


def _name(node: ast.AST) -> str:
    return last_name(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _objectives(node: ast.AST) -> Iterator[str]:
    """Yield what boosters are told to minimise, in a dictionary or by an argument."""
    pairs: list[tuple[object, ast.expr]] = []
    if isinstance(node, ast.keyword):
        pairs = [(node.arg, node.value)]
    elif isinstance(node, ast.Dict):
        keys = (getattr(key, "value", None) for key in node.keys)
        pairs = list(zip(keys, node.values, strict=True))
    for key, value in pairs:
        if key in _OBJECTIVE_KEYS and isinstance(value, ast.Constant):
            yield str(value.value)
