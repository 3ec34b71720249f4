"""Ports: what steps need from the outside. Protocols of at most five methods.

Others are in `publishing`, `pullrequest`, `fence`, `clusters`, `referrers` and `inventory` of
`mlship.domain`.
Adapters implement them. A method raises only errors of `mlship.errors`, and a method that changes
something is idempotent.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from mlship.domain.bundle import Row, Value
from mlship.domain.commit import Commit
from mlship.domain.container import Container, Local, Observed
from mlship.domain.deployment import (
    Artifact,
    Change,
    Deployment,
    Plan,
    Revision,
    Route,
    Slot,
    Split,
)
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record
from mlship.domain.image import Image, Pushed
from mlship.domain.inputs import Inputs
from mlship.domain.inventory import Inventories
from mlship.domain.lineage import Lineage
from mlship.domain.prediction import Answer, Outcome, Prediction, Spool, Taken
from mlship.domain.publishing import Comments
from mlship.domain.pullrequest import Posted, PullRequest, Reviewing
from mlship.domain.referrers import Referrers
from mlship.domain.release import Release
from mlship.domain.scores import Scores, Server, Suite, TestRun, Trained
from mlship.domain.versions import Alias, Run, Version


class Clock(Protocol):
    """Returns the current time."""

    def __call__(self) -> datetime:
        """Return the current time, with a time zone."""


class Progress(Protocol):
    """Receives the progress of a step and may show it."""

    def note(self, text: str) -> None:
        """Report one short line, such as `champion: 1 of 2 replicas ready`."""


class Ledger(Protocol):
    """Stores evidence, append-only."""

    def append(self, evidence: Evidence, *, after: Sequence[Digest] | None = None) -> Record:
        """Append evidence after the heads of the chain, durably; return it with its digest.

        Args:
            evidence: what is appended; its parents are replaced by the heads.
            after: the heads of the records that the caller has read; nothing is read then. By
                default all records are read for them. A record that another process appended in
                between makes a fork, which the next record joins.

        Raises:
            UnavailableError: the ledger cannot be written; nothing was added.
            IntegrityError: the chain is broken.
        """

    def records(self) -> Sequence[Record]:
        """Return all records, verified, parents before children.

        Raises:
            IntegrityError: a record was changed or removed.
        """


class Store(Protocol):
    """The model registry: runs, versions and aliases of a project. Not the source of truth."""

    def record(self, run: Run) -> None:
        """Add the given facts to the run of a release; a release has exactly one run."""

    def fetch(self, release: Release, into: Path, *, files: Sequence[str] = ()) -> Path:
        """Copy the release's bundle, or `files` of its run, into a new folder; return it.

        Raises:
            NotFoundError: the store has no bundle of that release, or not these files.
            IntegrityError: its manifest does not match the release.
        """

    def versions(self) -> Sequence[Version]:
        """Return the current registered versions, oldest first. Loads no heavy library."""

    def point(self, alias: Alias, release: Release | None) -> None:
        """Set an alias to the version of a release, which is registered first if it is new.

        `None` removes the alias.

        Raises:
            NotFoundError: the release was never recorded.
        """

    def archive(self, release: Release, *, archived: bool) -> None:
        """Tag the version of a release as archived, or remove the tag."""


class Target(Protocol):
    """A place where releases run in slots behind one weighted route."""

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        """Run `replicas` replicas in a slot; return when all are ready. Traffic is unchanged.

        An artifact that runs there already only changes its replicas; surplus ones drain first.

        Raises:
            TimedOutError: they did not become ready in time; the message has the reason. A new
                slot is removed again; other slots are unchanged.
            ConflictError: another artifact runs in the slot.
        """

    def inspect(self) -> Mapping[Slot, Deployment]:
        """Return the OBSERVED deployments by slot. Starts nothing."""

    def route(self, split: Split, *, expected: Revision) -> Revision:
        """Set the split by compare-and-set; return when it applies to every new request.

        Raises:
            ConflictError: the route is not at the expected revision; it is unchanged.
            NotFoundError: the split names a slot without a ready replica.
        """

    def routes(self) -> Route:
        """Return the current split; before the first `route`, a split without weights."""

    def remove(self, slot: Slot) -> None:
        """Drain and stop a slot. If the slot does not exist, do nothing.

        Raises:
            ConflictError: the route still sends it requests, or copies.
        """


@runtime_checkable
class Declarative(Protocol):
    """A target that can show its objects before it writes them. Errors as in `Target`."""

    def render(self, plan: Plan) -> Mapping[str, str]:
        """Return the objects of a plan for an empty target, by file name. Needs no connection."""

    def changes(self, plan: Plan) -> Sequence[Change]:
        """Return how a plan would change each object. Changes nothing."""


class Observations(Protocol):
    """Logged predictions and outcomes, also of other projects: the ledger has a project's own."""

    def predictions(self, releases: Collection[Digest]) -> Iterator[Prediction]:
        """Return the logged predictions of releases, each (id, release) once, oldest first."""

    def find(self, prediction: str) -> Sequence[Prediction]:
        """Return the predictions of that id by any release, shadows last."""

    def outcomes(
        self, releases: Collection[Digest], parts: Collection[str] = ()
    ) -> Sequence[Outcome]:
        """Return the last outcome of each prediction, of releases or parts of batches, in order."""

    def take(
        self,
        outcomes: Iterable[Outcome],
        releases: Collection[Digest],
        *,
        corrects: bool = False,
        check: Callable[[Prediction], None] = lambda _: None,
        scored: Collection[str] = (),
    ) -> Taken:
        """Add outcomes durably, all or none. An outcome that was added before counts as known.

        Args:
            outcomes: to add.
            releases: of the project.
            corrects: whether one may replace another outcome of its prediction.
            check: is called with each prediction of releases that has one, and may raise.
            scored: ids of rows of batches, which no log has.

        Raises:
            ConflictError: it has another outcome, or is another project's; nothing was added.
        """

    def spools(self, releases: Collection[Digest]) -> Sequence[Spool]:
        """Return the spools of releases' replicas: predictions that `predictions` may lack."""


class Source(Lineage, Protocol):
    """The git repository of the project."""

    def commit(self) -> Commit:
        """Return the current commit.

        Raises:
            ProjectError: there is no repository or no commit, or git is not installed.
        """

    def differences(self, commit: str, beside: Iterable[str] = ()) -> Sequence[str]:
        """Return the files that are not as in a commit, and the ignored tests and settings."""


class Trainer(Protocol):
    """Runs the user's training code, and scores models and predictions, in other processes."""

    def inputs(self) -> Inputs:
        """Return what a training depends on, as far as it is known before. Runs no user code.

        Raises:
            ProjectError: a file that the configuration names is missing or cannot be read.
        """

    def current(self, paths: Iterable[str]) -> Mapping[str, Digest | None]:
        """Return the digests of files of the project as they are now, `None` for a missing one."""

    def train(self, into: Path) -> Trained:
        """Train, convert and verify a model, and write its bundle into a new folder.

        Raises:
            ProjectError: the user's code or data is invalid; the message has the location.
            ConflictError: a file that it read was changed meanwhile, not by the training itself.
        """

    def score(self, bundle: Path, champion: Path | None, plots: Path) -> Scores:
        """Score a bundle and the champion on the same held-out rows; write plots to a folder.

        Raises:
            ProjectError: the data or a hook of the bundle is invalid.
        """

    def rate(
        self, function: str, predictions: Sequence[Prediction], truth: Sequence[Value]
    ) -> Sequence[float]:
        """Return the score of each prediction against its outcome by the project's `function`.

        Raises:
            ProjectError: it fails or returns no number.
        """


class Tester(Protocol):
    """Runs the user's tests."""

    def test(self, suite: Suite, *, bundle: Path | None, server: Server | None) -> TestRun | None:
        """Run a suite with a `client` of the bundle or the server; `None` if there is none."""


class Predictor(Protocol):
    """Computes predictions from a bundle offline, in a separate process."""

    def predict(self, bundle: Path, rows: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows, computed by the same code as in serving.

        Raises:
            IntegrityError: the bundle does not match its manifest.
            ProjectError: a row does not fit the schema, or a hook raised.
        """

    def answers(
        self, bundle: Path, rows: Sequence[Row]
    ) -> AbstractContextManager[Callable[[], list[Answer]]]:
        """Start to predict; give a function that waits for each row's outputs or refusal.

        Raises:
            IntegrityError, ProjectError: as above; the model or a hook fails on any row.
        """


class Forge(Comments, Reviewing, Protocol):
    """Pull requests of the repository, their comments and reviews. Errors as in `Comments`."""

    def get(self, number: int) -> PullRequest:
        """Return a pull request, open or closed."""

    def find(self, *, branch: str = "", commit: str = "", base: str = "") -> PullRequest | None:
        """Return the newest open pull request from a branch, else one that contains a commit."""

    def open(self, head: str, base: str, title: str, body: str) -> Posted:
        """Open a pull request between two branches, or update title and body of the open one.

        Raises:
            RefusedError: `head` has no commits that `base` lacks.
            NotFoundError: there is no such branch.
        """


class Images(Referrers, Inventories, Protocol):
    """Builds container images from bundles and pushes them. Images are identified by digest."""

    def build(self, release: Release, bundle: Path, *, base: Digest | None) -> Image:
        """Build the image of a release, or return it if this machine has built it before.

        The same release, bundle and base give the same digest, at least on this machine: what a
        Docker engine built is kept and not built again. `base` is the digest of the base image;
        `None` resolves the configured name.

        Raises:
            ConfigError: the base does not exist, or is for another platform or Python.
            ProjectError: a requirement has no build, or an instruction of the user fails.
            UnavailableError: a registry, package index or engine does not respond or denies access.
        """

    def router(self, *, base: Digest) -> Image:
        """Build the image of the load balancer that mlship brings to a cluster.

        The same base and version of mlship give the same digest on every machine.

        Args:
            base: the digest of the base image, of the configured name.

        Raises:
            ConfigError: the base does not exist, or is for another platform.
            ProjectError: Envoy has no build for the platform.
            UnavailableError: a registry or the package index does not respond, or denies access.
        """

    def push(self, image: Image) -> Pushed:
        """Push a built image: first the missing blobs, then the manifest, the tag last.

        Raises:
            ConfigError: no repository is configured.
            NotFoundError: neither this machine nor the registry has the image.
            UnavailableError: the registry does not respond or denies access; no tag was written.
            IntegrityError: the registry reports another digest than the one that was sent.
        """

    def save(self, image: Image, into: Path) -> None:
        """Write a complete image to a file for `docker load`; missing layers are downloaded.

        Raises:
            NotFoundError: the image was built on another machine.
        """

    def load(self, image: Image, archive: Path) -> None:
        """Load the tarball of an image that `save` wrote, on this or another machine.

        Raises:
            NotFoundError: there is no such file.
            IntegrityError: it contains another image.
        """


class Engine(Protocol):
    """Runs containers on this machine, to test an image before it is deployed.

    Every method raises UnavailableError if the engine does not respond or refuses.
    """

    def pull(self, reference: str) -> Local:
        """Return the image of a reference by digest; pull it if the engine does not have it.

        Raises:
            NotFoundError: neither the engine nor the registry has it.
        """

    def load(self, archive: Path) -> Local:
        """Load the image from a tarball that `Images.save` wrote.

        Raises:
            IntegrityError: the file does not contain exactly one image.
        """

    def run(self, image: Local, *, memory: str) -> AbstractContextManager[Container]:
        """Run a container without capabilities and with a memory limit; remove it at the end.

        Its root file system is read-only, except /tmp. It listens on a loopback port.
        """

    def observe(self, container: Container) -> Observed:
        """Return the state of a container, with the last lines of its log."""

    def stop(self, container: Container, seconds: float) -> Observed:
        """Send SIGTERM, and SIGKILL after `seconds`; return how the container ended."""


class Listener(Protocol):
    """Receives the progress of a run, step by step, and may show it."""

    def started(self, step: str) -> None:
        """Report that a step started."""

    def finished(self, record: Record, *, reused: bool) -> None:
        """Report the record of a step; `reused` if it passed in an earlier run."""

    def skipped(self, step: str, reason: str) -> None:
        """Report that a step was skipped."""
