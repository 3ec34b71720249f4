"""Champion and challenger in a batch: both score each row, or each row is one's.

In a shadow, the challenger's outputs are a run of their own below `_shadow`, with the ids of the
rows that the champion answered. In a split, both write parts of one run, which is published as one.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.profiles import Profile
from mlship.domain.stream import Side

Mode: TypeAlias = Literal["shadow", "split"]

SHADOW: Final = "_shadow"
"""The folder of shadows in an output: readers of tables pass over its name."""
RELEASE: Final = "release"
SIDE: Final = "side"
ADDED: Final = (RELEASE, SIDE)
"""The columns of a split that say which release answered a row, and in which role."""


class Player(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A release that answers some rows of a split.

    Attributes:
        role: `champion` or `challenger`; the slot of another release of the route.
        slot: where the route has it.
        name: of the release, for people; `release` is its id.
        bundle: the digest of its bundle.
        weight: its share of the rows in percent.
        profile: of its predictions.
    """

    role: str
    slot: str
    release: Digest
    name: str
    bundle: Digest
    weight: int
    profile: Profile | None = None


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a part that one release of a split answers.

    Attributes:
        sides: all of them, in the order in which the load balancer has them.
        slot: whose rows are answered; `role` is what it is called.
        key: the column by whose value rows are given to sides; empty for their places.
        block: stands for the block of the file, whatever side answers its rows.
        is_first: whether lines that are no rows are told by this side.
    """

    sides: tuple[Side, ...]
    slot: str
    role: str
    key: str
    block: str
    is_first: bool


def place(block: str, row: int) -> bytes:
    """Return what stands for a row without a key."""
    return f"{block}.{row}".encode()


def counted(role: str, output: str) -> str:
    """Return the name under which a side's output is counted."""
    return f"{role}/{output}"


def sides(players: Sequence[Player], names: Sequence[str] = ()) -> tuple[Side, ...]:
    """Return the sides of players, with the folders of their bundles if a worker needs them."""
    folders = names or [""] * len(players)
    return tuple(
        Side(
            slot=each.slot,
            release=each.release,
            name=each.name,
            bundle=folder,
            digest=each.bundle,
            weight=each.weight,
        )
        for each, folder in zip(players, folders, strict=True)
    )
