"""Values of training and testing: results, and scores on held-out data."""

from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from mlship.domain.bundle import Row, Task, Value
from mlship.domain.digests import Digest
from mlship.domain.inputs import Opened
from mlship.domain.profiles import Profile

Suite = Literal["unit", "sanity"]


class Server(NamedTuple):
    """Whom the client of a suite asks; by https it trusts the certificate only, if there is one."""

    url: str
    certificate: Path | None = None


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a training.

    Attributes:
        bundle: the digest of the bundle.
        notes: remarks for people, such as why ONNX was not used.
        profile: the profile of the training data.
        opened: the project's files that were read and written.
        outputs: the files that it wrote, also those that git ignores.
        exposed: why the model may know the held-out rows; empty if nothing says so.
    """

    bundle: Digest
    format: str
    rows: int
    features: int
    notes: tuple[str, ...] = ()
    profile: Profile | None = None
    opened: Opened = Opened()
    outputs: tuple[str, ...] = ()
    exposed: str = ""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A difference with its confidence interval: this release minus the champion."""

    estimate: float
    low: float
    high: float


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out rows with one value in a column, and how release and champion did on them.

    Attributes:
        column: the name of the column; untrusted text like `value`; both are truncated.
        value: the value, or a range of numbers; `(missing)` for rows without a value.
        difference: release minus champion, corrected for the number of slices.
        is_worse: whether the whole interval lies on the worse side of zero.
    """

    column: str
    value: str
    samples: int
    release: float
    champion: float
    difference: Interval
    is_worse: bool


class Slices(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out rows in slices: a release may be better on average but worse on some slices.

    Attributes:
        metric: the metric that is compared on each slice.
        judged: slices with enough rows; the intervals hold for all of them simultaneously.
        small: slices with too few rows to judge.
        left_out: columns and values beyond the limit.
        worse: how many of the judged slices are worse.
        listed: judged slices, the worst first; only the first ones if there are many.
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
    """The scores of a release, and of the champion if there is one, on the same held-out rows.

    Attributes:
        data: the digest of the held-out data.
        samples: its number of rows.
        metrics: metrics of this release; a metric that is NaN or infinite is stored as text.
        targets: the targets if there are several; each metric is then `NAME[TARGET]`, and the
            mean over all of them `NAME`.
        baseline: metrics of the constant answer that the training targets suggest: their most
            frequent class with its frequencies, or their mean.
        repeated: how many held-out rows are in the training data too, with the same target.
        champion: metrics of the champion; empty if there is none or it cannot be scored.
        champion_error: why the champion could not be scored, for people.
        differences: release minus champion for each common metric, by `method` at `confidence`.
        labels: the classes, in the order of `confusion`; empty for a regression or several targets.
        confusion: the confusion matrix: rows are true classes, columns are predicted classes.
        plots: file names of the plots, in the given folder.
        slices: scores on parts of the rows; `None` without a champion to compare with.
    """

    task: Task
    data: Digest
    samples: int
    metrics: dict[str, float | str]
    targets: tuple[str, ...] = ()
    baseline: dict[str, float | str] = {}
    repeated: int = 0
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
    """The result of pytest for a suite.

    Attributes:
        failures: one line per failed test.
        deselected: the tests that were collected and then left out, by options or by a hook.
        wrote: the files that the tests changed or left behind, and that git does not ignore.
    """

    __test__ = False

    suite: Suite
    passed: int
    failed: int
    skipped: int
    seconds: float
    failures: tuple[str, ...] = ()
    deselected: int = 0
    wrote: tuple[str, ...] = ()


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """A golden example of a bundle: a row and its expected outputs."""

    inputs: Row
    outputs: Row
