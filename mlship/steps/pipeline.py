"""The input of every step: the project's Config and its ports, composed once by `mlship.wire`."""

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from mlship import files
from mlship.config.project import Config, TargetConfig
from mlship.domain import bundle as bundles
from mlship.domain import checkpoint, digests, evidence, history, home, retention, shapes
from mlship.domain.commit import Commit, named
from mlship.domain.deployment import Artifact, TargetName
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record, Saw, Step, Verdict
from mlship.domain.facts import Facts
from mlship.domain.fence import KERNEL, Fence, Locks
from mlship.domain.gates import ContainerTest
from mlship.domain.inputs import Inputs
from mlship.domain.policy import Occupied
from mlship.domain.ports import (
    Clock,
    Engine,
    Forge,
    Images,
    Ledger,
    Observations,
    Predictor,
    Progress,
    Source,
    Store,
    Target,
    Tester,
    Trainer,
)
from mlship.domain.records import Records
from mlship.domain.release import Release, find
from mlship.domain.removal import Removals
from mlship.domain.tls import Certified
from mlship.domain.trust import UNSIGNED, Signatures, check_trusted
from mlship.errors import IntegrityError, NotFoundError
from mlship.steps.fenced import FencedLedger, FencedStore

STAGING: Final = "staging"
PRODUCTION: Final = "production"
_FORGET: Final = (
    "restore them, and find out who can write to the ledger; if you restored it from a backup "
    "yourself, run `mlship ledger verify --forget`"
)


class Targets(Protocol):
    """Gives the target with a name."""

    def __call__(self, name: str, fence: Fence = KERNEL) -> Target:
        """Return the target; its changes are checked with the fence of its lock."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A project and its ports.

    Attributes:
        root: the project's folder, which contains mlship.yaml.
        state: mlship's own folder in it, `.mlship`.
        actor: who runs the step, for the evidence.
        home: of the project, for the evidence; see `mlship.domain.home`.
        shares_ledger: whether the ledger may have records of other projects.
        overridden: the settings that an option or a variable sets, not mlship.yaml.
        target: returns the target with a name.
        fence: of the lock that is held, see `under`.
        signatures: who signs the records of the ledger, and whose records count.
        api_key: for requests to a target; empty for none.
        images: returns the image builder, loaded by the steps that need it.
        engine: connects to the container engine, for the step that needs it.
        before_training: starts loading, in the background, the libraries of training.
        load_ahead: starts loading, in the background, the modules that the end of a step needs.
    """

    root: Path
    state: Path
    config: Config
    actor: str
    clock: Clock
    progress: Progress
    source: Source
    trainer: Trainer
    tester: Tester
    predictor: Predictor
    ledger: Ledger
    locks: Locks
    store: Store
    observations: Observations
    removals: Removals
    forge: Forge
    target: Targets
    images: Callable[[], Images]
    engine: Callable[[], AbstractContextManager[Engine]]
    before_training: Callable[[], None] = lambda: None
    load_ahead: Callable[[], None] = lambda: None
    home: str = home.UNKNOWN
    shares_ledger: bool = False
    overridden: tuple[str, ...] = ()
    fence: Fence = KERNEL
    signatures: Signatures = UNSIGNED
    api_key: str = dataclasses.field(default="", repr=False)

    def under(self, held: str, lock: Fence) -> "Pipeline":
        """Return the pipeline for the holder of a target's lock: its changes are fenced.

        A target refuses writes of a former holder itself. A ledger and a store cannot: the lock is
        looked at before each write, and records show who wrote out of turn.
        """

        def target(name: str, fence: Fence = KERNEL) -> Target:
            return self.target(name, lock if name == held else fence)

        return dataclasses.replace(
            self,
            ledger=FencedLedger(self.ledger, lock),
            store=FencedStore(self.store, lock),
            target=target,
            fence=lock,
        )

    def target_config(self, name: str) -> TargetConfig:
        """Return the settings of a target; the defaults if mlship.yaml does not name it."""
        return self.config.targets.get(name, TargetConfig())

    def read(self, known: Records | None = None) -> Records:
        """Return the records that the command has read already, or read the ledger.

        A command reads it once; if it changes a target, once more under the lock.

        Raises:
            ConflictError: it has records of another project of this name.
            IntegrityError: it has records of this project, and none of them is trusted.
        """
        records = self.look(known)
        home.check_records(records.others, self.config.name, self.home)
        check_trusted(records.listed, records.untrusted)
        return records

    def look(self, known: Records | None = None) -> Records:
        """Return what `read` returns, also beside another project of this name."""
        if known is not None:
            return known
        memory = self.signatures.memory
        # First what this machine has seen: another command may append while the ledger is read.
        seen = memory.seen()
        kept = tuple(self.ledger.records())
        # Whoever deletes a ledger of their own begins anew.
        if kept or self.shares_ledger:
            checkpoint.check(seen, (each.digest for each in kept), "this machine", _FORGET)
        sift = self.signatures.sift
        records = (
            Records.of(kept, self.config.name, self.home, sift)
            if self.shares_ledger
            else Records.alone(kept, sift)
        )
        heads = evidence.heads(records.listed)
        if frozenset(heads) != seen:
            memory.keep(heads)
        return records

    def check_may(self, *steps: Step) -> None:
        """Check that records of these steps will count, before anything is done for them.

        Raises:
            ConfigError: this machine has no key, or `trust` in mlship.yaml does not let its signer
                say so.
        """
        self.signatures.check_may(steps, self.clock())

    def learn(
        self,
        release: Release,
        step: Step,
        verdict: Verdict,
        facts: Facts,
        saw: Saw | None = None,
        *,
        after: Records | None = None,
    ) -> Record:
        """Append evidence to the ledger and return its record.

        Args:
            release: the subject of the evidence.
            step: the step that produced it.
            verdict: of the step.
            facts: the results, in the shape of the step.
            saw: the digests of the step's inputs.
            after: the records that the step has read; by default the ledger is read again.

        Raises:
            ConfigError: the record would not count, see `check_may`; nothing was added.
        """
        self.check_may(step)
        made = Evidence(
            release=release,
            step=step,
            verdict=verdict,
            facts=shapes.stored(step, facts),
            saw=saw or Saw(),
            actor=self.actor,
            time=self.clock(),
            home=self.home,
            fence=self.fence.number,
        )
        record = self.ledger.append(made, after=None if after is None else after.heads)
        self.signatures.memory.keep([record.digest])
        return record

    def release(self, reference: str | None = None, records: Records | None = None) -> Release:
        """Return the release of a reference: a name, a role, or by default the current commit.

        Args:
            reference: `iris@3f9a0c12be77`, `champion` or `challenger`.
            records: the records that the command has read; by default the ledger is read.

        Raises:
            NotFoundError: there is none.
        """
        records = self.read(records)
        if reference in ("champion", "challenger"):
            roles = records.history
            player = roles.champion if reference == "champion" else roles.challenger
            if player is None:
                raise NotFoundError(
                    f"production has no {reference}",
                    hint="run `mlship deploy-production`; `mlship status` shows what runs",
                )
            return player
        if reference is not None:
            return find(reference, list(records.releases))
        commit, inputs = self.source.commit(), self.trainer.inputs()
        release = self.made_from(records, commit, inputs)
        if release is None:
            raise _not_made(records, commit, inputs)
        return release

    def made_from(self, records: Records, commit: Commit, inputs: Inputs) -> Release | None:
        """Return the release that was trained from a tree before, `None` where none was."""
        return history.made_from(records, commit, inputs, self.trainer.current)

    def policy(self, gate: Literal["test", "staging", "container"]) -> Digest:
        """Return the digest of a gate's bounds; evidence with other bounds does not count."""
        staging, image = self.target_config(STAGING), self.config.image
        gates = self.config.gates
        bounds: dict[str, Any] = {
            # Without a new setting, evidence of former versions counts.
            "test": (
                *(gates.test, gates.baseline, gates.min_rows),
                *(() if gates.compatible else ("incompatible",)),
            ),
            "staging": gates.staging,
            "container": {
                "memory": image.memory,
                "max_mb": image.max_mb,
                "ready_seconds": staging.ready_seconds,
                "drain_seconds": staging.drain_seconds,
            },
        }
        return digests.of_value(bounds[gate])

    def container_test(self, *names: str) -> ContainerTest:
        """Return whether releases need the container test for these targets."""
        if all(self.target_config(name).kind == "local" for name in names):
            return "no image"
        return "asked for" if self.config.gates.container else "not asked for"

    @property
    def occupied(self) -> Occupied | None:
        """What a merge to main does while a challenger runs; `None` if no job deploys it."""
        is_local = self.target_config(PRODUCTION).kind == "local"
        return None if is_local else self.config.workflows.challenger

    @property
    def needs_router(self) -> bool:
        """Whether mlship brings its own parent to a target: it is in a cluster, and names none."""
        targets = [each for each in self.config.targets.values() if each.load_balancer is None]
        return any(each.kind != "local" and each.kubernetes.gateway is None for each in targets)

    def certificate(self, target: str) -> Path | None:
        """Return a file with the certificate of mlship's own load balancer; `None` without TLS.

        One of a Secret is kept in the state.

        Raises:
            NotFoundError, ConfigError, UnavailableError: the Secret cannot be used.
        """
        settings = self.config.targets.get(target)
        if settings is None:
            return None
        if settings.tls is not None:
            return self.root / settings.tls.certificate
        if settings.kind == "local" or settings.kubernetes.tls_secret is None:
            return None
        made = self.target(target)
        text = made.certificate() if isinstance(made, Certified) else None
        if text is None:
            return None
        path = self.state / "certificates" / f"{target}.pem"
        files.make_private(self.state)
        files.make_private(path.parent)
        files.write_atomically(path, text)
        return path

    def loses_predictions(self) -> bool:
        """Return whether predictions of production are stored only in its pods."""
        is_local = self.target_config(PRODUCTION).kind == "local"
        return not is_local and self.config.observations.url is None

    def bundle(self, release: Release) -> Path:
        """Return the folder of a release's bundle, verified; fetched from the store if needed.

        Raises:
            NotFoundError: neither this machine nor the store has it.
            IntegrityError: the bundle in the store has another digest.
        """
        folder = self.bundle_folder(release.bundle)
        if folder.is_dir():
            try:
                bundles.read(folder, expected=release.bundle)
            except (IntegrityError, NotFoundError):
                self.progress.note(f"the copy in {folder} is damaged; fetching it again")
                shutil.rmtree(folder)
            else:
                return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self.store.fetch(release, folder)
        except IntegrityError as error:
            raise IntegrityError(
                f"the bundle of {release} in the store is damaged: {error.message}",
                hint="restore the store from a backup, or check out commit "
                f"{release.commit[:12]} and run `mlship train --anew`",
            ) from error

    def bundle_folder(self, bundle: Digest) -> Path:
        """Return the folder for the bundle of a digest on this machine."""
        return self.state / "bundles" / digests.short(bundle)

    def attachments(self, release: Release) -> Path:
        """Return the folder for the attachments of a release on this machine."""
        return self.state / "attachments" / digests.short(release.id)

    def artifact(self, release: Release, target: TargetName, records: Records) -> Artifact:
        """Return the artifact of a release for a target: its bundle, or its pushed image.

        Raises:
            NotFoundError: the target runs images, and the release has none in a registry.
        """
        if self.target_config(target).kind == "local":
            folder = self.bundle(release)
            return Artifact(kind="bundle", digest=release.bundle, location=str(folder))
        image = retention.pushed_image(records, release, f", and target {target} runs images")
        return Artifact(
            kind="image",
            digest=digests.parse(image.digest),
            location=image.reference,
            router=image.router,
        )


def _not_made(records: Records, commit: Commit, inputs: Inputs) -> NotFoundError:
    """Return the error for a tree without a release; it names one that differs in its inputs."""
    changes = f" with uncommitted changes ({named(commit.changes)})" if commit.dirty else ""
    message = f"commit {commit.sha[:12]}{changes} has no release yet"
    trained = {record.evidence.release for record in records if record.evidence.step == "train"}
    own = [release for release in records.releases if release.commit == commit.sha]
    own = [release for release in own if release in trained]
    if commit.dirty:
        hint = "restore or commit them and run `mlship train`, or name a release"
        return NotFoundError(
            message, hint=f"{hint}: with these changes, its tests do not count for production"
        )
    if not own:
        return NotFoundError(message, hint="run `mlship train`, or name a release")
    last = own[-1]
    parts = {
        "data": last.data != inputs.data,
        "params": last.params != inputs.params,
        "installed packages": last.environment != inputs.environment,
    }
    other = [name for name, is_other in parts.items() if is_other] or ["files or settings"]
    return NotFoundError(
        f"{message} from these inputs; {last} of this commit was made with other "
        f"{' and '.join(other)}",
        hint="run `mlship train`; or give the same --set and MLSHIP_* variables as for its "
        f"training; or name it: {last}",
    )
