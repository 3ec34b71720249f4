"""Verification of an image: before each deployment, and by hand with `mlship verify`."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from mlship.config import attested
from mlship.domain import (
    admission,
    checkpoint,
    checks,
    retention,
    shapes,
    verification,
)
from mlship.domain.checks import Check
from mlship.domain.deployment import TargetName
from mlship.domain.evidence import Step
from mlship.domain.facts import PushedImage
from mlship.domain.image import Reference, reference
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.trust import Trust
from mlship.domain.verification import Verified, Wanted
from mlship.errors import ConfigError, RefusedError, UnavailableError
from mlship.steps.attestations import attestations
from mlship.steps.ledger import RESTORE
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline

_COMMANDS: Final = {
    "test": "test",
    "test-container": "test --container",
    "verify-staging-workload": "verify-staging-workload",
}
"""The commands of steps that can be missing."""

_NOBODY: Final = "nobody is named whose signatures count (`trust.signers` in mlship.yaml)"
_ANYBODY: Final = "records without a signature count (`trust.unsigned` in mlship.yaml)"


def verify_image(
    pipeline: Pipeline,
    image: Reference,
    target: TargetName,
    records: Records,
    release: Release | None = None,
) -> Verified:
    """Return whether an image in a registry may run in a target.

    Args:
        pipeline: the project, which says whose signatures count, and knows the ledger's jobs.
        image: by digest.
        target: staging or production.
        records: of the ledger. If it has none, those that are stated at the image count.
        release: that it must contain; `None` for any of the project.

    Raises:
        ConfigError: every signature counts, so that nothing can be verified.
        UnavailableError: the registry does not respond or denies access.
        IntegrityError: the registry's list of what is attached is damaged, or the ledger lacks
            records that it had when a statement was made.
    """
    if reason := _cannot(pipeline.signatures.trust()):
        hint = "name your signers, see `mlship guide signatures`"
        raise ConfigError(f"images cannot be verified: {reason}", hint=hint)
    digest = image.digest
    if digest is None:
        raise ConfigError(f"{image} has no digest", hint="give the image as NAME@sha256:...")
    config = pipeline.config
    wanted = Wanted(
        image=digest,
        project=config.name,
        home=pipeline.home,
        source=config.image.source,
        release=release,
        steps=_steps(pipeline, target),
        known=tuple(records),
        attested=attested.keys(config.trust.attested, pipeline.root),
    )
    found, unreadable = attestations(pipeline.images(), image)
    verified = verification.verify(found, unreadable, wanted, pipeline.signatures)
    if records:
        who = f"the release statement at {image}"
        checkpoint.check(verified.heads, records.accounted, who, RESTORE)
    return verified


def _cannot(trust: Trust) -> str:
    """Return why nothing can be verified; empty if it can."""
    if trust.unsigned:
        return _ANYBODY if trust.signers else _NOBODY
    return "" if trust.signers else _NOBODY


def check_image(
    pipeline: Pipeline, release: Release, target: TargetName, records: Records
) -> tuple[Check, ...]:
    """Verify the image of a release before it runs in a target; return the checks.

    There are none where a target runs bundles, where nothing is attached to images
    (`image.attach: off`), or where unsigned records count.

    Raises:
        NotFoundError: the release has no image in a registry.
        RefusedError: a check failed.
        UnavailableError, IntegrityError: as `verify_image`.
    """
    pipeline = pipeline.knowing(records)
    trust = pipeline.signatures.trust()
    artifact = pipeline.artifact(release, target, records)
    if artifact.kind != "image":
        return ()
    off = "image.attach is off" if pipeline.config.image.attach == "off" else ""
    if reason := off or _cannot(trust):
        pipeline.progress.note(f"the image is not verified: {reason}")
        return ()
    image = reference(artifact.location)
    pipeline.progress.note(f"verifying {image.name}")
    found = verify_image(pipeline, image, target, records, release)
    if found.decision.verdict != "passed":
        raise refused(str(image), found.decision.failed, release)
    return found.decision.checks


def check_anchors(pipeline: Pipeline, releases: Iterable[Release], records: Records) -> None:
    """Check that the ledger still has what was stated of it at the images of releases.

    A registry that does not respond is noted, and what is not trusted there is not looked at.

    Raises:
        IntegrityError: records are gone.
    """
    pipeline = pipeline.knowing(records)
    trust = pipeline.signatures.trust()
    if _cannot(trust) or pipeline.config.image.attach == "off":
        return
    for release in releases:
        pushed = records.latest("push-to-registry", release)
        if pushed is None or retention.is_removed(records, pushed):
            continue
        image = reference(shapes.of(pushed, PushedImage).reference)
        try:
            verify_image(pipeline, image, PRODUCTION, records, release)
        except UnavailableError as error:
            note = f"what was stated of the ledger at the image of {release} was not compared"
            pipeline.progress.note(f"{note}: {error.message}")


def admission_policy(pipeline: Pipeline) -> dict[str, Any]:
    """Return a policy with which a cluster admits only signed images of the project.

    Raises:
        ConfigError: no repository is configured, or nobody is named who signs images.
    """
    config = pipeline.config
    if config.image.repository is None:
        message = "mlship.yaml has no image.repository, whose images a policy would guard"
        raise ConfigError(message, hint="set image.repository: registry/name")
    place = reference(config.image.repository)
    return admission.policy(config.name, place, pipeline.signatures.trust().signers)


def refused(image: str, failed: Sequence[Check], release: Release | None) -> RefusedError:
    """Return the error for an image that must not run."""
    name = str(release) if release else "RELEASE"
    steps = [check.name for check in failed if check.name in _COMMANDS]
    if len(steps) == len(failed):
        hint = "run " + " and ".join(f"`mlship {_COMMANDS[step]} {name}`" for step in steps)
    else:
        hint = f"`mlship push-to-registry {name}` attaches what the ledger has; if it is not "
        hint += "enough, find out who else can write to the registry"
    return RefusedError(f"{image} must not run: {checks.joined(failed)}", hint=hint)


def _steps(pipeline: Pipeline, target: TargetName) -> tuple[Step, ...]:
    """Return what a release must have passed before a target runs its image."""
    if target == STAGING:
        return ("test", "push-to-registry")
    tested: tuple[Step, ...] = ("test", "push-to-registry", "verify-staging-workload")
    asked = pipeline.container_test(target) == "asked for"
    return (*tested, "test-container") if asked else tested
