"""Kinds of models that were once served with other answers than their own, each in small."""

import datetime as dt
import math
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle, Field, Row
from mlship.domain.prediction import Answer
from mlship.errors import ProjectError
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.frames import to_frame
from mlship.training.blame import proven
from mlship.training.proof import probes
from mlship.training.train import train
from tests.harness.projects import InProcess, config, project, request

pytestmark = pytest.mark.slow

LINEAR = "from sklearn.linear_model import LinearRegression\n"
FOREST = "from sklearn.ensemble import RandomForestRegressor\n"


class Served:
    """A project that was trained, beside the estimator that its own function returns."""

    def __init__(self, root: Path, code: str, frame: pd.DataFrame, **settings: Any) -> None:
        module = project(root, code, frame)
        target = settings.pop("target", "y")
        asked = request(root, config(target, module, **settings))
        self.notes = train(asked, InProcess()).notes
        self.folder = asked.into
        self.bundle: Bundle = bundles.read(asked.into)

    def answers(self, *rows: Row) -> list[Answer]:
        return InProcess().answered(self.folder, rows)

    def values(self, *rows: Row) -> list[Any]:
        return [answer.outputs[self.bundle.target] for answer in self.answers(*rows)]


def with_data(settings: Config, **data: Any) -> Config:
    """Return a configuration with other files."""
    return replace(settings, data=replace(settings.data, **data))


def own(code: str, frame: pd.DataFrame, rows: list[Row], **params: Any) -> list[float]:
    """Return what the estimator of the code predicts, fitted on the rows that training sees."""
    from sklearn.model_selection import train_test_split

    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 (the code of the test above)
    seen, _ = train_test_split(frame, test_size=0.3, random_state=1)
    model = names["train"](seen.reset_index(drop=True), params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted: list[float] = model.predict(pd.DataFrame(rows).fillna(np.nan)).tolist()
    return predicted


def gaps(count: int = 200, every: int = 4) -> pd.DataFrame:
    random = np.random.default_rng(3)
    age = random.integers(18, 90, count).astype("float64")
    dose = random.integers(1, 9, count).astype("float64")
    target = np.where(age < 40, 20.0, 30.0) + dose + random.normal(0, 0.1, count)
    age[::every] = np.nan
    return pd.DataFrame({"age": age, "dose": dose, "y": target})


def test_a_null_in_a_forest_that_saw_gaps(tmp_path: Path) -> None:
    frame = gaps()
    code = FOREST + (
        "def train(data, params):\n"
        "    model = RandomForestRegressor(10, max_depth=3, random_state=0)\n"
        "    return model.fit(data.drop(columns='y'), data['y'])\n"
    )
    served = Served(tmp_path, code, frame)
    rows: list[Row] = [{"age": None, "dose": float(dose)} for dose in range(1, 9)]
    assert served.values(*rows) == pytest.approx(own(code, frame, rows))


def test_a_tree_that_splits_at_infinity_is_no_endless_conversion(tmp_path: Path) -> None:
    frame = pd.DataFrame({"income": [np.nan, 1.0] * 60, "y": [5.0, 9.0] * 60})
    code = FOREST + (
        "def train(data, params):\n"
        "    model = RandomForestRegressor(5, random_state=0)\n"
        "    return model.fit(data[['income']], data['y'])\n"
    )
    served = Served(tmp_path, code, frame)
    assert served.bundle.model.format == "skops"
    assert "a tree splits between missing values and all others" in served.notes[0]
    assert served.values({"income": None}, {"income": 1.0}) == pytest.approx([5.0, 9.0])


def test_a_number_that_xgboost_takes_for_a_missing_value(tmp_path: Path) -> None:
    frame = gaps().fillna(-999.0)
    code = (
        "from xgboost import XGBRegressor\n"
        "def train(data, params):\n"
        "    model = XGBRegressor(n_estimators=10, max_depth=3, missing=-999, n_jobs=1)\n"
        "    return model.fit(data.drop(columns='y'), data['y'])\n"
    )
    served = Served(tmp_path, code, frame)
    assert (served.bundle.model.format, served.bundle.model.missing) == ("xgboost", -999.0)
    rows: list[Row] = [{"age": age, "dose": 3.0} for age in (-999.0, -998.0, 20.0, 80.0)]
    assert served.values(*rows) == pytest.approx(own(code, frame, rows), rel=1e-5)


IMPUTER = """
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

def train(data, params):
    texts = make_pipeline(SimpleImputer({strategy}), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("port", texts, ["port"])], remainder="passthrough")
    return make_pipeline(columns, LinearRegression()).fit(data[["port", "age"]], data["y"])
"""


@pytest.mark.parametrize(
    "strategy", ["strategy='most_frequent'", "strategy='constant', fill_value='S'"]
)
def test_a_null_among_texts_is_what_pandas_reads_from_an_empty_field(
    strategy: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    port = random.choice(["S", "S", "C"], 200)
    age = random.integers(1, 80, 200).astype("float64")
    frame = pd.DataFrame(
        {"port": port, "age": age, "y": np.where(port == "C", 90.0, 40.0) + age / 10}
    )
    frame.loc[::9, "port"] = np.nan
    code = IMPUTER.format(strategy=strategy)
    served = Served(tmp_path, code, frame)
    rows: list[Row] = [{"port": port, "age": 30.0} for port in ("S", None, "C", "Q")]
    assert served.values(*rows) == pytest.approx(own(code, frame, rows))


ENCODED = """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

def train(data, params):
    columns = ColumnTransformer([("c", {encoder}, ["{column}"])], remainder="passthrough")
    model = make_pipeline(columns, RandomForestRegressor(10, random_state=0))
    return model.fit(data[["{column}", "rooms"]], data["y"])
"""


@pytest.mark.parametrize("encoder", ["OrdinalEncoder()", "OneHotEncoder()"])
def test_an_unknown_text_that_the_encoder_refuses(encoder: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    city = random.choice(["bonn", "köln", "ulm"], 150)
    rooms = random.integers(1, 6, 150)
    frame = pd.DataFrame({"city": city, "rooms": rooms, "y": rooms * 100.0 + (city == "ulm") * 50})
    served = Served(tmp_path, ENCODED.format(encoder=encoder, column="city"), frame)
    field = served.bundle.schema.inputs[0]
    assert (field.is_closed, field.choices) == (True, ("bonn", "köln", "ulm"))
    refused, known = served.answers({"city": "Köln", "rooms": 3}, {"city": "köln", "rooms": 3})
    assert "is not a value that the model knows" in refused.refusal
    assert refused.column == "city"
    assert known.outputs["y"] == pytest.approx(300, rel=0.2)


def test_rare_whole_numbers_go_where_unknown_ones_go(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    store = random.choice([10, 20, 30, 40], 300, p=[0.45, 0.45, 0.05, 0.05])
    rooms = random.integers(1, 6, 300)
    frame = pd.DataFrame({"store": store, "rooms": rooms, "y": rooms * 100.0 + (store > 20) * 350})
    encoder = "OneHotEncoder(min_frequency=40, handle_unknown='infrequent_if_exist')"
    code = ENCODED.format(encoder=encoder, column="store")
    served = Served(tmp_path, code, frame)
    rows: list[Row] = [{"store": store, "rooms": 3} for store in (10, 30, 40, 50, 0)]
    assert served.values(*rows) == pytest.approx(own(code, frame, rows))


def test_outliers_have_a_class_although_training_named_none(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"amount": random.normal(50, 5, 300), "y": 1})
    frame.loc[::50, ["amount", "y"]] = [400.0, -1]
    code = (
        "from sklearn.ensemble import IsolationForest\n"
        "def train(data, params):\n"
        "    model = IsolationForest(contamination=0.02, n_estimators=20, random_state=0)\n"
        "    return model.fit(data[['amount']])\n"
    )
    served = Served(tmp_path, code, frame)
    assert served.bundle.model.classes == (-1, 1)
    assert served.values({"amount": 50.0}, {"amount": 400.0}) == [1, -1]


@pytest.mark.parametrize("order", [["age", "income"], ["income", "age"]])
def test_columns_of_a_bare_array_are_in_the_order_of_the_data_or_refused(
    order: list[str], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    income, age = random.normal(300, 50, 200), random.normal(40, 10, 200)
    frame = pd.DataFrame({"income": income, "age": age, "y": income / 2 + age * 3})
    code = (
        LINEAR
        + f"def train(d, p):\n    return LinearRegression().fit(d[{order}].values, d['y'].values)\n"
    )
    if order == ["income", "age"]:
        served = Served(tmp_path, code, frame)
        assert served.values({"income": 300.0, "age": 40.0}) == pytest.approx([270.0])
        return
    with pytest.raises(ProjectError, match="better with income and age exchanged") as caught:
        Served(tmp_path, code, frame)
    assert "fit it on a DataFrame" in caught.value.hint


def test_a_text_column_alone_is_given_as_it_was_fitted(tmp_path: Path) -> None:
    words = ["good film", "bad film", "very good", "very bad", "good", "bad"]
    frame = pd.DataFrame({"text": words * 20, "y": ["up", "down"] * 60})
    code = (
        "from sklearn.feature_extraction.text import TfidfVectorizer\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "from sklearn.pipeline import make_pipeline\n"
        "def train(data, params):\n"
        "    model = make_pipeline(TfidfVectorizer(), LogisticRegression())\n"
        "    return model.fit(data['text'], data['y'])\n"
    )
    served = Served(tmp_path, code, frame)
    assert served.values({"text": "GOOD"}, {"text": "bad bad"}) == ["up", "down"]


def test_dates_and_decimals_of_parquet(tmp_path: Path) -> None:
    day = [dt.date(2026, 1, 1) + dt.timedelta(days=n) for n in range(60)]
    frame = pd.DataFrame({"day": day, "price": [Decimal(n) / 4 for n in range(60)]})
    frame["y"] = [3.0 * n for n in range(60)]
    code = LINEAR + (
        "def train(data, params):\n"
        "    return LinearRegression().fit(data[['days', 'price']], data['y'])\n"
        "def preprocess(rows):\n"
        "    import datetime\n"
        "    start = datetime.date(2026, 1, 1)\n"
        "    days = [float((day - start).days) for day in rows['day']]\n"
        "    return rows.assign(days=days, price=rows['price'].astype(float))[['days', 'price']]\n"
    )
    module = project(tmp_path, code, frame)
    frame.to_parquet(tmp_path / "d.parquet")
    settings = config("y", module, preprocess=f"{module}:preprocess")
    asked = request(tmp_path, with_data(settings, train="d.parquet"))
    train(asked, InProcess())
    made = bundles.read(asked.into)
    assert [(field.kind, field.dtype) for field in made.schema.inputs] == [
        ("text", "date"),
        ("number", "decimal"),
    ]
    good, bad = InProcess().answered(
        asked.into, [{"day": "2026-01-11", "price": 2.5}, {"day": "soon", "price": 2.5}]
    )
    assert good.outputs["y"] == pytest.approx(30.0)
    assert bad.column == "day"


def test_no_held_out_label_is_known(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(40), "y": ["<=50K", ">50K"] * 20})
    code = (
        "from sklearn.linear_model import LogisticRegression\n"
        "def train(data, params):\n    return LogisticRegression().fit(data[['a']], data['y'])\n"
    )
    module = project(tmp_path, code, frame)
    held_out = frame.assign(y=frame["y"] + ".")
    held_out.to_csv(tmp_path / "test.csv", index=False)
    asked = request(tmp_path, with_data(config("y", module), test="test.csv", split=None))
    with pytest.raises(ProjectError, match="no held-out label is one of the training labels"):
        train(asked, InProcess())


def test_numbers_beyond_what_a_form_can_hold_are_refused_by_name(tmp_path: Path) -> None:
    frame = gaps().dropna()
    code = FOREST + (
        "def train(data, params):\n"
        "    model = RandomForestRegressor(5, random_state=0)\n"
        "    return model.fit(data.drop(columns='y'), data['y'])\n"
    )
    served = Served(tmp_path, code, frame)
    limit = served.bundle.schema.inputs[0].limit
    assert limit == float(np.finfo("float32").max)
    huge, large = served.answers({"age": 1e39, "dose": 1.0}, {"age": limit, "dose": 1.0})
    assert (huge.column, huge.outputs) == ("age", {})
    assert math.isfinite(float(large.outputs["y"] or 0))


PARTS = """
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

def parts(rows):
    columns = [
        rows["when"].dt.month, rows["zone"].dt.hour, rows["count"], rows["flag"], rows["small"],
        rows["single"], rows["city"] == "b", rows["name"].eq("x").fillna(False),
    ]
    return np.stack([column.astype(float) for column in columns], axis=1)

def train(data, params):
    model = make_pipeline(FunctionTransformer(parts), RandomForestClassifier(10))
    return model.fit(data.drop(columns="y"), data["y"])
"""


def test_types_of_parquet_are_the_same_in_training_and_serving(tmp_path: Path) -> None:
    random, count = np.random.default_rng(0), 300
    days, hours = random.integers(0, 400, count), random.integers(0, 400, count)
    frame = pd.DataFrame(
        {
            "city": pd.Categorical(random.choice(["b", "k", "u"], count)),
            "when": pd.to_datetime("2025-01-01") + pd.to_timedelta(days, unit="D"),
            "zone": pd.to_datetime("2025-01-01", utc=True) + pd.to_timedelta(hours, unit="h"),
            "count": pd.array(random.integers(0, 9, count), dtype="Int64"),
            "flag": pd.array(random.integers(0, 2, count).astype(bool), dtype="boolean"),
            "small": random.integers(0, 99, count).astype("int8"),
            "single": random.normal(size=count).astype("float32"),
            "name": pd.array(random.choice(["x", "y"], count), dtype="string"),
        }
    )
    for column, step in (("count", 7), ("flag", 9), ("city", 11), ("when", 13), ("name", 10)):
        frame.loc[::step, column] = None
    frame["y"] = np.where(frame["small"] > 50, "p", "n")
    module = project(tmp_path, PARTS, frame)
    frame.to_parquet(tmp_path / "d.parquet")
    asked = request(tmp_path, with_data(config("y", module), train="d.parquet"))
    train(asked, InProcess())
    fields = {field.name: field for field in bundles.read(asked.into).schema.inputs}
    assert {name: field.dtype for name, field in fields.items()} == {
        "city": "category",
        "when": "datetime64[ns]",
        "zone": "datetime64[ns, UTC]",
        "count": "Int64",
        "flag": "boolean",
        "small": "int8",
        "single": "float32",
        "name": "string",
    }
    row: Row = {name: field.example for name, field in fields.items()}
    nulls: Row = {name: None for name, field in fields.items() if field.nullable}
    odd: Row = {"city": "z", "when": "soon", "count": 1.5, "flag": 1, "small": 300, "single": 1e39}
    rows: list[Row] = [row, row | nulls, *({**row, name: value} for name, value in odd.items())]
    good, empty, *bad = InProcess().answered(asked.into, rows)
    assert not good.refusal
    assert not empty.refusal
    assert [answer.column for answer in bad] == list(odd)


COUNTS_ONLY = """
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

class Clip(TransformerMixin, BaseEstimator):
    def __init__(self, most=10.0):
        self.most = most

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X[["b", "a"]].clip(upper=self.most)

def train(data, params):
    return make_pipeline(Clip(), Ridge()).fit(data[["a", "b"]], data["y"])
"""


def test_a_first_step_that_only_counts_its_columns_gets_the_dataframe(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.uniform(0, 20, 200), "b": random.uniform(0, 20, 200)})
    frame["y"] = frame["a"].clip(upper=10) * 3 + frame["b"].clip(upper=10)
    served = Served(tmp_path, COUNTS_ONLY, frame)
    assert served.bundle.model.layout == "frame"
    rows: list[Row] = [{"a": 15.0, "b": 2.0}, {"a": 1.0, "b": 30.0}]
    assert served.values(*rows) == pytest.approx(own(COUNTS_ONLY, frame, rows))


FIRST = """
from sklearn.base import BaseEstimator, RegressorMixin

class First(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        return X.iloc[:, 0].to_numpy()

def train(data, params):
    return First().fit(data[["a", "b"]], data["y"])
"""


def test_an_order_that_is_not_known_is_told_for_what_the_model_was_fitted_on(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=200), "b": random.normal(size=200)})
    frame["y"] = frame["b"]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with pytest.raises(ProjectError, match=r"fitted its model on a DataFrame, of which") as caught:
        Served(tmp_path / "one", FIRST, frame)
    assert "feature_names_in_" in caught.value.hint
    frame["y"] = frame["a"]
    assert Served(tmp_path / "two", FIRST, frame).values({"a": 1.5, "b": 9.0}) == [1.5]


@pytest.mark.parametrize("dtype", ["datetime64[ms]", "datetime64[s]"])
def test_a_date_that_nanoseconds_cannot_hold_fits_a_coarser_type(dtype: str) -> None:
    field = Field(name="when", kind="text", nullable=True, dtype=dtype)
    texts = ["9999-12-30", None, "1500-01-01T10:00:00", "2025-02-03T04:05:06"]
    frame = to_frame([{"when": text} for text in texts], [field])
    assert str(frame["when"].dtype) == dtype
    years = [9999, None, 1500, 2025]
    assert [None if pd.isna(one) else one.year for one in frame["when"]] == years


def test_a_date_that_no_unit_of_its_column_holds_is_refused() -> None:
    zone = "datetime64[s, Europe/Berlin]"
    late = "9999-12-31T23:59:59"
    for dtype, text in (("datetime64[ns]", late), (zone, late), ("datetime64[ms]", "soon")):
        field = Field(name="when", kind="text", dtype=dtype)
        with pytest.raises(RefusedRequest, match="when does not fit"):
            to_frame([{"when": "2025-02-03"}, {"when": text}], [field])


GAPS_IN_TRAINING = """
from sklearn.linear_model import LogisticRegression

def train(data, params):
    rows = data.dropna()
    return LogisticRegression().fit(rows[["age", "dose"]], rows["y"])
"""


def test_a_classifier_may_refuse_some_training_rows(tmp_path: Path) -> None:
    held_out = gaps().dropna()
    frame = gaps(every=20).assign(y=lambda rows: np.where(rows.y > 29, "late", "early"))
    module = project(tmp_path, GAPS_IN_TRAINING, frame)
    held_out.assign(y=np.where(held_out.y > 29, "late", "early")).to_csv(
        tmp_path / "held_out.csv", index=False
    )
    settings = with_data(config("y", module), test="held_out.csv", split=None)
    asked = request(tmp_path, settings)
    train(asked, InProcess())
    refused, answered = InProcess().answered(
        asked.into, [{"age": None, "dose": 1.0}, {"age": 80.0, "dose": 5.0}]
    )
    assert "age must be a number, not null" in refused.refusal
    assert answered.outputs["y"] == "late"


FAULTY = """
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression

class Faulty(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.feature_names_in_ = list(X.columns)
        return self

    def predict(self, X):
        return X["age"] * 0 + 1

    @property
    def estimators_(self):
        return self.missing["trees"]

    missing = {}

def train(data, params):
    return Faulty().fit(data[["age", "dose"]], data["y"])
"""


def test_what_a_model_raises_while_it_is_proven_is_told_with_its_line(tmp_path: Path) -> None:
    module = project(tmp_path, FAULTY, gaps().dropna())
    with pytest.raises(ProjectError) as raised:
        train(request(tmp_path, config("y", module)), InProcess())
    assert raised.value.message == (
        f"the model of {module}:train cannot be proven, estimators_ fails at "
        f"{module}.py:15: KeyError: 'trees'"
    )


LOGISTIC = """
import lightgbm
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

def loss(truth, scores):
    shares = 1 / (1 + np.exp(-scores))
    return shares - truth, shares * (1 - shares)

def booster():
    return lightgbm.LGBMClassifier(
        n_estimators=5, min_child_samples=3, verbose=-1, n_jobs=1, objective=loss
    )

class Logistic(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.feature_names_in_ = np.array(X.columns)
        self.classes_ = np.unique(y)
        self.booster_model_ = booster().fit(X, (y == self.classes_[1]).astype(int))
        return self

    def predict_proba(self, X):
        shares = 1 / (1 + np.exp(-self.booster_model_.predict(X, raw_score=True)))
        return np.stack([1 - shares, shares], axis=1)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

def train(data, params):
    return MODEL.fit(data[["age", "dose"]], data["y"])
"""


def test_raw_scores_of_an_own_objective_are_no_labels(tmp_path: Path) -> None:
    frame = gaps().assign(y=lambda rows: np.where(rows.y > 29, "late", "early"))
    bare = project(tmp_path / "bare", LOGISTIC.replace("MODEL", "booster()"), frame)
    with pytest.raises(ProjectError, match=r"returns raw scores, not labels") as raised:
        train(request(tmp_path / "bare", config("y", bare)), InProcess())
    assert "a class of the project around it" in raised.value.hint
    code = LOGISTIC.replace("MODEL", "Logistic()")
    served = Served(tmp_path / "around", code, frame)
    assert served.bundle.model.format == "skops"
    rows: list[Row] = [{"age": age, "dose": 3.0} for age in (20.0, 80.0, None)]
    assert served.values(*rows) == own(code, frame, rows)


def test_what_mlship_itself_raises_is_not_laid_at_the_model(tmp_path: Path) -> None:
    frame, other = pd.DataFrame({"x": [1]}), pd.DataFrame({"y": [1]})
    with pytest.raises(KeyError), proven(tmp_path, "pipeline:train"):
        probes.stacked([frame], other)
