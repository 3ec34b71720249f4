"""The facts of each step as values: the step writes one, gates and reports read it.

Every field has a default: older evidence has fewer. `shapes` maps each step to its struct.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

from mlship.domain.attachments import Attachments
from mlship.domain.bundle import Value
from mlship.domain.checks import Check
from mlship.domain.commit import Commit
from mlship.domain.deployment import Role, Slot, Split
from mlship.domain.digests import Digest
from mlship.domain.image import Builder, Image, PlatformImage, reference
from mlship.domain.inputs import Opened
from mlship.domain.profiles import Profile
from mlship.domain.scores import Interval, Slices
from mlship.domain.shifts import Shifts
from mlship.domain.suites import SuiteRun
from mlship.domain.versions import Alias

Number = float | str | None
"""A number in evidence: a non-finite number is text, a missing number is null."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a step."""


class Timed(Facts, frozen=True):
    """The facts of a step with its duration in seconds."""

    seconds: Number = None


class Judged(Timed, frozen=True):
    """The facts of a step with a gate, and the gate's checks."""

    checks: tuple[Check, ...] = ()


class Trained(Timed, frozen=True):
    """The facts of `train`.

    Attributes:
        uncommitted: the uncommitted changes that it was trained with, for people.
        opened: the project's files that the training read and wrote.
        outputs: the digests of the files that it wrote and that are kept with the release.
        data: the training data, as mlship.yaml names it, without credentials.
        rows: of the training data; `features` are the columns that the model gets of it.
        attachments: files that reports show; `exposed` is why the model may know held-out rows.
    """

    commit: Commit | None = None
    uncommitted: str = ""
    opened: Opened = Opened()
    notes: tuple[str, ...] = ()
    format: str = ""
    metrics: dict[str, Number] = {}
    params: dict[str, Any] = {}
    profile: Profile | None = None
    outputs: dict[str, Digest] = {}
    data: str = ""
    held_out: str = ""
    rows: int = 0
    features: int = 0
    attachments: Attachments = Attachments()
    exposed: str = ""


class Claimed(Facts, frozen=True):
    """What a job that ran unreviewed code says of a training or a test.

    Attributes:
        branch: of the workflow run, and `run` its page; who recorded the claim knows both.
    """

    branch: str = ""
    run: str = ""
    metrics: dict[str, Number] = {}
    params: dict[str, Any] = {}
    checks: tuple[Check, ...] = ()


class Between(msgspec.Struct, frozen=True, kw_only=True):
    """A difference with its interval: this release minus the champion."""

    estimate: Number = None
    low: Number = None
    high: Number = None

    @classmethod
    def of(cls, interval: Interval) -> "Between":
        """Return a computed interval for evidence."""
        return cls(estimate=interval.estimate, low=interval.low, high=interval.high)


class Checked(Judged, frozen=True):
    """The facts of a step that ran tests of the project.

    Attributes:
        differs: what was not as in the release's commit, for people: such a pass does not count
            for production.
    """

    tests: tuple[SuiteRun, ...] = ()
    differs: str = ""


class Tested(Checked, frozen=True):
    """The facts of `test`."""

    task: str = ""
    samples: int = 0
    metrics: dict[str, Number] = {}
    champion: dict[str, Number] = {}
    champion_release: str | None = None
    champion_error: str = ""
    differences: dict[str, Between] = {}
    method: str = ""
    confidence: Number = None
    labels: tuple[Value, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    plots: tuple[str, ...] = ()
    slices: Slices | None = None
    shifts: Shifts | None = None


class Containerized(Timed, frozen=True):
    """The image that `containerize` built; sizes are compressed bytes.

    Attributes:
        base: the base image by digest; `base_name` is the configured name.
    """

    reference: str = ""
    digest: Digest = Digest("")
    builder: Builder = "oci"
    tag: str = ""
    base: str = ""
    base_name: str = ""
    size: int = 0
    platforms: tuple[PlatformImage, ...] = ()

    @classmethod
    def of(cls, image: Image, *, base_name: str, seconds: float) -> "Containerized":
        """Return the facts of an image."""
        return cls(
            reference=f"{image.name}@{image.digest}",
            digest=image.digest,
            builder=image.builder,
            tag=image.tag,
            base=str(image.base),
            base_name=base_name,
            size=image.size,
            platforms=image.platforms,
            seconds=seconds,
        )

    def image(self, name: str) -> Image:
        """Return the image, for a repository of that name."""
        return Image(
            name=name,
            tag=self.tag,
            digest=self.digest,
            base=reference(self.base),
            builder=self.builder,
            platforms=self.platforms,
        )


class PushedImage(Timed, frozen=True):
    """The image that `push-to-registry` pushed.

    Attributes:
        size: in compressed bytes, as `sent`; `there` and `mounted` count layers that were not sent.
        router: the load balancer by digest, if a target needs it; `attached` documents by name.
    """

    reference: str = ""
    digest: Digest = Digest("")
    tag: str = ""
    size: int = 0
    sent: int = 0
    there: int = 0
    mounted: int = 0
    router: str = ""
    attached: dict[str, Digest] = {}


class Contained(Checked, frozen=True):
    """The facts of `test --container`; sizes in bytes, except `max_mb`."""

    reference: str = ""
    ready_seconds: Number = None
    size: Number = None
    max_mb: int | None = None
    memory: str = ""
    requests: int = 0
    errors: int = 0
    mismatches: int = 0
    p99_ms: Number = None
    differences: tuple[str, ...] = ()


class Staged(Timed, frozen=True):
    """The facts of `deploy-staging`."""

    target: str = ""
    endpoint: str = ""
    replicas: int = 0


class Verified(Checked, frozen=True):
    """The facts of `verify-staging-workload`."""

    endpoint: str = ""
    requests: int = 0
    errors: int = 0
    mismatches: int = 0
    p50_ms: Number = None
    p99_ms: Number = None
    differences: tuple[str, ...] = ()


class Proposed(Facts, frozen=True):
    """The pull request `head` -> `base` that `open-release-pr` opened or updated."""

    url: str = ""
    head: str = ""
    base: str = ""


class Drifted(Facts, frozen=True):
    """The facts of `reconcile` and `adopt`: each difference that was undone, or accepted."""

    differences: tuple[str, ...] = ()


class Evaluated(Facts, frozen=True):
    """The facts of `evaluate`.

    Attributes:
        since: outcomes of earlier predictions do not count; `outcomes` are all known ones.
        reason: of the verdict, for people; `undelivered` predictions are known to be on their way.
        erased: predictions of both that were erased since; they do not count any more.
        corrected: outcomes of the compared predictions that replaced another one.
    """

    champion: str = ""
    metric: str = ""
    method: str = ""
    confidence: Number = None
    champion_mean: Number = None
    challenger_mean: Number = None
    champion_n: Number = 0
    challenger_n: Number = 0
    estimate: Number = None
    low: Number = None
    high: Number = None
    reason: str = ""
    since: datetime | None = None
    outcomes: int = 0
    undelivered: int = 0
    erased: int = 0
    corrected: int = 0


class Approved(Facts, frozen=True):
    """An approval; `url` is the review, empty for an approval by hand."""

    by: str = ""
    comment: str = ""
    url: str = ""


class Withdrawn(Facts, frozen=True):
    """A withdrawn approval; `reason` is the account's last decision."""

    by: str = ""
    url: str = ""
    reason: str = ""


class Waiting(Facts, frozen=True):
    """The facts of `await-production`: a release waits until production has no challenger.

    Attributes:
        behind: the challenger that runs.
        policy: with `wait`, the release takes the place of others that wait; with `queue`, each
            has its turn.
        checks: those of the release for production.
    """

    behind: str = ""
    policy: Literal["wait", "queue"] = "wait"
    checks: tuple[Check, ...] = ()


class Part(Facts, frozen=True):
    """The facts of a sub-step; `operation` identifies its transition."""

    operation: str = ""


class Capacity(Part, frozen=True):
    """The number of replicas in the slot of the release."""

    replicas: int = 0
    slot: Slot = Slot("")


class Routed(Part, frozen=True):
    """The traffic split of production, in percent."""

    weights: dict[Slot, int] | None = None
    shadow: Slot | None = None

    @property
    def split(self) -> Split | None:
        """The split; `None` if the evidence has none."""
        return None if self.weights is None else Split(weights=self.weights, shadow=self.shadow)


class Aliased(Part, frozen=True):
    """The alias of the release in the registry; `None` if an alias was only removed."""

    alias: Alias | None = None


class GatePassed(Part, frozen=True):
    """The checks that let a release become champion."""

    checks: tuple[Check, ...] = ()


class Archived(Part, frozen=True):
    """The release that was archived, if there was one."""

    archived: str | None = None


class Restored(Part, frozen=True):
    """The release that is no longer archived."""

    restored: str = ""


class Displaced(Part, frozen=True):
    """The challenger that was replaced."""

    displaced: str = ""


class Removed(Part, frozen=True):
    """The slot that was removed."""

    slot: Slot = Slot("")


class Completed(Part, frozen=True):
    """The facts of the last record of a transition."""

    seconds: Number = None


class Deployed(Completed, frozen=True):
    """The facts of `deploy-production`.

    Attributes:
        weight: its percentage of the traffic; `champion` has the rest. `cluster`: one of several.
        predictions_last: whether predictions are kept when the replicas stop.
        same_model: whether its bundle is the champion's, byte for byte.
    """

    role: Role = ""
    weight: int = 0
    shadow: bool = False
    endpoint: str = ""
    champion: str | None = None
    predictions_last: bool = True
    same_model: bool = False
    cluster: str = ""
    checks: tuple[Check, ...] = ()


class Crowned(Completed, frozen=True, rename={"old": "from", "new": "to"}):
    """The facts of `promote` and `rollback`: the champion before and after."""

    old: str | None = None
    new: str = ""


class Retired(Completed, frozen=True):
    """The facts of `retire`: the role that the release had."""

    role: Role = ""
