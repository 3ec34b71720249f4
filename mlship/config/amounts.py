"""Amounts of memory in settings, in the form of Kubernetes: 512Mi, 2Gi, 500M."""

from typing import Annotated, Final

from msgspec import Meta

Memory = Annotated[
    str,
    Meta(pattern=r"^[0-9]+(\.[0-9]+)?([KMGT]i|[kMGT])?$", extra={"form": "such as 512Mi or 2Gi"}),
]
_POWERS: Final = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


def bytes_of(amount: str) -> int:
    """Return the bytes of an amount that has the form."""
    number = amount.rstrip("kKMGTi")
    unit = amount.removeprefix(number)
    base = 1024 if unit.endswith("i") else 1000
    return int(float(number) * base ** _POWERS[unit.removesuffix("i")])
