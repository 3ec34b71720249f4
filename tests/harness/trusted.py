"""Brings mlship/runtime/trusted.txt up to date with the installed libraries.

    python -m tests.harness.trusted

It adds the estimators, losses, kernels, distances and number types that are installed, and takes
nothing away: models of former versions are still served, and functions were added by hand, each
after it was read. Read the difference before you commit it. A function must compute from its
arguments alone; a type whose `__setstate__` runs what it is given, as those of scipy.stats do, must
not be there.
"""

import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.special
import sklearn._loss.link as links
import sklearn._loss.loss as losses
from sklearn import metrics, model_selection
from sklearn._loss import _loss as compiled
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.gaussian_process import kernels
from sklearn.linear_model import _sgd_fast as sgd
from sklearn.metrics import _dist_metrics as distances
from sklearn.utils import all_estimators

import mlship.runtime

PATH = Path(mlship.runtime.__file__).parent / "trusted.txt"
HEAD = """\
# What a skops file may name, by the loader that uses it. tests/harness/trusted.py adds to it.
# Each name is exact. Estimators get the state that the file holds, and none of them runs it;
# functions compute from their arguments alone.
"""
NEVER_BUILT = re.compile(r"Mixin$|^Base|^PyFunc|^_")


def names() -> dict[str, set[str]]:
    """Return the full names that the installed libraries have, by use."""
    kinds = set(np.sctypeDict.values()) - {np.object_}
    scalars = {full(kind) for kind in kinds if kind.__module__ == "numpy"}
    splitters = set(_classes(model_selection._split, "sklearn.model_selection._split"))
    return {
        "ObjectNode": set(_objects()) | splitters,
        "FunctionNode": set(_functions()),
        "LossNode": {
            *(name for name in _classes(compiled, "sklearn._loss._loss") if ".Cy" in name),
            *_classes(sgd, "sklearn.linear_model._sgd_fast"),
        },
        "NdArrayNode": scalars,
        "SparseMatrixNode": {
            full(each)
            for name in dir(scipy.sparse)
            if re.fullmatch(r"[a-z]{3}_(array|matrix)", name)
            and inspect.isclass(each := getattr(scipy.sparse, name))
        },
        "TypeNode": scalars | splitters,
        "key": scalars,
    }


def full(kind: type) -> str:
    """Return the module and the name of a class."""
    return f"{kind.__module__}.{kind.__name__}"


def _objects() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimators = [kind for _, kind in all_estimators()]
    yield from (name for kind in estimators if (name := full(kind)).startswith("sklearn."))
    yield from _classes(losses, "sklearn._loss.loss")
    yield from _classes(links, "sklearn._loss.link")
    yield from _classes(kernels, "sklearn.gaussian_process.kernels")
    yield from _classes(distances, "sklearn.metrics._dist_metrics")


def _functions() -> Iterator[str]:
    yield from (f"numpy.{name}" for name in _ufuncs(np))
    for name in _ufuncs(scipy.special):
        yield f"scipy.special._ufuncs.{name}"
        yield f"scipy.special._special_ufuncs.{name}"
    for name in metrics.get_scorer_names():
        function: Any = metrics.get_scorer(name)._score_func
        yield f"{function.__module__}.{function.__name__}"


def _ufuncs(module: Any) -> set[str]:
    found = [getattr(module, name) for name in dir(module)]
    return {each.__name__ for each in found if isinstance(each, np.ufunc)}


def _classes(module: Any, name: str) -> Iterator[str]:
    """Return the concrete classes that a module defines."""
    for kind in vars(module).values():
        if not inspect.isclass(kind) or inspect.isabstract(kind):
            continue
        # Compiled classes name their module without its package.
        if name.endswith(kind.__module__) and not NEVER_BUILT.search(kind.__name__):
            yield f"{name}.{kind.__name__}"


def main() -> None:
    """Write the file; names that it has already stay."""
    from mlship.runtime.trust import listed

    known, found = listed(), names()
    merged = {use: known.get(use, frozenset()) | found.get(use, set()) for use in {*known, *found}}
    sections = [f"\n[{use}]\n" + "\n".join(sorted(merged[use])) + "\n" for use in sorted(merged)]
    PATH.write_text(HEAD + "".join(sections), "ascii")


if __name__ == "__main__":
    main()
