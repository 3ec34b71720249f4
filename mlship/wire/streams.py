"""What a stream runs on, as the configuration selects it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlship.config.project import Config
from mlship.config.stream import StreamConfig
from mlship.domain.environment import of_serving
from mlship.domain.ports import Progress
from mlship.domain.stream import Plan, Settings
from mlship.errors import ConfigError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.stream import image_with_client, plan_of, section
from mlship.wire import backends

if TYPE_CHECKING:
    from mlship.adapters.streams.background import Background
    from mlship.adapters.streams.backlog import KafkaBacklog
    from mlship.adapters.streams.clients import Clients
    from mlship.adapters.streams.dead_letters import KafkaDeadLetters
    from mlship.adapters.streams.outcomes import KafkaOutcomes
    from mlship.adapters.streams.workers import LocalWorkers


def settings(config: Config, stream: StreamConfig, state: Path) -> Settings:
    """Return what the workers of a stream are told.

    Raises:
        ConfigError: a format needs a registry, or a property is not for a user to set.
    """
    if stream.format != "json" and stream.registry is None:
        message = f"stream.format {stream.format} needs a schema registry"
        raise ConfigError(message, hint="set stream.registry, such as http://registry:8081")
    owned = ("bootstrap.servers", "group.", "transactional.", "enable.", "isolation.", "partition.")
    for name in (*stream.options, *stream.variables):
        if name.startswith(owned):
            message = f"the property {name} in stream is mlship's own"
            raise ConfigError(message, hint="remove it")
    log = backends.database(PRODUCTION, config) or str(
        (state / "predictions" / PRODUCTION).absolute()
    )
    return Settings(
        brokers=stream.brokers,
        group=stream.group or f"{config.name}.stream",
        input=stream.input,
        output=stream.output,
        dead_letter=stream.dead_letters,
        shadow=stream.shadow or "",
        format=stream.format,
        registry=stream.registry or "",
        subject=f"{stream.output}-value",
        max_rows=stream.max_rows,
        max_ms=stream.max_ms,
        options=stream.properties,
        variables=stream.variables,
        log=log if stream.log else "",
        columns=config.observations.columns,
    )


def stream_workers(
    pipeline: Pipeline,
    stream: StreamConfig,
    environment: Mapping[str, str],
    progress: Progress,
) -> "LocalWorkers":
    """Return the workers of a stream, as processes of this machine; none is started.

    Raises:
        ConfigError: a setting is wrong, or a variable with credentials is not set.
    """
    from mlship.adapters.streams.workers import LocalWorkers

    told = settings(pipeline.config, stream, pipeline.state)
    secrets = _secrets(stream, environment)
    serving = of_serving(environment, told.log, hashes=bool(told.columns))
    folder = pipeline.state / "stream"
    return LocalWorkers(folder, told, serving | secrets, progress)


def stream_background(pipeline: Pipeline) -> "Background":
    """Return the process of the stream of a project on this machine."""
    from mlship.adapters.streams.background import Background

    return Background(pipeline.state / "stream")


def dead_letters(
    pipeline: Pipeline, stream: StreamConfig, environment: Mapping[str, str]
) -> "KafkaDeadLetters":
    """Return the dead-letter topic of a stream."""
    from mlship.adapters.streams.clients import Clients
    from mlship.adapters.streams.dead_letters import KafkaDeadLetters

    told = settings(pipeline.config, stream, pipeline.state)
    return KafkaDeadLetters(Clients(told, _secrets(stream, environment)), told)


def outcome_messages(
    pipeline: Pipeline, stream: StreamConfig, environment: Mapping[str, str]
) -> "KafkaOutcomes | None":
    """Return the outcomes topic of a stream; `None` if it has none."""
    if stream.outcomes is None:
        return None
    from mlship.adapters.streams.clients import Clients
    from mlship.adapters.streams.outcomes import KafkaOutcomes

    told = settings(pipeline.config, stream, pipeline.state)
    return KafkaOutcomes(Clients(told, _secrets(stream, environment)), told, stream.outcomes)


def stream_backlogs(pipeline: Pipeline, environment: Mapping[str, str]) -> "KafkaBacklog | None":
    """Return the consumer group of a project's stream; `None` if it has no stream."""
    from mlship.adapters.streams.backlog import KafkaBacklog

    stream = pipeline.config.stream
    if stream is None:
        return None
    told = settings(pipeline.config, stream, pipeline.state)

    def clients() -> "Clients":
        # When they are asked: a missing variable hides nothing else that `status` shows.
        from mlship.adapters.streams.clients import Clients

        return Clients(told, _secrets(stream, environment))

    return KafkaBacklog(clients, told)


def stream_files(pipeline: Pipeline) -> dict[str, str]:
    """Return the objects of a stream in the cluster of production, as YAML by file name.

    Raises:
        ConfigError: production runs in no cluster, or not as the workers need it.
        NotFoundError: there is no champion, whose image the workers run.
    """
    from mlship.adapters.targets.kubernetes import stream_manifests
    from mlship.adapters.targets.kubernetes.manifests import Scope, files

    stream, production = section(pipeline), backends.target_config(pipeline.config, PRODUCTION)
    if production.kind == "local":
        message = "target production is local: `mlship stream run` runs its workers"
        raise ConfigError(message, hint="set targets.production.kind to kubernetes or gke")
    told = msgspec.structs.replace(settings(pipeline.config, stream, pipeline.state), log="")
    scope = Scope(project=pipeline.config.name, target=PRODUCTION, home=pipeline.home)
    image = image_with_client(pipeline)
    return files(stream_manifests.render(scope, production, stream, told, image))


def stream_plan(pipeline: Pipeline) -> tuple[Settings, Plan]:
    """Return what a job of Spark is told of a stream: its settings, and the plan of the route.

    Raises:
        ConfigError: a setting cannot be one of Spark's.
        NotFoundError: no release gets traffic.
    """
    stream = section(pipeline)
    told = msgspec.structs.replace(settings(pipeline.config, stream, pipeline.state), log="")
    if stream.variables:
        message = "the clients of Spark read no variables, and stream.variables names some"
        hint = "remove them, and give Spark a keystore or a JAAS file in stream.options"
        raise ConfigError(message, hint=hint)
    return told, plan_of(pipeline, pipeline.target(PRODUCTION).routes())


def look(pipeline: Pipeline, environment: Mapping[str, str]) -> str:
    """Return the topics of a stream, for people.

    Raises:
        MlshipError: the brokers cannot be used, or a topic does not exist.
    """
    from mlship.adapters.streams.clients import Clients

    stream = section(pipeline)
    told = settings(pipeline.config, stream, pipeline.state)
    clients = Clients(told, _secrets(stream, environment))
    topics = [told.input, told.output, told.dead_letter, told.shadow, stream.outcomes or ""]
    numbers = clients.look(list(filter(None, topics)))
    return f"{told.brokers} has {', '.join(numbers)}; partitions of {told.input}: " + str(
        numbers[told.input]
    )


def _secrets(stream: StreamConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that properties are read from."""
    for name, variable in stream.variables.items():
        if not environment.get(variable):
            message = f"the variable {variable} is not set, which stream.variables names for {name}"
            raise ConfigError(message, hint=f"set {variable}")
    return {variable: environment[variable] for variable in stream.variables.values()}
