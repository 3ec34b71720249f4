"""Values of training and testing: what went in, and how well a model did on held-out data."""

from typing import Literal

import msgspec

from mlship.domain.bundle import Row, Task, Value
from mlship.domain.digests import Digest
from mlship.domain.profiles import Profile

Suite = Literal["unit", "sanity"]


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of all that a training depends on, known before it starts."""

    data: Digest
    params: Digest
    code: Digest
    environment: Digest


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a training made.

    Attributes:
        bundle: the digest of the sealed bundle.
        notes: what a person should know: why ONNX was not used.
        profile: what the training data look like.
    """

    bundle: Digest
    format: str
    rows: int
    features: int
    notes: tuple[str, ...] = ()
    profile: Profile | None = None


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A difference with its confidence interval: this release minus the champion."""

    estimate: float
    low: float
    high: float


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the held-out rows: those that have a value in a column, and how both did on them.

    Attributes:
        column: the column's name, made by users, as `value` is; both are cut.
        value: the value, or the range of numbers; `(missing)` for the rows that have none.
        difference: release minus champion, corrected for the number of slices looked at.
        is_worse: the whole interval lies on the bad side of zero.
    """

    column: str
    value: str
    samples: int
    release: float
    champion: float
    difference: Interval
    is_worse: bool


class Slices(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out rows in slices: where a release is worse though it may be better on average.

    Attributes:
        metric: what is compared on each slice.
        judged: slices with enough rows; the intervals hold for all of them at once.
        small: slices with too few rows to say anything.
        left_out: columns and values beyond the most that are looked at.
        worse: how many of those judged got worse.
        listed: the worst of those judged first, not all where they are many.
    """

    metric: Literal["accuracy", "mae"]
    judged: int = 0
    small: int = 0
    left_out: int = 0
    worse: int = 0
    confidence: float = 0.95
    method: str = ""
    listed: tuple[Slice, ...] = ()


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
        slices: both on parts of the rows, `None` where there is no champion to compare with.
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
    slices: Slices | None = None


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
