"""What steps ask of the world: Protocols of at most five methods. Adapters implement them.

Every method raises errors of `mlship.errors` only. A method that changes something is idempotent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from mlship.domain.bundle import Row
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
from mlship.domain.prediction import Outcome, Prediction, Taken
from mlship.domain.pullrequest import Posted, PullRequest, Reviews
from mlship.domain.release import Release
from mlship.domain.scores import Inputs, Scores, Suite, TestRun, Trained
from mlship.domain.versions import Alias, Run, Version


class Clock(Protocol):
    """Tells the time, with a zone."""

    def __call__(self) -> datetime:
        """Return now."""


class Progress(Protocol):
    """Hears what a step is at. It shows it, or nothing."""

    def note(self, text: str) -> None:
        """Take in one short line: `champion: 1 of 2 replicas ready`."""


class Ledger(Protocol):
    """Keeps evidence. It never edits and never removes."""

    def append(self, evidence: Evidence) -> Record:
        """Add evidence after the chain's heads, durably, and return it with its digest.

        Whatever the evidence names as its parents is replaced by the heads.

        Raises:
            UnavailableError: the ledger cannot be written; nothing was added.
            IntegrityError: the chain is broken.
        """

    def records(self) -> Sequence[Record]:
        """Return all records, verified, parents before children.

        Raises:
            IntegrityError: a record was changed or removed.
        """


class Locks(Protocol):
    """Lets one process at a time change a target. A killed holder holds nothing."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of that name.

        Raises:
            ConflictError: another process holds it; the message names who.
        """


class Store(Protocol):
    """The model registry: runs, versions and aliases of one project. Not the source of truth."""

    def record(self, run: Run) -> None:
        """Keep what is given of a release, in the one run of that release."""

    def fetch(self, release: Release, into: Path) -> Path:
        """Put the release's bundle into a folder that does not exist yet; return the folder.

        Raises:
            NotFoundError: the store has no bundle of that release.
            IntegrityError: its manifest is not the one that the release names.
        """

    def versions(self) -> Sequence[Version]:
        """Return the registered versions as they are now, oldest first. Starts fast."""

    def point(self, alias: Alias, release: Release | None) -> None:
        """Make an alias name a release's version, registered first where it is new.

        `None` removes the alias. Only a recorded release can be named (NotFoundError).
        """

    def archive(self, release: Release, *, archived: bool) -> None:
        """Tag the version of a release as archived, or take the tag away."""


class Target(Protocol):
    """A place where releases run in slots behind one weighted route."""

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        """Run so many replicas in a slot and return when all are ready. Traffic is untouched.

        Deploying what runs already changes nothing but the number of replicas; those taken away
        are drained first.

        Raises:
            TimedOutError: they did not get ready in time, with the reason a person needs. A new
                slot is removed again; other slots are as before.
            ConflictError: the slot holds another artifact.
        """

    def inspect(self) -> Mapping[Slot, Deployment]:
        """Return what is OBSERVED to run, slot by slot. Nothing is started for it."""

    def route(self, split: Split, *, expected: Revision) -> Revision:
        """Set the split by compare-and-set; return when it holds for every new request.

        Raises:
            ConflictError: the route is not at the expected revision; it stands as it was.
            NotFoundError: the split names a slot with no ready replica.
        """

    def routes(self) -> Route:
        """Return the split as it is; before the first `route`, one without weights."""

    def remove(self, slot: Slot) -> None:
        """Drain and stop a slot. One that does not exist is no error.

        Raises:
            ConflictError: the route still gives it traffic, or a copy of it.
        """


@runtime_checkable
class Declarative(Protocol):
    """A target that shows its objects before they are written. Errors as in `Target`."""

    def render(self, plan: Plan) -> Mapping[str, str]:
        """Return a plan's objects as text by file name, as where nothing is yet. Asks nobody."""

    def changes(self, plan: Plan) -> Sequence[Change]:
        """Return how carrying a plan out would change each object. Changes nothing."""


class Observations(Protocol):
    """Predictions that were logged and outcomes that arrived."""

    def predictions(self) -> Iterator[Prediction]:
        """Return every logged prediction, each (id, release) once, oldest first."""

    def find(self, prediction: str) -> Sequence[Prediction]:
        """Return the prediction of that id, then its shadow if it had one."""

    def outcomes(self) -> Sequence[Outcome]:
        """Return the outcomes in the order in which they arrived."""

    def take(self, outcomes: Iterable[Outcome]) -> Taken:
        """Add outcomes durably. One that is there already counts as known.

        Raises:
            ConflictError: a prediction already has another outcome; nothing was added.
        """


class Source(Protocol):
    """The git repository that the project lies in."""

    def commit(self) -> Commit:
        """Return the commit that is checked out.

        Raises:
            ProjectError: there is no repository, no commit, or no git.
        """


class Trainer(Protocol):
    """Runs the user's training code and scores models on held-out data, away from this process."""

    def inputs(self) -> Inputs:
        """Return the digests of all that training depends on. Runs no user code.

        Raises:
            ProjectError: a file that the configuration names is missing or cannot be read.
        """

    def train(self, into: Path) -> Trained:
        """Train, convert, check and seal a bundle in a new folder.

        Raises:
            ProjectError: the user's code or data is wrong; the message says where.
        """

    def score(self, bundle: Path, champion: Path | None, plots: Path) -> Scores:
        """Score a bundle, and the champion on the same held-out rows; draw plots into a folder.

        Raises:
            ProjectError: the data or the bundle's hooks are wrong.
        """


class Tester(Protocol):
    """Runs the user's tests."""

    def test(self, suite: Suite, *, bundle: Path | None, endpoint: str | None) -> TestRun | None:
        """Run a suite; `None` where the project has none.

        Sanity tests get a `client` of the bundle in process, or of an endpoint.
        """


class Predictor(Protocol):
    """Computes predictions from a bundle offline, in a process of its own."""

    def predict(self, bundle: Path, rows: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows, through the same path as serving.

        Raises:
            IntegrityError: the bundle is not what its manifest says.
            ProjectError: a row does not fit the schema, or a hook raised.
        """


class Comments(Protocol):
    """Posts the one comment of ours in a pull request."""

    def comment(self, number: int, body: str) -> Posted:
        """Post the comment, or replace the text of the one that was posted before.

        A fork's pull request whose job may not write is no error: nothing is posted.

        Raises:
            ConfigError: there is no token, or it may not write in a repository of its own.
            NotFoundError: there is no such pull request.
            UnavailableError: the forge does not answer, or wants to be left alone for long.
        """


class Forge(Comments, Protocol):
    """Pull requests of the repository, their comments and reviews. Errors as in `Comments`."""

    def get(self, number: int) -> PullRequest:
        """Return a pull request, open or not."""

    def find(self, *, branch: str = "", commit: str = "", base: str = "") -> PullRequest | None:
        """Return the newest open pull request from a branch, else one that brings a commit."""

    def open(self, head: str, base: str, title: str, body: str) -> Posted:
        """Open a pull request between two branches, or set title and body of the open one.

        Raises:
            RefusedError: the one branch has no commit that the other lacks.
            NotFoundError: there is no such branch.
        """

    def reviews(self, number: int) -> Reviews:
        """Return each account's last decision; a mere comment is none and changes none."""


class Summary(Protocol):
    """The page that a CI job shows of itself."""

    def append(self, render: Callable[[int], str]) -> Path | None:
        """Add what `render` makes of so many bytes of room; `None` where no room is left.

        Raises:
            ConfigError: no CI job runs that would show it.
        """


class Images(Protocol):
    """Makes container images of bundles and brings them where they are run. Known by digest."""

    def build(self, release: Release, bundle: Path, *, base: Digest | None) -> Image:
        """Make the image of a release on this machine, or find that it is there.

        The same release, bundle and base give the same digest, on this machine at least: what
        an engine built is kept, and not built again. `base` is the digest of the image to build
        on; `None` takes the one that the configured name means now.

        Raises:
            ConfigError: the base does not exist, or is for another platform or Python.
            ProjectError: a requirement has no build for the platform, or an instruction of the
                user's failed.
            UnavailableError: a registry, the package index or the engine that builds does not
                answer, or denies it.
        """

    def push(self, image: Image) -> Pushed:
        """Bring a built image to the registry: blobs that are missing, manifest, tag last.

        Raises:
            ConfigError: no repository is configured.
            NotFoundError: neither this machine nor the registry has the image.
            UnavailableError: the registry does not answer, or denies it; no tag was written.
            IntegrityError: the registry gives back another digest than was sent.
        """

    def save(self, image: Image, into: Path) -> None:
        """Write a built image, whole, to a file for `docker load`; missing layers are fetched.

        Raises:
            NotFoundError: the image was built on another machine.
        """

    def load(self, image: Image, archive: Path) -> None:
        """Take in the tarball of an image that `save` wrote, on this machine or another.

        Raises:
            NotFoundError: there is no such file.
            IntegrityError: it does not hold that very image.
        """


class Engine(Protocol):
    """Runs containers on this machine, to see an image work before others depend on it.

    Every method raises UnavailableError where the engine does not answer, or refuses.
    """

    def pull(self, reference: str) -> Local:
        """Return the image of a reference by digest; it is pulled where it is not there.

        Raises:
            NotFoundError: neither the engine nor the registry has it.
        """

    def load(self, archive: Path) -> Local:
        """Return the image of a tarball that `Images.save` wrote.

        Raises:
            IntegrityError: the file does not hold one image.
        """

    def run(self, image: Local, *, memory: str) -> AbstractContextManager[Container]:
        """Run a container of an image with no rights and so much memory; remove it at the end.

        Its root is read-only, /tmp apart; it answers at a loopback port of its own.
        """

    def observe(self, container: Container) -> Observed:
        """Return how a container is, with its last lines."""

    def stop(self, container: Container, seconds: float) -> Observed:
        """Send SIGTERM, SIGKILL after so many seconds; return how it ended."""


class Listener(Protocol):
    """Hears of each step. It shows the run, or nothing."""

    def started(self, step: str) -> None:
        """Take in that a step begins."""

    def finished(self, record: Record, *, reused: bool) -> None:
        """Take in what a step learnt; `reused` where it was proven before."""

    def skipped(self, step: str, why: str) -> None:
        """Take in that a step is left out."""
