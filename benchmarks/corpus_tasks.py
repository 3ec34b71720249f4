"""Pairs of `corpus.py` with several targets, quantiles, clusters and anomalies."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from corpus_pairs import HEADER, HELD_OUT, OWN, ROWS, Pair
from sklearn.base import is_regressor

MORE = """
from sklearn.cluster import *
from sklearn.mixture import *
from sklearn.multioutput import *
"""
TRAIN = """
def train(data, params):
    targets = [name for name in data.columns if name.startswith("target")]
    features, target = data.drop(columns=targets), data[targets]
    return {model}.fit({given})
"""
QUANTILES = """
class Quantiles(RegressorMixin, BaseEstimator):
    def __init__(self, kind):
        self.kind = kind

    def fit(self, rows, target):
        makes = {
            "boosting": lambda q: GradientBoostingRegressor(
                loss="quantile", alpha=q, n_estimators=15
            ),
            "histogram": lambda q: HistGradientBoostingRegressor(
                loss="quantile", quantile=q, max_iter=15
            ),
            "line": lambda q: QuantileRegressor(quantile=q, alpha=0.01),
        }
        self.models_ = [makes[self.kind](q).fit(rows, target) for q in (0.1, 0.5, 0.9)]
        self.feature_names_in_, self.n_features_in_ = np.array(list(rows.columns)), rows.shape[1]
        return self

    def predict(self, rows):
        return np.column_stack([model.predict(rows) for model in self.models_])
"""


def _measures(seed: int) -> pd.DataFrame:
    random, rows = np.random.default_rng(seed), ROWS + HELD_OUT
    return pd.DataFrame(
        {
            "height": np.round(random.normal(170, 12, rows), 2),
            "share": random.random(rows),
            "rooms": random.integers(1, 9, rows),
        }
    )


def _labels() -> pd.DataFrame:
    frame = _measures(21)
    return frame.assign(
        target_a=(frame.height > 170).astype(int),
        target_b=(frame.share * 3 + frame.rooms > 6).astype(int),
        target_c=(frame.share > 0.8).astype(int),
    )


def _booleans() -> pd.DataFrame:
    frame = _labels().drop(columns="target_c")
    return frame.astype({"target_a": bool, "target_b": bool})


def _classes() -> pd.DataFrame:
    frame = _measures(22)
    sizes = np.array(["short", "usual", "tall"])[np.digitize(frame.height, [164, 176])]
    return frame.assign(target_size=sizes, target_home=np.where(frame.rooms > 4, "house", "flat"))


def _numbers() -> pd.DataFrame:
    frame = _measures(23)
    return frame.assign(
        target_price=np.round(1000 * frame.rooms + 50 * frame.height, 1),
        target_risk=np.round(np.sin(frame.height / 9) + frame.share, 4),
    )


def _gaps() -> pd.DataFrame:
    frame = _numbers()
    return frame.assign(share=frame["share"].mask(np.arange(len(frame)) % 8 == 0))


def _cities() -> pd.DataFrame:
    frame = _labels()
    names = np.array(["Berlin", "Lyon", "Oslo"])
    return frame.assign(city=names[np.arange(len(frame)) * 7 % 3])


def _delays() -> pd.DataFrame:
    frame = _measures(24)
    noise = np.random.default_rng(25).normal(size=len(frame)) * (0.5 + frame["share"])
    return frame.assign(target=np.round(frame.height / 10 + frame.rooms + noise, 3))


def _points() -> pd.DataFrame:
    frame = _measures(26)
    kind = np.arange(len(frame)) % 3
    return frame.assign(height=frame.height + 60 * kind, share=frame["share"] + 2 * (kind == 1))


DATA: Mapping[str, Callable[[], pd.DataFrame]] = {
    "several labels": _labels,
    "several booleans": _booleans,
    "several classes": _classes,
    "several numbers": _numbers,
    "several numbers with gaps": _gaps,
    "several labels and a text": _cities,
    "delays": _delays,
    "points": _points,
}

_LABELS = {
    "RandomForestClassifier": "RandomForestClassifier(12, random_state=0)",
    "ExtraTreesClassifier": "ExtraTreesClassifier(12, random_state=0)",
    "DecisionTreeClassifier": "DecisionTreeClassifier(max_depth=5)",
    "KNeighborsClassifier": "KNeighborsClassifier(5)",
    "MLPClassifier": (
        "make_pipeline(StandardScaler(), MLPClassifier((6,), max_iter=200, random_state=0))"
    ),
    "MultiOutput LogisticRegression": (
        "MultiOutputClassifier(make_pipeline(StandardScaler(), LogisticRegression()))"
    ),
    "MultiOutput HistGradientBoosting": (
        "MultiOutputClassifier(HistGradientBoostingClassifier(max_iter=8))"
    ),
    "MultiOutput LGBM": (
        "MultiOutputClassifier(LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1))"
    ),
    "MultiOutput LinearSVC": "MultiOutputClassifier(make_pipeline(StandardScaler(), LinearSVC()))",
    "DummyClassifier": "DummyClassifier(strategy='prior')",
}
_ONLY_LABELS = {
    "OneVsRest LogisticRegression": (
        "make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression()))"
    ),
    "ClassifierChain": "make_pipeline(StandardScaler(), ClassifierChain(LogisticRegression()))",
    "RidgeClassifier": "RidgeClassifier()",
    "XGBClassifier": "XGBClassifier(n_estimators=8, n_jobs=1)",
}
_BEYOND_SCIKIT_LEARN = (("several booleans", "XGBClassifier"), ("several classes", "MLPClassifier"))
"""Models that cannot be fitted to such targets."""
_NUMBERS = {
    "RandomForestRegressor": "RandomForestRegressor(12, random_state=0)",
    "LinearRegression": "LinearRegression()",
    "Ridge scaled": "make_pipeline(StandardScaler(), Ridge())",
    "MultiTaskLasso": "MultiTaskLasso()",
    "PLSRegression": "PLSRegression()",
    "KNeighborsRegressor": "KNeighborsRegressor()",
    "MLPRegressor": (
        "make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(6,), max_iter=200, "
        "random_state=0))"
    ),
    "MultiOutput GradientBoosting": (
        "MultiOutputRegressor(GradientBoostingRegressor(n_estimators=10))"
    ),
    "MultiOutput HistGradientBoosting": (
        "MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=8))"
    ),
    "MultiOutput LGBM": (
        "MultiOutputRegressor(LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1))"
    ),
    "RegressorChain": "RegressorChain(Ridge())",
    "XGBRegressor": "XGBRegressor(n_estimators=8, n_jobs=1)",
    "XGBRegressor of whole trees": (
        "XGBRegressor(n_estimators=8, n_jobs=1, multi_strategy='multi_output_tree')"
    ),
}
_CLUSTERS = {
    "KMeans": "KMeans(3, n_init=2, random_state=0)",
    "KMeans scaled": "make_pipeline(StandardScaler(), KMeans(3, n_init=2, random_state=0))",
    "MiniBatchKMeans": "MiniBatchKMeans(3, n_init=2, random_state=0)",
    "BisectingKMeans": "BisectingKMeans(3, random_state=0)",
    "MeanShift": "MeanShift()",
    "Birch": "Birch(n_clusters=3)",
    "GaussianMixture": "GaussianMixture(3, random_state=0)",
    "BayesianGaussianMixture": "BayesianGaussianMixture(n_components=3, random_state=0)",
    "DBSCAN": "DBSCAN()",
    "AgglomerativeClustering": "AgglomerativeClustering(3)",
}
_ANOMALIES = {
    "IsolationForest": "IsolationForest(n_estimators=20, random_state=0)",
    "OneClassSVM": "make_pipeline(StandardScaler(), OneClassSVM(nu=0.1))",
    "EllipticEnvelope": "EllipticEnvelope(random_state=0)",
    "LocalOutlierFactor": "LocalOutlierFactor(novelty=True)",
    "LocalOutlierFactor of its own rows": "LocalOutlierFactor()",
}
_TEXTS = (
    "make_column_transformer((OneHotEncoder(handle_unknown='ignore'), ['city']), "
    "remainder='passthrough')"
)


def pairs() -> list[Pair]:
    """Return the pairs; their names begin with the kind of the task."""
    return [*_of_labels(), *_of_numbers(), *_of_quantiles(), *_of_groups()]


def _of_labels() -> Iterator[Pair]:
    for data in ("several labels", "several booleans", "several classes"):
        models = _LABELS if data == "several classes" else _LABELS | _ONLY_LABELS
        for name, model in models.items():
            if (data, name) not in _BEYOND_SCIKIT_LEARN:
                yield _pair(f"{data} / {name}", data, model)
    for name in ("RandomForestClassifier", "MultiOutput LogisticRegression", "ClassifierChain"):
        model = f"make_pipeline({_TEXTS}, {(_LABELS | _ONLY_LABELS)[name]})"
        yield _pair(f"several labels / {name} after one-hot", "several labels and a text", model)


def _of_numbers() -> Iterator[Pair]:
    for name, model in _NUMBERS.items():
        yield _pair(f"several numbers / {name}", "several numbers", model)
    for name in ("RandomForestRegressor", "XGBRegressor", "MultiOutput HistGradientBoosting"):
        data = "several numbers with gaps"
        yield _pair(f"several numbers / {name} with gaps", data, _NUMBERS[name])


def _of_quantiles() -> Iterator[Pair]:
    config = {"quantiles": [0.1, 0.5, 0.9]}
    for kind in ("boosting", "histogram", "line"):
        yield _pair(f"quantiles / {kind}", "delays", f"Quantiles('{kind}')", config, QUANTILES)
    booster = "XGBRegressor(objective='reg:quantileerror', quantile_alpha=[0.1, 0.5, 0.9], "
    booster += "n_estimators=8, n_jobs=1)"
    yield _pair("quantiles / XGBRegressor", "delays", booster, config)


def _of_groups() -> Iterator[Pair]:
    for name, model in _CLUSTERS.items():
        yield _pair(f"clustering / {name}", "points", model, {"task": "clustering"})
    for name, model in _ANOMALIES.items():
        yield _pair(f"anomaly / {name}", "points", model, {"task": "anomaly"})


def _pair(
    name: str, data: str, model: str, config: Mapping[str, Any] | None = None, extra: str = ""
) -> Pair:
    columns = [str(column) for column in DATA[data]()]
    targets = tuple(column for column in columns if column.startswith("target"))
    given = "features, target" if targets else "features"
    if len(targets) == 1:
        given = "features, target['target']"
    source = HEADER + MORE + OWN + extra + TRAIN.format(model=model, given=given)
    return Pair(name=name, data=data, source=source, config=config or {}, targets=targets)


def answer(pair: Pair, model: Any, data: Any) -> tuple[Any, Any, Any]:
    """Return labels of shape (n, heads), probabilities beside each other, and margins of rows.

    The last two may be `None`.
    """
    labels = np.asarray(model.predict(data))
    labels = labels.reshape(len(labels), -1)
    if is_of_numbers(pair, model):
        return labels, None, None
    task = pair.config.get("task", "")
    if task == "anomaly":
        scores = np.asarray(model.decision_function(data))
        return labels, scores[:, None], np.abs(scores)
    if not hasattr(model, "predict_proba"):
        if not hasattr(model, "decision_function"):
            return labels, None, None
        scores = np.asarray(model.decision_function(data))
        return labels, None, np.abs(scores.reshape(len(labels), -1)).min(axis=1)
    shares = model.predict_proba(data)
    if task == "clustering":
        return labels, shares, _margin(shares)
    parts = shares if isinstance(shares, list) else [np.stack([1 - p, p], 1) for p in shares.T]
    margins = np.min([_margin(np.asarray(part)) for part in parts], axis=0)
    return labels, np.concatenate(parts, axis=1), margins


def is_of_numbers(pair: Pair, model: Any) -> bool:
    """Tell whether the answers are numbers, not labels."""
    return "quantiles" in pair.config or (bool(pair.targets) and is_regressor(model))


def _margin(shares: Any) -> Any:
    best = np.sort(np.nan_to_num(shares), axis=1)
    return best[:, -1] - best[:, -2] if shares.shape[1] > 1 else np.ones(len(shares))
