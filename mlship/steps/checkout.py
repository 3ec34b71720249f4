"""The files and settings that tests and verifications run with: they must be the release's."""

from mlship.config.check_files import check_files
from mlship.domain import shapes
from mlship.domain.checks import Check
from mlship.domain.commit import named
from mlship.domain.evidence import Step
from mlship.domain.facts import Checked, Trained
from mlship.domain.inputs import OUTSIDE, Opened
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.steps.pipeline import Pipeline

_STEPS: tuple[Step, ...] = ("test", "test-container", "verify-staging-workload")


def differences(
    pipeline: Pipeline, release: Release, records: Records, settings: tuple[str, ...]
) -> str:
    """Return what is not as in the commit of a release, for people; empty if nothing is.

    Files that the training or the tests of the release wrote do not count, unless they are
    themselves checks. A release with uncommitted changes never goes to production: it has no files
    to compare with.

    Args:
        pipeline: the project.
        release: that is tested.
        records: with those of the release.
        settings: the settings that decide, such as `gates.test`; an option or a variable that sets
            one of them is a difference from the commit's mlship.yaml.
    """
    if release.dirty:
        return ""
    checks, written = check_files(pipeline.config), _written(records, release)
    opened = _opened(records, release)
    outside = [path for path in opened.read if path.startswith(OUTSIDE)]
    changed = [
        path
        for path in pipeline.source.differences(release.commit, outside)
        if checks.has(path)
        or not (path in written or opened.explains((path,), pipeline.trainer.current([path])))
    ]
    overridden = [
        f"{key} (by an option or a variable)"
        for key in pipeline.overridden
        if any(f"{key}.".startswith(f"{setting}.") for setting in settings)
    ]
    return named([*changed, *overridden])


def warnings(release: Release, differs: str) -> list[Check]:
    """Return the warning of a step that ran with other files than its release's commit has."""
    if not differs:
        return []
    text = f"not as in commit {release.commit[:12]}: {differs}; does not count for production"
    return [Check(name="commit", holds=True, text=text, warns=True)]


def _written(records: Records, release: Release) -> set[str]:
    """Return the files that tests of a release wrote."""
    kept = [record for step in _STEPS if (record := records.latest(step, release))]
    facts = [shapes.of(record, Checked) for record in kept]
    return {path for each in facts for run in each.tests for path in run.wrote}


def _opened(records: Records, release: Release) -> Opened:
    """Return the files that the training of a release opened."""
    record = records.latest("train", release)
    return shapes.of(record, Trained).opened if record else Opened()
