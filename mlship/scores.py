"""Values of training and testing: what went in, and how well a model did on held-out data."""

from typing import Literal

import msgspec

from mlship.bundle import Row, Task, Value
from mlship.digests import Digest

Suite = Literal["unit", "sanity"]


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of all that a training depends on, known before it starts."""

    data: Digest
    params: Digest
    code: Digest
    environment: Digest


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A difference with its confidence interval: this release minus the champion."""

    estimate: float
    low: float
    high: float


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """How a release, and the champion where there is one, did on the same held-out rows.

    Attributes:
        data: the digest of the held-out data.
        samples: its number of rows.
        metrics: of this release; a metric that came out as NaN or infinite is the text of it.
        champion: of the champion, empty where there is none or it cannot read these rows.
        champion_error: why the champion could not be scored, for people.
        differences: for each metric of both; `method` and `confidence` say of what kind.
        labels: the classes, in the order of `confusion`; empty for a regression.
        confusion: rows are the true class, columns the predicted one.
        plots: file names of the pictures that were drawn, in the folder given.
    """

    task: Task
    data: Digest
    samples: int
    metrics: dict[str, float | str]
    champion: dict[str, float | str] = {}
    champion_error: str = ""
    differences: dict[str, Interval] = {}
    method: str = "paired bootstrap, 2,000 resamples"
    confidence: float = 0.95
    labels: tuple[Value, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    plots: tuple[str, ...] = ()


class TestRun(msgspec.Struct, frozen=True, kw_only=True):
    """What pytest said of a suite. `failures` holds one line for each failed test."""

    __test__ = False

    suite: Suite
    passed: int
    failed: int
    skipped: int
    seconds: float
    failures: tuple[str, ...] = ()


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a bundle's golden examples: a row and the outputs that it must give."""

    inputs: Row
    outputs: Row
