"""Which types and functions a skops file may name: an exact list, and what a bundle adds to it.

skops trusts whole kinds by itself, and looks names up in any module. Here each name is looked up
in `trusted.txt` for the use that the file makes of it, before anything is imported: an estimator
whose state is set is one thing, a function that an estimator calls another.
"""

import functools
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from typing import Any

from mlship.runtime.archive import Part

_LIST = "trusted.txt"
_ADDED = frozenset({"ObjectNode", "FunctionNode", "TypeNode", "TupleNode"})
"""Uses of types and functions that a bundle adds. None of them calls one while it is loaded."""


@functools.cache
def listed() -> Mapping[str, frozenset[str]]:
    """Return the full names that are trusted, by use."""
    names: dict[str, set[str]] = {}
    use = ""
    # It may lie in an archive, where an MLflow model carries this package.
    text = resources.files(__package__).joinpath(_LIST).read_text("ascii")
    for line in text.splitlines():
        if line.startswith("["):
            use = line.strip("[]")
        elif line and not line.startswith("#"):
            names.setdefault(use, set()).add(line)
    return {use: frozenset(each) for use, each in names.items()}


def untrusted(parts: Iterable[Part], added: Collection[str]) -> list[Part]:
    """Return the parts that are neither on the list nor of those that a bundle adds."""
    known = listed()
    return [
        part
        for part in parts
        if part.full not in known.get(part.use, ())
        and not (part.use in _ADDED and part.full in added)
    ]


def described(parts: Iterable[Part]) -> str:
    """Name types and functions with their place in the model."""
    names = {part.full: part for part in reversed(list(parts))}
    return ", ".join(f"{name} (at {names[name].where})" for name in sorted(names))


def load(data: bytes) -> Any:
    """Build the object of a skops file whose parts are all trusted; `untrusted` tells."""
    import skops.io

    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
