"""A release of an older generation is not deployed over a later one by accident.

Jobs of several commits run beside each other, wait for one another, and are run again: without this
check, the one that ends last would decide what runs.
"""

from mlship.domain.deployment import TargetName
from mlship.domain.evidence import Step
from mlship.domain.lineage import superseding
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import RefusedError
from mlship.steps.pipeline import STAGING, Pipeline


def later(
    pipeline: Pipeline, release: Release, name: TargetName, records: Records
) -> Release | None:
    """Return the later release that came to a target since, if there is one."""
    step: Step = "deploy-staging" if name == STAGING else "deploy-production"
    return superseding(release, step, records, pipeline.source)


def check_generation(
    pipeline: Pipeline, release: Release, name: TargetName, records: Records, *, older: bool
) -> None:
    """Check that no later release came to a target since.

    Args:
        pipeline: the project.
        release: to deploy.
        name: of the target.
        records: read under the target's lock.
        older: whether a later release may be replaced.

    Raises:
        RefusedError: there is one, and it may not be replaced.
    """
    other = None if older else later(pipeline, release, name, records)
    if other is not None:
        back = "" if name == STAGING else "to restore the former champion, run `mlship rollback`; "
        raise RefusedError(
            f"{release} (commit {release.commit[:12]}) was superseded by release {other} "
            f"(commit {other.commit[:12]}), which came to {name} since",
            hint=f"{back}to deploy it on purpose, use --older",
        )
