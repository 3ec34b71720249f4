"""Values of a stream: what its workers are told, and what they write beside each message."""

import hashlib
from collections.abc import Mapping
from operator import methodcaller
from typing import Any, Final, Literal

import msgspec

from mlship.domain.digests import Digest

Format = Literal["json", "avro", "protobuf"]

RELEASE: Final = "mlship-release"
PREDICTION: Final = "mlship-prediction-id"
"""Headers of each output, beside those of its input."""

DEAD: Final = "mlship-dead-letter-"
"""Headers of a dead letter begin with it; its other headers, key and value are those received."""
TOPIC, PARTITION, OFFSET = (f"{DEAD}{name}" for name in ("topic", "partition", "offset"))
REASON, FIELD = f"{DEAD}reason", f"{DEAD}field"
DEAD_RELEASE: Final = f"{DEAD}release"

REGISTRY: Final = "registry."
"""Properties of the schema registry begin with it; all others are librdkafka's."""

_VARIANTS: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One release that the route gives messages to.

    Attributes:
        slot: where it runs in the target.
        release: its id.
        name: its name, such as `iris@3f9a...`.
        bundle: the absolute path of its bundle.
        digest: of the bundle.
        weight: its share of the messages in percent.
    """

    slot: str
    release: Digest
    name: str
    bundle: str
    digest: Digest
    weight: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the route of a target means for its stream.

    Attributes:
        revision: of the route.
        sides: by the names of their slots, as the load balancer has them; the weights add up to
            100.
        shadow: the slot whose release gets a copy of what others answer; empty for none.
    """

    revision: str
    sides: tuple[Side, ...]
    shadow: str = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers of a stream share.

    Attributes:
        brokers: such as `broker-1:9092,broker-2:9092`.
        group: the consumer group.
        input: the topic that is read.
        output: the topic of predictions.
        dead_letter: the topic of messages that get no prediction.
        shadow: the topic of the challenger's answers to copies; empty drops them.
        format: of the values.
        registry: the address of the schema registry; empty for none.
        subject: of the schema of outputs in the registry.
        max_rows: the most messages of a transaction.
        max_ms: how long messages are collected for a transaction.
        options: properties of librdkafka.
        variables: properties whose values environment variables hold, such as passwords.
        log: the folder of the prediction log, or `postgresql://...`; empty logs nothing.
        columns: those that are not logged, or only as a hash.
        compute_seconds: the time limit to compute a batch.
        broker_seconds: how long the brokers may be silent before a worker ends.
        is_transactional: false only in control runs: messages may get two outputs then.
    """

    brokers: str
    group: str
    input: str
    output: str
    dead_letter: str
    shadow: str = ""
    format: Format = "json"
    registry: str = ""
    subject: str = ""
    max_rows: int = 5000
    max_ms: int = 20
    options: dict[str, str] = {}
    variables: dict[str, str] = {}
    log: str = ""
    columns: dict[str, Literal["never", "hash"]] = {}
    compute_seconds: float = 30.0
    broker_seconds: float = 60.0
    is_transactional: bool = True

    def properties(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the properties for a client of the brokers; a missing variable is empty."""
        secret = {
            name: environment.get(variable, "")
            for name, variable in self.variables.items()
            if not name.startswith(REGISTRY)
        }
        return {**self.options, **secret, "bootstrap.servers": self.brokers}


_headers: Final = methodcaller("headers")
"""A call that sees errors of the client, which a plain one in a loop does not look for."""


def headers_of(message: Any) -> list[tuple[str, bytes | None]] | None:
    """Return the headers of a message of Kafka's client; `None` if it cannot read them.

    It fails on a name that is not UTF-8, which other clients can write.
    """
    try:
        return list(_headers(message) or ())
    except (SystemError, UnicodeDecodeError):
        return None


def prediction_id(topic: str, partition: int, offset: int, timestamp: int) -> str:
    """Return the id of the prediction for a message, which is the same each time it is read.

    It has the form of other ids: a UUID (version 8, RFC 9562) and the number of the row. The time
    tells a topic from an earlier one of its name.
    """
    text = f"{topic}\n{partition}\n{offset}\n{timestamp}"
    digits = hashlib.sha256(text.encode()).hexdigest()
    variant = _VARIANTS[digits[16]]
    head = f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}"
    return f"{head}-{digits[20:32]}.0"
