"""Small projects with a model, for the tests of training."""

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlship.adapters.checkout.children import TrainRequest
from mlship.config import layers
from mlship.config.project import Config
from mlship.domain.bundle import Row
from mlship.domain.prediction import Answer
from mlship.runtime.model import Model
from mlship.runtime.predict import answer_of

_numbers = itertools.count()


def flowers(rows: int = 90) -> pd.DataFrame:
    """Return rows of four measures, a colour and a species; the same each time."""
    generator = np.random.default_rng(7)
    kind = np.arange(rows) % 3
    frame = pd.DataFrame(
        {
            "length": np.round(kind * 2 + generator.normal(5, 0.6, rows), 2),
            "width": np.round(generator.normal(3, 0.4, rows) - kind * 0.3, 2),
            "leaves": generator.integers(2, 9, rows),
            "colour": np.array(["blue", "pink", "white"])[
                (kind + (generator.random(rows) < 0.2)) % 3
            ],
        }
    )
    frame["price"] = np.round(frame.length * 1.5 + frame.leaves * 0.2, 3)
    frame["species"] = np.array(["rose", "iris", "tulip"])[kind]
    return frame


def config(target: str | list[str] = "species", module: str = "pipeline", **model: Any) -> Config:
    """Return the configuration of a project with the data of `flowers`."""
    values: dict[str, Any] = {
        "name": "flowers",
        "data": {"train": "data.csv", "split": {"fraction": 0.3, "seed": 1}, "target": target},
        "model": {"train": f"{module}:train", **model},
    }
    return layers.resolve([layers.Layer(name="mlship.yaml", values=values)]).config


def project(
    root: Path, code: str, frame: pd.DataFrame | None = None, files: Mapping[str, str] | None = None
) -> str:
    """Write a project's data and its module; return the module's name, never used before.

    Python keeps imported modules by their name, so two projects in one process need two.
    """
    module = f"pipeline_{next(_numbers)}"
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{module}.py").write_text(code)
    if frame is None:
        frame = flowers()
    frame.to_csv(root / "data.csv", index=False)
    for name, text in (files or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return module


class InProcess:
    """Predicts as `mlship.runtime` does, without a process; for bundles without hooks."""

    def predict(self, bundle: Path, rows: Sequence[Row]) -> list[Row]:
        return Model.load(bundle, None).predict(rows)

    @contextmanager
    def answers(self, bundle: Path, rows: Sequence[Row]) -> Iterator[Callable[[], list[Answer]]]:
        yield lambda: self.answered(bundle, rows)

    def answered(self, bundle: Path, rows: Sequence[Row]) -> list[Answer]:
        """Return the outputs or the refusal of each row."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # probes overflow on purpose; a process only prints it
            return [answer_of(result) for result in Model.load(bundle, None).answers(rows)]


def request(root: Path, config: Config, into: str = "bundle") -> TrainRequest:
    """Return the request to train a project into a folder in it."""
    return TrainRequest(root=root, config=config, into=root / "out" / into)
