"""The pairs of model and preprocessing of `corpus.py`: small projects on made data."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

ROWS, HELD_OUT = 240, 80

HEADER = """
import warnings

import numpy as np
import pandas as pd
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer
from sklearn.base import *
from sklearn.calibration import *
from sklearn.compose import *
from sklearn.covariance import *
from sklearn.cross_decomposition import *
from sklearn.decomposition import *
from sklearn.discriminant_analysis import *
from sklearn.dummy import *
from sklearn.ensemble import *
from sklearn.feature_extraction.text import *
from sklearn.feature_selection import *
from sklearn.gaussian_process import *
from sklearn.impute import *
from sklearn.isotonic import *
from sklearn.kernel_approximation import *
from sklearn.kernel_ridge import *
from sklearn.linear_model import *
from sklearn.model_selection import *
from sklearn.multiclass import *
from sklearn.naive_bayes import *
from sklearn.neighbors import *
from sklearn.neural_network import *
from sklearn.pipeline import *
from sklearn.preprocessing import *
from sklearn.semi_supervised import *
from sklearn.svm import *
from sklearn.tree import *
from lightgbm import LGBMClassifier, LGBMRegressor
from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier
import lightgbm
import xgboost

warnings.simplefilter("ignore")
"""

TRAIN = """
def train(data, params):
    features, target = data.drop(columns="target"), data["target"]
    return {model}.fit({features}, {target})
"""

OWN = """
def ratios(rows):
    rows = pd.DataFrame(rows)
    return rows.assign(ratio=rows.iloc[:, 0] / (1 + rows.iloc[:, 1].abs()))

class Clip(BaseEstimator, TransformerMixin):
    def fit(self, rows, target=None):
        self.low_, self.high_ = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        return self

    def transform(self, rows):
        return np.clip(np.asarray(rows, dtype="float64"), self.low_, self.high_)
"""


@dataclass(frozen=True)
class Pair:
    """A project: its data, the source of its module, and the section `model` of its mlship.yaml."""

    name: str
    data: str
    source: str
    config: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ("target",)

    @property
    def is_plain(self) -> bool:
        """Whether it is a classification or a regression of one target."""
        return self.targets == ("target",) and "quantiles" not in self.config


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _measures(seed: int = 1) -> pd.DataFrame:
    random, rows = _random(seed), ROWS + HELD_OUT
    return pd.DataFrame(
        {
            "height": np.round(random.normal(170, 12, rows), 2),
            "weight": np.round(random.normal(70, 11, rows), 3),
            "share": random.random(rows),
            "tiny": random.normal(0, 1e-3, rows),
            "income": np.round(random.lognormal(10, 0.6, rows), 1),
        }
    )


def _score(frame: pd.DataFrame) -> Any:
    return (
        (frame.height - 170) / 12
        + np.sin(frame.weight / 9)
        + 2 * frame.share
        - 400 * frame.tiny
        + np.log(frame.income)
        - 10
    )


def _classed(frame: pd.DataFrame, score: Any, labels: list[Any]) -> pd.DataFrame:
    codes = pd.qcut(np.asarray(score, dtype="float64"), len(labels), labels=False)
    return frame.assign(target=np.array(labels, dtype=object)[codes])


def _gapped(frame: pd.DataFrame, names: list[str], seed: int) -> pd.DataFrame:
    random = _random(seed)
    for name in names:
        frame[name] = frame[name].mask(random.random(len(frame)) < 0.12)
    return frame


def _numbers() -> pd.DataFrame:
    frame = _measures()
    return _classed(frame, _score(frame), ["low", "mid", "top"])


def _two() -> pd.DataFrame:
    frame = _measures(2)
    return _classed(frame, _score(frame), ["no", "yes"])


def _coded() -> pd.DataFrame:
    frame = _measures(3)
    return _classed(frame, _score(frame), [0, 1, 2]).astype({"target": "int64"})


def _positive() -> pd.DataFrame:
    frame = _measures(4).abs()
    return _classed(frame, _score(frame), ["low", "mid", "top"])


def _price() -> pd.DataFrame:
    frame = _measures(5)
    return frame.assign(target=np.round(np.exp(_score(frame) / 3), 4))


def _outliers() -> pd.DataFrame:
    frame = _measures(6)
    distance = ((frame - frame.mean()) / frame.std()).abs().max(axis=1)
    return frame.assign(target=np.where(distance > 2.4, -1, 1))


def _whole() -> pd.DataFrame:
    random, rows = _random(7), ROWS + HELD_OUT
    frame = pd.DataFrame(
        {
            "rooms": random.integers(1, 9, rows),
            "year": random.integers(1900, 2024, rows),
            "visits": random.integers(0, 2_000_000, rows),
            "balance": random.integers(-500, 500, rows),
        }
    )
    score = frame.rooms + frame.year / 30 + frame.visits / 1e6 + np.sin(frame.balance / 90)
    return _classed(frame, score, ["a", "b", "c"])


def _booleans() -> pd.DataFrame:
    random, rows = _random(8), ROWS + HELD_OUT
    frame = pd.DataFrame({name: random.random(rows) < 0.5 for name in ("paid", "member", "new")})
    frame["amount"] = np.round(random.gamma(2, 30, rows), 2)
    score = frame.paid * 1.0 + frame.member * 0.5 + frame.amount / 60 + random.normal(0, 0.1, rows)
    return _classed(frame, score, [False, True]).astype({"target": "bool"})


def _gaps() -> pd.DataFrame:
    frame = _measures(9)
    classed = _classed(frame, _score(frame), ["low", "mid", "top"])
    return _gapped(classed, ["height", "share", "income"], 10)


def _gaps_price() -> pd.DataFrame:
    frame = _measures(11)
    return _gapped(frame.assign(target=np.round(_score(frame), 4)), ["height", "tiny"], 12)


def _sentinel() -> pd.DataFrame:
    frame = _gaps()
    return frame.fillna({"height": -999.0, "share": -999.0, "income": -999.0})


def _boolean_gaps() -> pd.DataFrame:
    frame = _booleans()
    frame["paid"] = frame["paid"].astype(object).where(_random(13).random(len(frame)) > 0.1)
    return frame


_CITIES = ["Berlin", "Lyon", "Oslo", "Porto", "Zürich"]
_GRADES = ["poor", "fair", "good"]


def _mixed() -> pd.DataFrame:
    random, frame = _random(14), _measures(14)[["height", "income"]]
    rows = len(frame)
    frame["rooms"] = random.integers(1, 7, rows)
    frame["city"] = random.choice(_CITIES, rows, p=[0.4, 0.3, 0.2, 0.07, 0.03])
    frame["grade"] = random.choice(_GRADES, rows)
    frame["garden"] = random.random(rows) < 0.4
    return _classed(frame, _mixed_score(frame, random), ["cheap", "fair", "dear"])


def _mixed_score(frame: pd.DataFrame, random: np.random.Generator) -> Any:
    return (
        frame.rooms / 3
        + np.log(frame.income)
        + frame.city.map({name: place for place, name in enumerate(_CITIES)}) * 0.4
        + frame.grade.map({name: place for place, name in enumerate(_GRADES)}) * 0.5
        + frame.garden * 0.4
        + random.normal(0, 0.1, len(frame))
    )


def _mixed_price() -> pd.DataFrame:
    frame = _mixed().drop(columns="target")
    return frame.assign(target=np.round(_mixed_score(frame, _random(15)), 4))


def _mixed_gaps() -> pd.DataFrame:
    return _gapped(_mixed(), ["height", "city", "grade"], 16)


def _number_gaps() -> pd.DataFrame:
    return _gapped(_mixed(), ["height", "income"], 17)


def _zips() -> pd.DataFrame:
    random, rows = _random(18), ROWS + HELD_OUT
    frame = pd.DataFrame(
        {"zip": random.choice([10115, 69001, 4001, 150], rows), "size": random.normal(80, 20, rows)}
    )
    return _classed(frame, frame["zip"] / 3e4 + frame["size"] / 20, ["a", "b", "c"])


def _categories() -> pd.DataFrame:
    frame = _mixed()
    order = pd.CategoricalDtype(_GRADES, ordered=True)
    return frame.astype({"city": "category", "grade": order})


def _categories_gaps() -> pd.DataFrame:
    frame = _mixed_gaps()
    return frame.astype({"city": "category", "grade": "category"})


def _dates() -> pd.DataFrame:
    random, rows = _random(19), ROWS + HELD_OUT
    days = pd.Timestamp("2019-01-01") + pd.to_timedelta(random.integers(0, 2000, rows), unit="D")
    frame = pd.DataFrame({"day": days, "amount": np.round(random.gamma(2, 30, rows), 2)})
    frame["day"] += pd.to_timedelta(random.integers(0, 86_400, rows), unit="s")
    score = frame.day.dt.month / 4 + frame.day.dt.dayofweek / 3 + frame.amount / 50
    return _classed(frame, score, ["a", "b", "c"])


def _nullable() -> pd.DataFrame:
    frame = _whole().astype({"rooms": "Int64", "visits": "Int64", "balance": "Float64"})
    return _gapped(frame, ["rooms", "balance"], 20)


def _single() -> pd.DataFrame:
    return _whole().astype({"year": "int16", "rooms": "uint8", "balance": "float32"})


_WORDS = (
    *("good", "great", "fine", "lovely", "warm", "bad", "awful", "slow", "cold", "broken", "late"),
    *("rude", "not", "never", "very", "quite", "room", "food", "staff", "Café", "naïve", "don't"),
    *("e-mail", "24h", "the", "a", "it", "was"),
)


def _sentences(random: np.random.Generator, rows: int) -> list[str]:
    counts = random.integers(2, 12, rows)
    return [" ".join(random.choice(_WORDS, count)) for count in counts]


def _texts() -> pd.DataFrame:
    random, rows = _random(21), ROWS + HELD_OUT
    frame = pd.DataFrame({"text": _sentences(random, rows)})
    liked = frame.text.str.count("good|great|fine|lovely|warm")
    score = liked - frame.text.str.count("bad|awful|slow|cold|broken|late|rude")
    return frame.assign(target=np.where(score > 0, "liked", "not liked"))


def _reviews() -> pd.DataFrame:
    frame = _texts()
    return frame.assign(stars=_random(22).integers(1, 6, len(frame)), price=_measures(22).income)


def _one() -> pd.DataFrame:
    random, rows = _random(23), ROWS + HELD_OUT
    dose = np.round(random.uniform(0, 10, rows), 3)
    return pd.DataFrame({"dose": dose, "target": np.round(np.tanh(dose / 3) + 0.01 * dose, 5)})


def suffix_of(data: str) -> str:
    """Return the ending of the files in which a data set is kept."""
    return "parquet" if data in _IN_PARQUET else "csv"


_CLASSIFIERS = {
    "logistic": "LogisticRegression(max_iter=2000)",
    "logistic-l1": "LogisticRegression(penalty='l1', solver='saga', C=0.5, max_iter=500)",
    "logistic-cv": "LogisticRegressionCV(Cs=3, cv=3, max_iter=500)",
    "ridge-classifier": "RidgeClassifier()",
    "ridge-classifier-cv": "RidgeClassifierCV()",
    "sgd-hinge": "SGDClassifier(random_state=0)",
    "sgd-log": "SGDClassifier(loss='log_loss', random_state=0)",
    "sgd-huber": "SGDClassifier(loss='modified_huber', random_state=0)",
    "passive-aggressive": "PassiveAggressiveClassifier(random_state=0)",
    "perceptron": "Perceptron(random_state=0)",
    "linear-svc": "LinearSVC()",
    "svc": "SVC()",
    "svc-poly": "SVC(kernel='poly', degree=2)",
    "svc-probability": "CalibratedClassifierCV(SVC(), ensemble=False, cv=3)",
    "nu-svc": "NuSVC(nu=0.3)",
    "tree": "DecisionTreeClassifier(max_depth=6, random_state=0)",
    "extra-tree": "ExtraTreeClassifier(max_depth=6, random_state=0)",
    "forest": "RandomForestClassifier(15, random_state=0)",
    "extra-trees": "ExtraTreesClassifier(15, random_state=0)",
    "gradient-boosting": "GradientBoostingClassifier(n_estimators=12, random_state=0)",
    "hist-boosting": "HistGradientBoostingClassifier(max_iter=12, random_state=0)",
    "ada-boost": "AdaBoostClassifier(n_estimators=12, random_state=0)",
    "bagging": "BaggingClassifier(n_estimators=6, random_state=0)",
    "bagging-logistic": "BaggingClassifier(LogisticRegression(), 4, random_state=0)",
    "voting-soft": "VotingClassifier([('a', LogisticRegression()), ('b', GaussianNB())], "
    "voting='soft')",
    "voting-hard": "VotingClassifier([('a', LogisticRegression()), ('b', GaussianNB()), "
    "('c', DecisionTreeClassifier(max_depth=3, random_state=0))])",
    "stacking": "StackingClassifier([('a', GaussianNB()), ('b', "
    "DecisionTreeClassifier(max_depth=3, random_state=0))], LogisticRegression(), cv=3)",
    "calibrated-sigmoid": "CalibratedClassifierCV(LinearSVC(), cv=3)",
    "calibrated-isotonic": "CalibratedClassifierCV(GaussianNB(), method='isotonic', cv=3)",
    "knn": "KNeighborsClassifier(5)",
    "knn-distance": "KNeighborsClassifier(4, weights='distance')",
    "knn-brute": "KNeighborsClassifier(3, algorithm='brute', metric='cosine')",
    "radius": "RadiusNeighborsClassifier(radius=3.0, outlier_label='most_frequent')",
    "radius-refusing": "RadiusNeighborsClassifier(radius=3.0)",
    "nearest-centroid": "NearestCentroid()",
    "gaussian-bayes": "GaussianNB()",
    "bernoulli-bayes": "BernoulliNB()",
    "lda": "LinearDiscriminantAnalysis()",
    "lda-shrunk": "LinearDiscriminantAnalysis(solver='lsqr', shrinkage='auto')",
    "qda": "QuadraticDiscriminantAnalysis(reg_param=0.1)",
    "gaussian-process": "GaussianProcessClassifier(random_state=0)",
    "mlp": "MLPClassifier((12,), max_iter=150, random_state=0)",
    "mlp-tanh": "MLPClassifier((8, 6), activation='tanh', max_iter=150, random_state=0)",
    "dummy-prior": "DummyClassifier()",
    "one-vs-rest": "OneVsRestClassifier(LogisticRegression())",
    "one-vs-one": "OneVsOneClassifier(LinearSVC())",
    "output-code": "OutputCodeClassifier(LogisticRegression(), random_state=0)",
    "label-spreading": "LabelSpreading(kernel='knn')",
    "grid-search": "GridSearchCV(LogisticRegression(max_iter=500), {'C': [0.1, 1.0]}, cv=3)",
    "random-search": "RandomizedSearchCV(DecisionTreeClassifier(random_state=0), "
    "{'max_depth': [2, 3, 5]}, n_iter=2, cv=3, random_state=0)",
}
_TREES = (
    *("tree", "extra-tree", "forest", "extra-trees", "gradient-boosting", "hist-boosting"),
    *("ada-boost", "bagging", "random-search"),
)
_REGRESSORS = {
    "linear": "LinearRegression()",
    "ridge": "Ridge()",
    "ridge-cv": "RidgeCV()",
    "lasso": "Lasso(0.01)",
    "lasso-cv": "LassoCV(cv=3)",
    "elastic-net": "ElasticNet(0.01)",
    "lars": "Lars()",
    "lasso-lars": "LassoLars(0.001)",
    "matching-pursuit": "OrthogonalMatchingPursuit()",
    "bayesian-ridge": "BayesianRidge()",
    "ard": "ARDRegression()",
    "huber": "HuberRegressor(max_iter=500)",
    "ransac": "RANSACRegressor(random_state=0)",
    "theil-sen": "TheilSenRegressor(random_state=0, max_subpopulation=300)",
    "sgd-regressor": "SGDRegressor(random_state=0)",
    "passive-aggressive-regressor": "PassiveAggressiveRegressor(random_state=0)",
    "quantile": "QuantileRegressor(quantile=0.8, alpha=0.01)",
    "poisson": "PoissonRegressor()",
    "gamma": "GammaRegressor()",
    "tweedie": "TweedieRegressor(power=1.5)",
    "svr": "SVR()",
    "linear-svr": "LinearSVR()",
    "nu-svr": "NuSVR()",
    "tree-regressor": "DecisionTreeRegressor(max_depth=6, random_state=0)",
    "extra-tree-regressor": "ExtraTreeRegressor(max_depth=6, random_state=0)",
    "forest-regressor": "RandomForestRegressor(15, random_state=0)",
    "extra-trees-regressor": "ExtraTreesRegressor(15, random_state=0)",
    "gradient-boosting-regressor": "GradientBoostingRegressor(n_estimators=12, random_state=0)",
    "hist-boosting-regressor": "HistGradientBoostingRegressor(max_iter=12, random_state=0)",
    "hist-boosting-poisson": "HistGradientBoostingRegressor(loss='poisson', max_iter=12)",
    "ada-boost-regressor": "AdaBoostRegressor(n_estimators=8, random_state=0)",
    "bagging-regressor": "BaggingRegressor(n_estimators=5, random_state=0)",
    "voting-regressor": "VotingRegressor([('a', Ridge()), ('b', KNeighborsRegressor())])",
    "stacking-regressor": "StackingRegressor([('a', Ridge()), ('b', "
    "DecisionTreeRegressor(max_depth=3, random_state=0))], cv=3)",
    "knn-regressor": "KNeighborsRegressor(4)",
    "radius-regressor": "RadiusNeighborsRegressor(radius=3.0)",
    "gaussian-process-regressor": "GaussianProcessRegressor(alpha=0.1, random_state=0)",
    "mlp-regressor": "MLPRegressor(hidden_layer_sizes=(10,), max_iter=200, random_state=0)",
    "kernel-ridge": "KernelRidge(kernel='rbf', gamma=0.1)",
    "pls": "PLSRegression(2)",
    "dummy-mean": "DummyRegressor()",
    "log-target": "TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)",
    "quantile-target": "TransformedTargetRegressor(Ridge(), "
    "transformer=QuantileTransformer(n_quantiles=50))",
    "grid-search-regressor": "GridSearchCV(Ridge(), {'alpha': [0.1, 1.0]}, cv=3)",
}
_OUTLIER_DETECTORS = {
    "isolation-forest": "IsolationForest(n_estimators=20, random_state=0)",
    "one-class-svm": "make_pipeline(StandardScaler(), OneClassSVM(nu=0.1))",
    "local-outlier-factor": "make_pipeline(StandardScaler(), LocalOutlierFactor(novelty=True))",
    "elliptic-envelope": "EllipticEnvelope(random_state=0)",
    "sgd-one-class": "make_pipeline(StandardScaler(), SGDOneClassSVM(random_state=0))",
}
_SCALINGS = {
    "robust": "RobustScaler()",
    "min-max": "MinMaxScaler()",
    "clipping-min-max": "MinMaxScaler(clip=True)",
    "max-abs": "MaxAbsScaler()",
    "quantile": "QuantileTransformer(n_quantiles=40)",
    "quantile-normal": "QuantileTransformer(n_quantiles=40, output_distribution='normal')",
    "power": "PowerTransformer()",
    "bins-onehot": "KBinsDiscretizer(4, encode='onehot-dense', "
    "quantile_method='averaged_inverted_cdf')",
    "bins-ordinal": "KBinsDiscretizer(5, encode='ordinal', strategy='uniform')",
    "polynomial": "make_pipeline(StandardScaler(), PolynomialFeatures(2))",
    "pca": "make_pipeline(StandardScaler(), PCA(3))",
    "pca-whitened": "make_pipeline(StandardScaler(), PCA(2, whiten=True))",
    "kernel-pca": "make_pipeline(StandardScaler(), KernelPCA(3, kernel='rbf'))",
    "svd": "make_pipeline(StandardScaler(), TruncatedSVD(3, random_state=0))",
    "splines": "SplineTransformer(n_knots=4)",
    "normalizer": "Normalizer()",
    "binarizer": "Binarizer(threshold=1.0)",
    "k-best": "SelectKBest(k=3)",
    "from-model": "SelectFromModel(LogisticRegression(max_iter=2000))",
    "nystroem": "make_pipeline(StandardScaler(), Nystroem(n_components=20, random_state=0))",
    "union": "make_union(StandardScaler(), PCA(2))",
    "arctan": "FunctionTransformer(np.arctan)",
    "own-function": "FunctionTransformer(ratios)",
    "own-class": "Clip()",
    "two-columns": "ColumnTransformer([('a', StandardScaler(), ['height', 'income'])])",
    "columns-by-number": "ColumnTransformer([('a', StandardScaler(), [0, 4])], "
    "remainder='passthrough')",
}
_IMPUTERS = {
    "mean": "SimpleImputer()",
    "median": "SimpleImputer(strategy='median')",
    "most-frequent": "SimpleImputer(strategy='most_frequent')",
    "constant": "SimpleImputer(strategy='constant', fill_value=-1.0)",
    "mean-indicator": "SimpleImputer(add_indicator=True)",
    "knn-imputer": "KNNImputer(n_neighbors=3)",
    "iterative": "IterativeImputer(max_iter=3, random_state=0)",
    "indicator-only": "make_union(SimpleImputer(), MissingIndicator())",
}
_NUMBERS = "['height', 'income', 'rooms']"
_TEXTS = "['city', 'grade']"
_FLAGS = "['garden']"
_ENCODERS = {
    "onehot": "OneHotEncoder(handle_unknown='ignore')",
    "onehot-dense": "OneHotEncoder(handle_unknown='ignore', sparse_output=False)",
    "onehot-error": "OneHotEncoder()",
    "onehot-drop": "OneHotEncoder(drop='first')",
    "onehot-infrequent": "OneHotEncoder(handle_unknown='infrequent_if_exist', min_frequency=0.1)",
    "ordinal-error": "OrdinalEncoder()",
    "ordinal-unknown": "OrdinalEncoder(handle_unknown='use_encoded_value', unknown_value=-1)",
    "ordinal-nan": "OrdinalEncoder(handle_unknown='use_encoded_value', unknown_value=np.nan)",
    "ordinal-listed": "OrdinalEncoder(categories=[['Zürich', 'Berlin', 'Oslo', 'Lyon', 'Porto', "
    "'Rome'], ['poor', 'fair', 'good']])",
    "target-encoder": "TargetEncoder(random_state=0)",
}
_VECTORIZERS = {
    "counts": "CountVectorizer()",
    "counts-binary": "CountVectorizer(binary=True, min_df=2)",
    "tfidf": "TfidfVectorizer()",
    "tfidf-bigrams": "TfidfVectorizer(ngram_range=(1, 2), max_features=80, sublinear_tf=True)",
    "tfidf-chars": "TfidfVectorizer(analyzer='char', ngram_range=(1, 2), max_features=100)",
    "tfidf-char-wb": "TfidfVectorizer(analyzer='char_wb', ngram_range=(2, 3), max_features=100)",
    "tfidf-stop-words": "TfidfVectorizer(stop_words='english')",
    "tfidf-cased": "TfidfVectorizer(lowercase=False, token_pattern=r'\\S+')",
    "tfidf-accents": "TfidfVectorizer(strip_accents='unicode')",
    "hashing": "HashingVectorizer(n_features=64)",
}


def pairs() -> list[Pair]:
    """Return all pairs; their names are unique."""
    made = [
        *_classifiers(),
        *_regressors(),
        *_scaled(),
        *_imputed(),
        *_encoded(),
        *_of_texts(),
        *_boosters(),
        *_types(),
        *_arrays(),
        *_hooks(),
    ]
    names = [pair.name for pair in made]
    assert len(set(names)) == len(names), "two pairs have one name"
    return made


def _pair(
    name: str,
    data: str,
    model: str,
    *,
    features: str = "features",
    target: str = "target",
    config: Mapping[str, Any] | None = None,
    extra: str = OWN,
) -> Pair:
    source = HEADER + extra + TRAIN.format(model=model, features=features, target=target)
    return Pair(name=name, data=data, source=source, config=config or {})


def _piped(*steps: str) -> str:
    return f"make_pipeline({', '.join(steps)})"


def _classifiers() -> Iterator[Pair]:
    for name, model in _CLASSIFIERS.items():
        if name in _TREES:
            yield _pair(f"{name} / none", "numbers", model)
        yield _pair(f"{name} / standard", "numbers", _piped("StandardScaler()", model))
    yield _pair("multinomial-bayes / none", "positive", "MultinomialNB()")
    yield _pair("complement-bayes / none", "positive", "ComplementNB()")
    yield _pair("dummy-stratified / none", "numbers", "DummyClassifier(strategy='stratified')")
    yield _pair("dummy-constant / none", "numbers", "DummyClassifier(strategy='most_frequent')")
    for name in (
        "logistic",
        "linear-svc",
        "svc",
        "gradient-boosting",
        "hist-boosting",
        "mlp",
        "sgd-log",
        "gaussian-process",
        "ada-boost",
    ):
        model = _piped("StandardScaler()", _CLASSIFIERS[name])
        yield _pair(f"{name} / standard, two classes", "two", model)
    model = "FixedThresholdClassifier(LogisticRegression(max_iter=2000), threshold=0.3)"
    yield _pair("fixed-threshold / none", "two", model)
    model = "TunedThresholdClassifierCV(LogisticRegression(max_iter=2000), cv=3)"
    yield _pair("tuned-threshold / none", "two", model)
    for name, model in _OUTLIER_DETECTORS.items():
        yield _pair(f"{name} / none", "outliers", model, target="None")


def _regressors() -> Iterator[Pair]:
    for name, model in _REGRESSORS.items():
        if any(word in name for word in ("tree", "forest", "boost")):
            yield _pair(f"{name} / none", "price", model)
        yield _pair(f"{name} / standard", "price", _piped("StandardScaler()", model))
    yield _pair(
        "isotonic / none",
        "one",
        "IsotonicRegression(out_of_bounds='clip')",
        features="features['dose']",
    )
    yield _pair(
        "isotonic-refusing / none",
        "one",
        "IsotonicRegression(out_of_bounds='raise')",
        features="features['dose']",
    )


def _scaled() -> Iterator[Pair]:
    for place, (name, step) in enumerate(_SCALINGS.items()):
        yield _pair(f"logistic / {name}", "numbers", _piped(step, _CLASSIFIERS["logistic"]))
        other = ("forest", "svc", "knn")[place % 3]
        yield _pair(f"{other} / {name}", "numbers", _piped(step, _CLASSIFIERS[other]))


def _imputed() -> Iterator[Pair]:
    for place, (name, step) in enumerate(_IMPUTERS.items()):
        yield _pair(
            f"logistic / {name}", "gaps", _piped(step, "StandardScaler()", _CLASSIFIERS["logistic"])
        )
        other = ("forest", "gradient-boosting")[place % 2]
        yield _pair(f"{other} / {name}", "gaps", _piped(step, _CLASSIFIERS[other]))
    for name in ("tree", "forest", "extra-trees", "hist-boosting", "bagging"):
        yield _pair(f"{name} / gaps", "gaps", _CLASSIFIERS[name])
    for name in ("tree-regressor", "forest-regressor", "hist-boosting-regressor"):
        yield _pair(f"{name} / gaps", "gaps_price", _REGRESSORS[name])
    sentinel = _piped("SimpleImputer(missing_values=-999.0)", _CLASSIFIERS["logistic"])
    yield _pair("logistic / imputer of -999", "sentinel", sentinel)
    yield _pair("hist-boosting / -999", "sentinel", _CLASSIFIERS["hist-boosting"])


def _mixture(encoder: str, number: str = "StandardScaler()", rest: str = "'passthrough'") -> str:
    return (
        f"ColumnTransformer([('n', {number}, {_NUMBERS}), ('t', {encoder}, {_TEXTS}), "
        f"('b', {rest}, {_FLAGS})])"
    )


def _encoded() -> Iterator[Pair]:
    for place, (name, step) in enumerate(_ENCODERS.items()):
        models = ("logistic", ("forest", "gradient-boosting", "hist-boosting")[place % 3])
        for model in ("hist-boosting", "forest") if name == "ordinal-nan" else models:
            encoder = step
            if model == "hist-boosting" and "onehot" in name and "sparse" not in step:
                encoder = f"{step[:-1]}{', ' if step[-2] != '(' else ''}sparse_output=False)"
            yield _pair(
                f"{model} / {name}", "mixed", _piped(_mixture(encoder), _CLASSIFIERS[model])
            )
        if name != "ordinal-nan":
            yield _pair(f"ridge / {name}", "mixed_price", _piped(_mixture(step), "Ridge()"))
    imputed = "make_pipeline(SimpleImputer(), StandardScaler())"
    for name, fill in (
        ("constant", "strategy='constant', fill_value='?'"),
        ("most-frequent", "strategy='most_frequent'"),
    ):
        texts = f"make_pipeline(SimpleImputer({fill}), OneHotEncoder(handle_unknown='ignore'))"
        model = _piped(_mixture(texts, imputed), _CLASSIFIERS["logistic"])
        yield _pair(f"logistic / texts filled, {name}", "mixed_gaps", model)
    for name in ("onehot", "ordinal-error", "ordinal-unknown"):
        model = _piped(_mixture(_ENCODERS[name], imputed), _CLASSIFIERS["forest"])
        yield _pair(f"forest / gaps, {name}", "mixed_gaps", model)
    model = _piped(_mixture(_ENCODERS["onehot"], imputed), _CLASSIFIERS["logistic"])
    yield _pair("logistic / gaps of numbers, onehot", "number_gaps", model)
    model = _piped(_mixture(_ENCODERS["onehot"], imputed), "XGBClassifier(n_estimators=6)")
    yield _pair(
        "forest / onehot of whole numbers",
        "zips",
        _piped(
            "ColumnTransformer([('z', OneHotEncoder(handle_unknown='ignore'), ['zip'])], "
            "remainder='passthrough')",
            _CLASSIFIERS["forest"],
        ),
    )
    yield _pair(
        "logistic / infrequent whole numbers",
        "zips",
        _piped(
            "ColumnTransformer([('z', OneHotEncoder(handle_unknown='infrequent_if_exist', "
            "min_frequency=70), ['zip'])], remainder=StandardScaler())",
            _CLASSIFIERS["logistic"],
        ),
    )
    selector = _piped(
        "make_column_transformer((StandardScaler(), make_column_selector(dtype_include='number')), "
        "(OneHotEncoder(handle_unknown='ignore'), make_column_selector(dtype_include=object)))",
        _CLASSIFIERS["logistic"],
    )
    yield _pair("logistic / selectors", "mixed", selector)
    framed = (
        _piped(
            _mixture("OneHotEncoder(sparse_output=False, handle_unknown='ignore')"),
            _CLASSIFIERS["forest"],
        )
        + ".set_output(transform='pandas')"
    )
    yield _pair("forest / pandas output", "mixed", framed)
    search = (
        f"GridSearchCV({_piped(_mixture(_ENCODERS['onehot']), 'LogisticRegression()')}, "
        "{'logisticregression__C': [0.1, 1.0]}, cv=3)"
    )
    yield _pair("grid-search / mixture", "mixed", search)


def _of_texts() -> Iterator[Pair]:
    for place, (name, step) in enumerate(_VECTORIZERS.items()):
        model = ("LogisticRegression()", "LinearSVC()", "MultinomialNB()")[place % 3]
        if name == "hashing":
            model = "SGDClassifier(random_state=0)"
        yield _pair(
            f"text model / {name}", "texts", _piped(step, model), features="features['text']"
        )
    union = "make_union(CountVectorizer(), TfidfVectorizer(analyzer='char', max_features=30))"
    yield _pair(
        "text model / union",
        "texts",
        _piped(union, "LogisticRegression()"),
        features="features['text']",
    )
    for name in ("counts", "tfidf", "tfidf-chars", "hashing"):
        step = (
            f"ColumnTransformer([('t', {_VECTORIZERS[name]}, 'text')], remainder=StandardScaler())"
        )
        yield _pair(
            f"logistic / {name} beside numbers", "reviews", _piped(step, "LogisticRegression()")
        )
    step = f"ColumnTransformer([('t', {_VECTORIZERS['counts']}, 'text')])"
    yield _pair("forest / counts of one column", "reviews", _piped(step, _CLASSIFIERS["forest"]))


_XGB, _LGBM = "n_estimators=8, max_depth=3", "n_estimators=8, max_depth=3, verbose=-1"
_XGB_BARE = """
def _matrix(rows):
    return xgboost.DMatrix(rows)

def train(data, params):
    features, target = data.drop(columns="target"), data["target"]
    codes = {codes}
    return xgboost.train({params}, xgboost.DMatrix(features, codes), 8)

def answer(model, rows):
    return {answer}(model.predict(xgboost.DMatrix(rows)))
"""
_LGBM_BARE = """
def train(data, params):
    features, target = data.drop(columns="target"), data["target"]
    codes = {codes}
    return lightgbm.train({params}, lightgbm.Dataset(features, codes), 8)

def answer(model, rows):
    return {answer}(model.predict(rows))
"""
_HELD = """
LABELS = {labels}

def of_probabilities(values):
    if values.ndim == 1:
        values = np.stack([1 - values, values], axis=1)
    return np.array(LABELS, dtype=object)[values.argmax(axis=1)], values

def of_values(values):
    return values, None
"""


def _boosters() -> Iterator[Pair]:
    yield _pair("xgboost / none", "coded", f"XGBClassifier({_XGB})")
    yield _pair("xgboost-forest / none", "coded", "XGBRFClassifier(n_estimators=8, max_depth=3)")
    yield _pair("xgboost-regressor / none", "price", f"XGBRegressor({_XGB})")
    yield _pair("xgboost-regressor / gaps", "gaps_price", f"XGBRegressor({_XGB})")
    yield _pair(
        "xgboost-linear / none", "price", "XGBRegressor(booster='gblinear', n_estimators=8)"
    )
    yield _pair("xgboost-dart / none", "price", f"XGBRegressor(booster='dart', {_XGB})")
    yield _pair(
        "xgboost-poisson / none", "price", f"XGBRegressor(objective='count:poisson', {_XGB})"
    )
    yield _pair(
        "xgboost-regressor / standard", "price", _piped("StandardScaler()", f"XGBRegressor({_XGB})")
    )
    yield _pair("xgboost / standard", "coded", _piped("StandardScaler()", f"XGBClassifier({_XGB})"))
    yield _pair("lightgbm / none", "numbers", f"LGBMClassifier({_LGBM})")
    yield _pair("lightgbm / two classes", "two", f"LGBMClassifier({_LGBM})")
    yield _pair("lightgbm / gaps", "gaps", f"LGBMClassifier({_LGBM})")
    yield _pair("lightgbm / whole numbers", "whole", f"LGBMClassifier({_LGBM})")
    yield _pair("lightgbm-regressor / none", "price", f"LGBMRegressor({_LGBM})")
    yield _pair("lightgbm-regressor / gaps", "gaps_price", f"LGBMRegressor({_LGBM})")
    yield _pair(
        "lightgbm-regressor / zero as missing",
        "gaps_price",
        f"LGBMRegressor(zero_as_missing=True, {_LGBM})",
    )
    yield _pair("lightgbm-dart / none", "price", f"LGBMRegressor(boosting_type='dart', {_LGBM})")
    yield _pair(
        "lightgbm-quantile / none",
        "price",
        f"LGBMRegressor(objective='quantile', alpha=0.8, {_LGBM})",
    )
    yield _pair(
        "lightgbm / standard", "numbers", _piped("StandardScaler()", f"LGBMClassifier({_LGBM})")
    )
    yield _pair(
        "lightgbm / mixture",
        "mixed",
        _piped(_mixture(_ENCODERS["onehot"]), f"LGBMClassifier({_LGBM})"),
    )
    yield _pair(
        "xgboost-regressor / mixture",
        "mixed_price",
        _piped(_mixture(_ENCODERS["onehot"]), f"XGBRegressor({_XGB})"),
    )
    yield _pair("lightgbm / categories", "categories", f"LGBMClassifier({_LGBM})")
    yield _pair("lightgbm / categories with gaps", "categories_gaps", f"LGBMClassifier({_LGBM})")
    source = (
        HEADER
        + """
def train(data, params):
    features, target = data.drop(columns="target"), data["target"]
    codes = LabelEncoder().fit_transform(target)
    return XGBClassifier(n_estimators=8, max_depth=3, missing=-999.0).fit(features, codes)
"""
    )
    yield Pair("xgboost / labels not known", "sentinel", source)
    sentinel = f"XGBRegressor(missing=-999.0, {_XGB})"
    yield _pair("xgboost-regressor / missing -999", "sentinel_price", sentinel)
    yield _pair(
        "xgboost-regressor / categories",
        "categories_price",
        f"XGBRegressor(enable_categorical=True, {_XGB})",
    )
    classes = {"classes": ["low", "mid", "top"]}
    multi = "pd.factorize(target, sort=True)[0]"
    for name, code, params in (
        ("xgboost", _XGB_BARE, "{'objective': 'multi:softprob', 'num_class': 3, 'max_depth': 3}"),
        ("lightgbm", _LGBM_BARE, "{'objective': 'multiclass', 'num_class': 3, 'verbose': -1}"),
    ):
        own = _HELD.format(labels="['low', 'mid', 'top']")
        body = code.format(codes=multi, params=params, answer="of_probabilities")
        yield Pair(f"bare {name} / none", "numbers", HEADER + own + body, classes)
    for name, code, params in (
        ("xgboost", _XGB_BARE, "{'objective': 'binary:logistic', 'max_depth': 3}"),
        ("lightgbm", _LGBM_BARE, "{'objective': 'binary', 'verbose': -1}"),
    ):
        own = _HELD.format(labels="['no', 'yes']")
        body = code.format(
            codes="(target == 'yes').astype(int)", params=params, answer="of_probabilities"
        )
        yield Pair(
            f"bare {name} / two classes", "two", HEADER + own + body, {"classes": ["no", "yes"]}
        )
        body = code.format(
            codes="target",
            params="{'verbose': -1}" if name == "lightgbm" else "{'max_depth': 3}",
            answer="of_values",
        )
        yield Pair(f"bare {name} / regression", "gaps_price", HEADER + own + body)


def _sentinel_price() -> pd.DataFrame:
    return _gaps_price().fillna({"height": -999.0, "tiny": -999.0})


def _categories_price() -> pd.DataFrame:
    return _mixed_price().astype({"city": "category", "grade": "category"})


def _types() -> Iterator[Pair]:
    for data in ("whole", "booleans", "nullable", "single"):
        for name in ("logistic", "forest", "hist-boosting"):
            model = _CLASSIFIERS[name]
            if name == "logistic":
                imputer = "SimpleImputer(), " if data == "nullable" else ""
                model = f"make_pipeline({imputer}StandardScaler(), {model})"
            yield _pair(f"{name} / {data}", data, model)
    yield _pair(
        "hist-boosting / booleans with gaps",
        "boolean_gaps",
        _piped(
            "ColumnTransformer([('p', OneHotEncoder(handle_unknown='ignore', sparse_output=False), "
            "['paid'])], remainder='passthrough')",
            _CLASSIFIERS["hist-boosting"],
        ),
    )
    for data in ("categories", "categories_gaps"):
        model = "HistGradientBoostingClassifier(max_iter=10, categorical_features='from_dtype')"
        yield _pair(f"hist-boosting / {data}", data, model)
    encoded = _piped(_mixture(_ENCODERS["onehot"]), _CLASSIFIERS["logistic"])
    yield _pair("logistic / onehot of categories", "categories", encoded)
    own = """
def parts(rows):
    return np.stack([rows["day"].dt.month, rows["day"].dt.dayofweek], axis=1)
"""
    step = (
        "ColumnTransformer([('d', FunctionTransformer(parts), ['day'])], remainder='passthrough')"
    )
    yield _pair(
        "forest / own function of dates", "dates", _piped(step, _CLASSIFIERS["forest"]), extra=own
    )


def _arrays() -> Iterator[Pair]:
    for name in ("logistic", "forest", "knn", "gradient-boosting"):
        yield _pair(
            f"{name} / array",
            "numbers",
            _piped("StandardScaler()", _CLASSIFIERS[name]),
            features="features.to_numpy()",
        )
    yield _pair(
        "forest-regressor / array with gaps",
        "gaps_price",
        _REGRESSORS["forest-regressor"],
        features="features.to_numpy()",
    )
    yield _pair(
        "linear / array of whole numbers",
        "whole",
        _CLASSIFIERS["forest"],
        features="features.to_numpy()",
    )
    yield _pair(
        "logistic / array in another order",
        "numbers",
        _piped("StandardScaler()", _CLASSIFIERS["logistic"]),
        features="features.iloc[:, ::-1].to_numpy()",
    )
    yield _pair(
        "logistic / frame in another order",
        "numbers",
        _piped("StandardScaler()", _CLASSIFIERS["logistic"]),
        features="features.iloc[:, ::-1]",
    )
    yield _pair(
        "forest / some of the columns",
        "numbers",
        _CLASSIFIERS["forest"],
        features="features[['share', 'income']]",
    )


def _hooks() -> Iterator[Pair]:
    config = {"preprocess": "pipeline:preprocess"}
    ratio = """
def preprocess(rows):
    rows = rows.assign(ratio=rows["height"] / rows["weight"])
    return rows.drop(columns="tiny")
"""
    filled = """
def preprocess(rows):
    return rows.fillna({"height": 0.0, "share": 0.5, "income": 1.0})
"""
    parts = """
def preprocess(rows):
    day = rows["day"].dt
    return pd.DataFrame({"month": day.month, "weekday": day.dayofweek, "amount": rows["amount"]})
"""
    refusing = """
def preprocess(rows):
    if (rows["rooms"] < 0).any():
        raise ValueError("rooms must not be negative")
    return rows.assign(city=rows["city"].str.strip().str.title())
"""
    forest, logistic = _CLASSIFIERS["forest"], _piped("StandardScaler()", _CLASSIFIERS["logistic"])
    mixture = _piped(_mixture(_ENCODERS["onehot"]), _CLASSIFIERS["logistic"])
    yield _pair("forest / hook: ratio", "numbers", forest, config=config, extra=ratio)
    yield _pair("logistic / hook: ratio", "numbers", logistic, config=config, extra=ratio)
    yield _pair("logistic / hook: filled", "gaps", logistic, config=config, extra=filled)
    yield _pair("forest / hook: dates", "dates", forest, config=config, extra=parts)
    yield _pair("logistic / hook: refusing", "mixed", mixture, config=config, extra=refusing)
    yield _pair(
        "lightgbm / hook: ratio", "numbers", f"LGBMClassifier({_LGBM})", config=config, extra=ratio
    )


_DATA = (
    *(_numbers, _two, _coded, _positive, _price, _outliers, _whole, _booleans, _gaps, _gaps_price),
    *(_sentinel, _boolean_gaps, _mixed, _mixed_price, _mixed_gaps, _number_gaps, _zips),
    *(_categories, _categories_gaps, _dates, _nullable, _single, _texts, _reviews, _one),
    *(_sentinel_price, _categories_price),
)
DATA: Mapping[str, Callable[[], pd.DataFrame]] = {
    make.__name__.removeprefix("_"): make for make in _DATA
}
_IN_PARQUET = ("categories", "categories_gaps", "categories_price", "dates", "nullable", "single")
