"""The struct of each step's facts, and its conversion to and from the JSON of a ledger."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from mlship.domain import (
    batch_record,
    checks,
    digests,
    facts,
    override,
    removal,
    ticks,
    trust,
    watch,
)
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import Completed, Facts, Number, Part, Timed
from mlship.errors import IntegrityError

SHAPES: Final[Mapping[Step, type[Facts]]] = MappingProxyType(
    {
        "train": facts.Trained,
        "test": facts.Tested,
        "unreviewed/train": facts.Claimed,
        "unreviewed/test": facts.Claimed,
        "containerize": facts.Containerized,
        "test-container": facts.Contained,
        "push-to-registry": facts.PushedImage,
        "deploy-staging": facts.Staged,
        "verify-staging-workload": facts.Verified,
        "open-release-pr": facts.Proposed,
        "traffic": override.Weighted,
        "reconcile": facts.Drifted,
        "adopt": facts.Drifted,
        "evaluate": facts.Evaluated,
        "watch": watch.Watched,
        "tick": ticks.Ticked,
        "erase": removal.Erased,
        "prune": removal.Pruned,
        "prune-images": removal.PrunedImages,
        "batch": batch_record.Batched,
        "sign-ledger": trust.SignedLedger,
        "approve": facts.Approved,
        "withdraw-approval": facts.Withdrawn,
        "await-production": facts.Waiting,
        "deploy-production": facts.Deployed,
        "deploy-production/capacity": facts.Capacity,
        "deploy-production/route": facts.Routed,
        "deploy-production/alias": facts.Aliased,
        "deploy-production/displace": facts.Displaced,
        "promote": facts.Crowned,
        "promote/gate": facts.GatePassed,
        "promote/capacity": facts.Capacity,
        "promote/route": facts.Routed,
        "promote/alias": facts.Aliased,
        "promote/archive": facts.Archived,
        "rollback": facts.Crowned,
        "rollback/capacity": facts.Capacity,
        "rollback/route": facts.Routed,
        "rollback/alias": facts.Aliased,
        "rollback/archive": facts.Restored,
        "retire": facts.Retired,
        "retire/route": facts.Routed,
        "retire/alias": facts.Aliased,
        "retire/remove": facts.Removed,
        "retire/archive": facts.Archived,
    }
)
"""The struct of each step's facts."""

Shape = TypeVar("Shape", bound=Facts)


def stored(step: Step, value: Facts) -> dict[str, Any]:
    """Return facts for a ledger, in JSON types.

    Raises:
        TypeError: the step has facts of another struct.
    """
    if type(value) is not SHAPES[step]:
        raise TypeError(f"{step} records {SHAPES[step].__name__}, not {type(value).__name__}")
    plain: dict[str, Any] = digests.plain(value)
    return plain


def of(record: Record, shape: type[Shape]) -> Shape:
    """Return the facts of a record as the struct of its step, or as a base of it.

    Unknown facts are ignored: a newer version may record more.

    Raises:
        IntegrityError: a fact has another type; another version of mlship wrote it.
        TypeError: the step has facts of another struct.
    """
    value = read(record)
    if not isinstance(value, shape):
        raise TypeError(f"{record.evidence.step} records {type(value).__name__}, not {shape}")
    return value


def read(record: Record) -> Facts:
    """Return the facts of a record as the struct of its step.

    Raises:
        IntegrityError: a fact has another type; another version of mlship wrote it.
    """
    evidence = record.evidence
    try:
        return msgspec.convert(_current(evidence.facts), SHAPES[evidence.step])
    except msgspec.ValidationError as error:
        message = (
            f"record {digests.short(record.digest)} ({evidence.step}, mlship {evidence.tool}) "
            f"has facts that cannot be read: {error}"
        )
        raise IntegrityError(message, hint="update mlship") from error


def operation(record: Record) -> str:
    """Return the id of the transition that a record belongs to; empty if there is none."""
    is_part = issubclass(SHAPES[record.evidence.step], Part)
    return of(record, Part).operation if is_part else ""


def seconds(record: Record) -> Number:
    """Return the duration of the step of a record in seconds; `None` if it is not recorded."""
    value = read(record)
    return value.seconds if isinstance(value, Timed | Completed) else None


def _current(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert facts of older versions, which have the checks of a gate as lines of text."""
    lines = plain.get("reasons")
    if "checks" in plain or not isinstance(lines, list):
        return plain
    return {**plain, "checks": [checks.read(str(text)) for text in lines]}
