"""The checks of doctor that need more than a pipeline's ports, composed from the Config."""

import functools
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from mlship import wire
from mlship.adapters.checkout import code, functions, git, heads
from mlship.adapters.checkout.repository import ignored_workflows
from mlship.steps.diagnosis import Surroundings
from mlship.steps.pipeline import Pipeline


def surroundings(pipeline: Pipeline, environment: Mapping[str, str]) -> Surroundings:
    """Return the checks of backends. Nothing is imported or requested before a check runs."""
    config = pipeline.config

    @functools.cache
    def top() -> Path | None:
        return wire.top_of(pipeline.root)

    def workflows() -> Mapping[str, str]:
        from mlship.adapters.checkout.repository import workflows_of

        return workflows_of(top() or pipeline.root)

    def registry() -> str:
        from mlship.adapters.images.registry.registries import Registries

        with closing(Registries(config.image, environment)) as registries:
            return registries.reach()

    def engine() -> str:
        from mlship.adapters.images.engine.engine import look

        return look(environment)

    def cluster(name: str) -> str:
        return _clusters(pipeline, name, environment)

    def forge() -> str:
        from mlship.adapters.forges.github.detect import look

        return look(environment, git.run(pipeline.root, "remote", "get-url", "origin", check=False))

    def stream() -> str:
        from mlship.wire import streams

        return streams.look(pipeline, environment)

    return Surroundings(
        installed=lambda: wire.installed(top()),
        functions=lambda: functions.check(pipeline.root, config),
        heads=lambda: heads.check(pipeline.root, config.data),
        ignored=lambda: [*code.left_out(pipeline.root, config), *ignored_workflows(top())],
        workflows=workflows,
        registry=registry,
        engine=engine,
        cluster=cluster,
        forge=forge,
        stream=stream,
    )


def _clusters(pipeline: Pipeline, name: str, environment: Mapping[str, str]) -> str:
    """Check the clusters of a target, and what is above them."""
    from mlship.adapters.targets.kubernetes import Scope, review, review_all

    settings = pipeline.target_config(name)
    scope = Scope(project=pipeline.config.name, target=name)
    if not settings.clusters:
        return review(scope, settings, wire.cluster_access(settings, environment))
    clusters, above = wire.members(settings, environment), wire.parent(settings)
    if above is None:
        return review_all(scope, clusters, settings.parent_cluster)
    return f"{review_all(scope, clusters, '')}; {above.look(scope)}"
