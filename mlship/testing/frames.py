"""The fixtures `model` and `data`: the served model and the project's data, as DataFrames."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from mlship.config.data import DataConfig
from mlship.testing.clients import SanityClient
from mlship.training import data as datas
from mlship.training.columns import rows_of

_BATCH = 1_000


@dataclass(frozen=True)
class Tables:
    """The project's data, as `mlship train` reads them.

    Attributes:
        train: the training rows, with the columns to predict.
        test: the held-out rows, likewise.
        targets: the columns to predict; none for a task without a target.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    targets: tuple[str, ...]

    @property
    def target(self) -> str:
        """The column to predict, the first one if there are several; empty if there is none."""
        return self.targets[0] if self.targets else ""

    def copy(self) -> "Tables":
        """Return copies, which a test may change."""
        return Tables(self.train.copy(), self.test.copy(), self.targets)


class ServedModel:
    """The model as it is served: what it answers to DataFrames.

    Args:
        client: asks it.
        targets: the columns that it predicts, which rows may hold.
    """

    def __init__(self, client: SanityClient, targets: Sequence[str]) -> None:
        self._client = client
        self._targets = list(targets)

    def predict(self, rows: pd.DataFrame) -> Any:
        """Return the predicted labels or numbers.

        Args:
            rows: in the columns of the data; those of the targets are left out.

        Returns:
            an array of shape (n,), or a DataFrame with a column for each of several targets.

        Raises:
            httpx.HTTPStatusError: the model refuses a row; the message has the reason.
        """
        outputs = self.outputs(rows)
        if len(self._targets) > 1:
            return outputs[self._targets]
        column = self._targets[0] if self._targets else outputs.columns[0]
        return np.asarray(outputs[column])

    def outputs(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return all outputs, with the index of `rows`: also probabilities and quantiles.

        Raises:
            httpx.HTTPStatusError: the model refuses a row; the message has the reason.
        """
        asked = rows_of(rows.drop(columns=[name for name in self._targets if name in rows]))
        answers = [
            answer
            for start in range(0, len(asked), _BATCH)
            for answer in self._client.predict(asked[start : start + _BATCH])
        ]
        return pd.DataFrame(answers, index=rows.index).drop(columns="id", errors="ignore")


def read(settings: str) -> Tables:
    """Return the data of the project in the current folder.

    Args:
        settings: the section `data` of mlship.yaml, as JSON.
    """
    config = msgspec.json.decode(settings, type=DataConfig)
    found = datas.read(Path.cwd(), config)
    train = pd.concat([found.train, *(target.train for target in found.targets)], axis=1)
    test = pd.concat([found.test, *(target.test for target in found.targets)], axis=1)
    return Tables(train, test, found.names)
