"""The check that a release can take a part of the champion's traffic, by both bundles."""

from mlship.domain import bundle as bundles
from mlship.domain import compatibility, gates, shapes
from mlship.domain.checks import Check
from mlship.domain.facts import Tested
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.steps.pipeline import Pipeline


def check(pipeline: Pipeline, release: Release, champion: Release) -> Check:
    """Compare the schemas in the bundles of a release and of the champion.

    Raises:
        NotFoundError: the store does not have one of them.
    """
    before, after = (bundles.manifest(pipeline.bundle(each)) for each in (champion, release))
    found = compatibility.between(before, after)
    return gates.on_champion(champion, found, required=pipeline.config.gates.compatible)


def checked(pipeline: Pipeline, release: Release, records: Records) -> list[Check]:
    """Return the check of a tested release: that of its test, if it saw the current champion."""
    champion, test = records.history.champion, records.latest("test", release)
    if champion in (None, release) or test is None:
        return []
    if test.evidence.saw.champion == champion.id:
        for known in shapes.of(test, Tested).checks:
            if known.name == gates.COMPATIBLE:
                return [known]
    return [check(pipeline, release, champion)]
