"""The section `stream` of mlship.yaml: topics of Kafka that a release reads and writes."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlship.config.texts import Topic, Variable
from mlship.errors import ConfigError

_Text = Annotated[str, Meta(min_length=1)]


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Predictions for the messages of a topic, by the releases that the route of production names.

    `brokers`, `input` and `output` are required.
    """

    brokers: Annotated[
        str, Meta(min_length=1, description="addresses, such as broker-1:9092,broker-2:9092")
    ]
    input: Annotated[Topic, Meta(description="topic of messages, each the features of one row")]
    output: Annotated[Topic, Meta(description="topic of predictions")]
    dead_letter: Annotated[
        Topic | None,
        Meta(
            description="topic of messages that get no prediction, with the reason in headers; "
            "default: that of `output` with .dead-letter added"
        ),
    ] = None
    shadow: Annotated[
        Topic | None,
        Meta(description="topic of the answers of a challenger that gets copies; default: none"),
    ] = None
    outcomes: Annotated[
        Topic | None,
        Meta(
            description="topic of outcomes for `mlship feedback`: objects of JSON with "
            "prediction_id and outcome; default: none"
        ),
    ] = None
    group: Annotated[
        _Text | None,
        Meta(
            description="consumer group, and the beginning of the workers' transactional ids; "
            "default: NAME.stream",
        ),
    ] = None
    format: Annotated[
        Literal["json", "avro", "protobuf"],
        Meta(description="of the values; avro and protobuf need a `registry`"),
    ] = "json"
    registry: Annotated[
        str | None, Meta(description="URL of the schema registry, such as http://registry:8081")
    ] = None
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)],
        Meta(description="processes that read; more than the topic has partitions are idle"),
    ] = 1
    max_workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None,
        Meta(
            description="on Kubernetes, scale the workers up to this, by CPU or `lag`; default: no "
            "autoscaling"
        ),
    ] = None
    lag: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="on Kubernetes with KEDA, messages behind for each worker at which one is "
            "added; default: scaled by CPU"
        ),
    ] = None
    max_rows: Annotated[
        Annotated[int, Meta(ge=1, le=50_000)], Meta(description="most messages of a transaction")
    ] = 5000
    max_ms: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(description="milliseconds for which messages are collected for a transaction"),
    ] = 20
    log: Annotated[
        bool,
        Meta(
            description="log predictions as over HTTP, for `trace`, `feedback` and `evaluate`; "
            "false leaves them in the topic only"
        ),
    ] = True
    options: Annotated[
        dict[_Text, str | int | float | bool],
        Meta(
            description="properties of librdkafka, such as {security.protocol: SASL_SSL}; not for "
            "secrets"
        ),
    ] = {}
    variables: Annotated[
        dict[_Text, Variable],
        Meta(
            description="properties whose values environment variables hold, such as "
            "{sasl.username: KAFKA_USER, sasl.password: KAFKA_PASSWORD}; "
            "registry.basic.auth.user.info is USER:PASSWORD for the registry"
        ),
    ] = {}

    @property
    def dead_letters(self) -> str:
        """The topic of messages that get no prediction."""
        return self.dead_letter or f"{self.output}.dead-letter"

    @property
    def properties(self) -> dict[str, str]:
        """The options as Kafka writes them."""
        return {name: _written(value) for name, value in self.options.items()}

    @property
    def topics(self) -> dict[str, str]:
        """The topics by their keys, without those that are not there."""
        named = {
            "input": self.input,
            "output": self.output,
            "dead_letter": self.dead_letters,
            "shadow": self.shadow,
            "outcomes": self.outcomes,
        }
        return {key: topic for key, topic in named.items() if topic is not None}


def _written(value: str | float | bool) -> str:  # noqa: FBT001 (of a mapping)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        # The client takes no 1000.0 for a whole number.
        return str(int(value))
    return str(value)


def check(config: StreamConfig) -> None:
    """Check that each topic is another one: what a stream wrote must not come back to it.

    Raises:
        ConfigError: two keys name the same topic.
    """
    keys: dict[str, str] = {}
    for key, topic in config.topics.items():
        if topic in keys:
            message = f"mlship.yaml: stream.{keys[topic]} and stream.{key} are both topic {topic}"
            raise ConfigError(message, hint="give each a topic of its own")
        keys[topic] = key
