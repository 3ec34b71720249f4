"""Whether a release can take a part of the champion's traffic: from both schemas.

A request is answered by either of them, so what is valid for the champion must be valid for the
challenger, and callers must find the outputs that they read.
"""

from collections.abc import Sequence

import msgspec

from mlship.domain.bundle import Bundle, Field, Kind
from mlship.errors import some

_NUMBERS: tuple[Kind, ...] = ("number", "integer")


class Compatibility(msgspec.Struct, frozen=True, kw_only=True):
    """How a release differs from the champion in what it accepts and gives.

    Attributes:
        unrelated: why both solve different problems; empty if they may solve one.
        broken: what fails for every request that is valid for the champion.
        partial: what fails for some of them.
    """

    unrelated: str = ""
    broken: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()


def between(champion: Bundle, release: Bundle) -> Compatibility:
    """Compare the schemas of the champion and of a release."""
    inputs = champion.schema.inputs, release.schema.inputs
    unrelated = ""
    if not _common(champion.names, release.names):
        unrelated = f"it predicts {_named(release.names)}, not {_named(champion.names)}"
    elif not _common(*([field.name for field in fields] for fields in inputs)):
        unrelated = "they have no input column in common"
    return Compatibility(
        unrelated=unrelated,
        broken=(*_broken_inputs(*inputs), *_broken_outputs(champion, release)),
        partial=_partial(*inputs),
    )


def _common(one: Sequence[str], other: Sequence[str]) -> bool:
    return not set(one).isdisjoint(other)


def _broken_inputs(before: Sequence[Field], after: Sequence[Field]) -> list[str]:
    old, new = _by_name(before), _by_name(after)
    added = [name for name in new if name not in old]
    removed = [name for name in old if name not in new]
    return [
        *([f"it needs input {_named(added)}"] if added else []),
        *([f"it refuses input {_named(removed)}"] if removed else []),
        *_retyped("input", before, after),
    ]


def _broken_outputs(champion: Bundle, release: Bundle) -> list[str]:
    before, after = champion.schema.outputs, release.schema.outputs
    removed = [name for name in _by_name(before) if name not in _by_name(after)]
    other_task = f"it is a {release.task} model, the champion a {champion.task} model"
    return [
        *([other_task] if champion.task != release.task else []),
        *([f"it gives no output {_named(removed)}"] if removed else []),
        *_retyped("output", before, after),
    ]


def _retyped(what: str, before: Sequence[Field], after: Sequence[Field]) -> list[str]:
    """Name the columns whose kinds have no value in common."""
    new = _by_name(after)
    return [
        f"{what} {field.name} is of kind {new[field.name].kind}, was {field.kind}"
        for field in before
        if field.name in new
        and field.kind != new[field.name].kind
        and not {field.kind, new[field.name].kind} <= set(_NUMBERS)
    ]


def _partial(before: Sequence[Field], after: Sequence[Field]) -> tuple[str, ...]:
    new = _by_name(after)
    both = [(field, new[field.name]) for field in before if field.name in new]
    nulls = [old.name for old, own in both if old.nullable and not own.nullable]
    whole = [old.name for old, own in both if (old.kind, own.kind) == _NUMBERS]
    return (
        *([f"null in {_named(nulls)}"] if nulls else []),
        *([f"fractions in {_named(whole)}"] if whole else []),
    )


def _by_name(fields: Sequence[Field]) -> dict[str, Field]:
    return {field.name: field for field in fields}


def _named(names: Sequence[str]) -> str:
    return some([name[:60] for name in names])
