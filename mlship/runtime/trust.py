"""Which types and functions a skops file may name: an exact list, and what a bundle adds to it.

skops trusts whole kinds by itself, and looks names up in any module. Here each name is looked up
in `trusted.txt` for the use that the file makes of it, before anything is imported: an estimator
whose state is set is one thing, a function that an estimator calls another.
"""

import functools
import sys
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


def skops_io() -> Any:
    """Return `skops.io`, imported with the estimators of the list here as those that it trusts.

    To make its own list, which has no say here, it imports all of scikit-learn: that takes half a
    second, where a model needs a small part. Code of a project that loads a skops file by itself
    finds all of scikit-learn's estimators trusted, as skops does.
    """
    if "skops.io" in sys.modules:
        return sys.modules["skops.io"]
    from sklearn import utils

    kinds = (full.rpartition(".") for full in sorted(listed()["ObjectNode"]))
    estimators = [(name, type(name, (), {"__module__": module})) for module, _, name in kinds]
    usual = utils.all_estimators
    utils.all_estimators = lambda: estimators
    try:
        import skops.io
    finally:
        utils.all_estimators = usual
    return skops.io


def load(data: bytes, parts: Iterable[Part]) -> Any:
    """Build the object of a skops file whose parts are all trusted; `untrusted` tells."""
    io = skops_io()
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return io.loads(data, trusted=sorted({part.full for part in parts}))
    except UntrustedTypesFoundException:
        # skops names a few of them in another way.
        return io.loads(data, trusted=io.get_untrusted_types(data=data))
