"""The audit of skops files sees every name that loading looks up, wherever it stands."""

import functools
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import skops.io._utils as looked_up
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.utils import all_estimators

from mlship.errors import IntegrityError
from mlship.runtime import archive, trust
from tests.harness import hostile_models

BY_NUMPY = "numpy.random.bit_generator.SeedSequence"
"""What skops looks up whatever a file says."""


@functools.cache
def files() -> dict[str, bytes]:
    """Return models of many kinds as skops files."""
    generator = np.random.default_rng(0)
    data = pd.DataFrame(generator.normal(size=(60, 3)), columns=["a", "b", "c"])
    texts = data.assign(d=["u", "v", "w"] * 20)
    labels = np.arange(60) % 3
    columns = ColumnTransformer(
        [("one", OneHotEncoder(dtype=np.float32), ["d"])], remainder="passthrough"
    )
    clip = functools.partial(np.clip, a_min=-1, a_max=1)
    cv = RepeatedStratifiedKFold(n_splits=2, n_repeats=1, random_state=0)
    models = {
        "pipeline": make_pipeline(columns, RandomForestClassifier(3)).fit(texts, labels),
        "function": make_pipeline(FunctionTransformer(clip), SGDClassifier()).fit(data, labels),
        "boosting": GradientBoostingClassifier(n_estimators=2).fit(data, labels),
        "categories": HistGradientBoostingClassifier(
            max_iter=2, categorical_features=["d"], max_features=0.5
        ).fit(texts, labels),
        "gaussian": GaussianProcessClassifier(optimizer=None).fit(data, labels),
        "search": GridSearchCV(
            LogisticRegression(), {"C": [1, 2]}, cv=cv, scoring="accuracy"
        ).fit(data, labels),
        "neighbors": KNeighborsClassifier(algorithm="kd_tree").fit(data, labels),
        "network": MLPClassifier((3,), max_iter=2, random_state=0).fit(data, labels),
    }  # fmt: skip
    return {name: hostile_models.dumps(model) for name, model in models.items()}


NAMES = ["pipeline", "function", "boosting", "categories", "gaussian", "search", "neighbors"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", [*NAMES, "network"])
def test_whatever_is_looked_up_was_audited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = files()[name]
    parts = archive.read(data, name)
    assert trust.untrusted(parts, ()) == []
    names: set[str] = set()
    original = looked_up._import_obj

    def recorded(module: str, name: str, package: str | None = None) -> Any:
        names.add(f"{module}.{name}")
        return original(module, name, package)

    for module in (looked_up, skops.io._general):
        monkeypatch.setattr(module, "_import_obj", recorded)
    trust.load(data, parts)
    assert names
    assert names <= {part.full for part in parts} | {BY_NUMPY}


def test_the_list_stands_for_the_one_that_skops_makes_itself() -> None:
    own = {f"{kind.__module__}.{kind.__name__}" for _, kind in all_estimators()}
    assert own <= trust.listed()["ObjectNode"]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "__loader__" in value:
            yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def with_schema(data: bytes, schema: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            text = json.dumps(schema).encode() if name == "schema.json" else source.read(name)
            target.writestr(name, text)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ["categories", "search"])
def test_no_node_can_be_made_another(name: str) -> None:
    """Each node in turn names another function; only plain values take no notice of it."""
    data = files()[name]
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        schema, members = json.loads(source.read("schema.json")), source.namelist()
    tried = 0
    for node in nodes(schema):
        if node["__loader__"] == "JsonNode":
            continue
        before = node["__module__"], node["__class__"]
        node["__module__"], node["__class__"] = "posix", "system"
        assert is_refused(lambda: archive.names(schema, members, "a file")), before
        if tried % 20 == 0:  # the same of a whole file, which takes five times as long
            assert is_refused(lambda: archive.read(with_schema(data, schema), "a file")), before
        node["__module__"], node["__class__"] = before
        tried += 1
    assert tried > 50
    assert not is_refused(lambda: archive.read(with_schema(data, schema), "a file"))


def is_refused(read: Callable[[], tuple[archive.Part, ...]]) -> bool:
    try:
        return bool(trust.untrusted(read(), ()))
    except IntegrityError:
        return True
