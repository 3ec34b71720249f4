"""What went wrong at a broker, as an error of the tree: for workers and for commands."""

from typing import Final

from mlship.errors import (
    ConfigError,
    ConflictError,
    CredentialsError,
    MlshipError,
    NotFoundError,
    UnavailableError,
)

_NO_TOPIC: Final = frozenset(("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"))
_FENCED: Final = frozenset(
    (
        *("_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED", "FENCED_INSTANCE_ID"),
        *("TRANSACTION_COORDINATOR_FENCED",),
    )
)
_MIXED: Final = "INCONSISTENT_GROUP_PROTOCOL"
_LOGIN: Final = frozenset(("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "_SSL"))


def of_broker(name: str, text: str, brokers: str, subject: str) -> MlshipError:
    """Return the error for a fault of Kafka.

    Args:
        name: of the error, such as `UNKNOWN_TOPIC_OR_PART`.
        text: what the client says of it.
        brokers: the addresses.
        subject: what was done with which object, such as `topic orders`.
    """
    if name in _NO_TOPIC:
        message = f"{subject} does not exist at {brokers}"
        return NotFoundError(message, hint="create it, or correct its name in `stream`")
    if name in _FENCED or name == _MIXED:
        return _conflict(name, text, brokers, subject)
    if name in _LOGIN:
        message = f"{brokers} refuses the login: {text}"
        hint = "check stream.options, and the variables that stream.variables names"
        return CredentialsError(message, hint=hint)
    if name.endswith("AUTHORIZATION_FAILED"):
        message = f"{brokers} does not authorize {subject}: {text}"
        hint = "let an administrator grant read and write on the topics, and the group and "
        return CredentialsError(message, hint=f"{hint}transactional ids that begin with it")
    if name in ("_INVALID_ARG", "_CONFLICT", "_NOT_IMPLEMENTED"):
        message = f"the client of Kafka refuses a setting: {text}"
        return ConfigError(message, hint="correct stream.options")
    return UnavailableError(
        f"{subject} at {brokers}: {text or name}", hint="check the brokers, then run it again"
    )


def _conflict(name: str, text: str, brokers: str, subject: str) -> ConflictError:
    if name == _MIXED:
        message = f"{subject} at {brokers} has another client, which is no worker of mlship"
        return ConflictError(message, hint="give it, or the stream by stream.group, another group")
    message = f"another worker has taken over from this one at {brokers}: {text}"
    return ConflictError(message, hint="end the other one, if two run with the same name")


def silent(brokers: str, seconds: float) -> UnavailableError:
    """Return the error for brokers that do not answer."""
    message = f"no broker at {brokers} answered within {seconds:g} s"
    return UnavailableError(message, hint="check stream.brokers, the network and the brokers")


def not_installed() -> ConfigError:
    """Return the error for a missing client library."""
    message = "a stream needs the package confluent-kafka, which is not installed"
    return ConfigError(message, hint="install the extra: mlship-cd[kafka]")
