"""The user's functions, found and called: preprocess, train, postprocess."""

import importlib
import math
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from mlship.adapters.checkout import code, shadows
from mlship.config.commands import TRAINING_ROWS
from mlship.config.project import Config
from mlship.domain.bundle import Field
from mlship.errors import ProjectError
from mlship.runtime.hooks import checked
from mlship.training import heldout, script
from mlship.training.batches import Batches
from mlship.training.blame import blame, called, hint_of_missing, one_process
from mlship.training.columns import fields_of
from mlship.training.data import Data, nearest

Function = Callable[..., Any]
_BACKWARDS: Final = 200
"""So many held-out rows are prepared a second time, in the opposite order."""


@dataclass(frozen=True)
class Prepared:
    """Features after `preprocess`, in the order that the model is given them."""

    train: pd.DataFrame
    test: pd.DataFrame
    columns: tuple[Field, ...]


def find(root: Path, name: str) -> Function:
    """Return the function that `module:function` names, imported from the project or its `src/`.

    Raises:
        ProjectError: there is no such module or function, importing it fails, or Python has loaded
            another module in its place.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module, _, function = name.partition(":")
    folder = code.folder_of(root, module)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    shadows.check_loaded(root, [module])
    try:
        with one_process(module):
            found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module + ".").startswith(error.name + "."):
            message = f"mlship.yaml names {name}, and {root} has no module {error.name}"
            known = sorted(path.stem for path in root.glob("*.py"))
            raise ProjectError(message, hint=nearest(module, known)) from error
        message = f"{module} cannot be imported: {blame(error, root)}"
        raise ProjectError(message, hint=hint_of_missing(root, error.name or "")) from error
    except BaseException as error:  # importing runs the user's code
        message = f"{module} cannot be imported: {blame(error, root)}"
        raise ProjectError(message, hint="correct the code there") from error
    if not callable(getattr(found, function, None)):
        message = f"mlship.yaml names {name}, and {module} has no function {function}"
        known = sorted(key for key, value in vars(found).items() if callable(value))
        raise ProjectError(message, hint=nearest(function, known))
    return getattr(found, function)  # type: ignore[no-any-return]


def prepare(root: Path, data: Data, hook: str | None) -> Prepared:
    """Apply `preprocess` to the features of both parts, as serving does to each request.

    mlship applies it, and not the training function, so that training and serving cannot differ.

    Raises:
        ProjectError: it raises, returns no DataFrame of as many rows, or makes of one row
            something else than of the same row among others or in another place.
    """
    if hook is None:
        return Prepared(train=data.train, test=data.test, columns=data.fields)
    function = find(root, hook)
    train = (
        call_hook(root, hook, function, data.train)
        if data.batches is None
        else _prepared_in_batches(root, hook, function, data.train, data.batches)
    )
    test = call_hook(root, hook, function, data.test)
    _check_columns(hook, "the held-out rows", train, test)
    taken = next((name for name in data.names if name in train.columns), None)
    if taken is not None:
        message = f"{hook} returns a column {taken}, which is the target"
        raise ProjectError(message, hint="give it another name")
    for number in range(min(3, len(test))):
        alone = call_hook(root, hook, function, data.test.iloc[[number]].reset_index(drop=True))
        _check_columns(hook, "a row alone", train, alone)
        _check_alike(hook, test.iloc[[number]], alone, "a row alone")
    # Backwards: a hook that sorts its rows, or puts parts of them together, gives others then.
    places = np.unique(np.linspace(0, len(test) - 1, _BACKWARDS).astype(int))[::-1]
    back = call_hook(root, hook, function, data.test.iloc[places].reset_index(drop=True))
    _check_columns(hook, "fewer rows", train, back)
    _check_alike(hook, test.iloc[places], back, "a row in another place")
    return Prepared(train=train, test=test, columns=fields_of(pd.concat([train, test])))


def _prepared_in_batches(
    root: Path, hook: str, function: Function, sample: pd.DataFrame, batches: Batches
) -> pd.DataFrame:
    """Apply `preprocess` to one batch of rows after the other, and keep the features.

    The rows of the sample are prepared once more, at once: their neighbours are others then.
    """
    parts: list[pd.DataFrame] = []
    first = 1
    for rows in batches.features():
        parts.append(call_hook(root, hook, function, rows))
        _check_columns(hook, f"rows {first} to {first + len(rows) - 1}", parts[0], parts[-1])
        first += len(rows)
    # One column at a time, so that not all features are there twice.
    names = list(parts[0].columns)
    columns = {name: pd.concat([p.pop(name) for p in parts], ignore_index=True) for name in names}
    train = pd.DataFrame(columns, copy=False)
    alone = call_hook(root, hook, function, sample)
    _check_columns(hook, "a sample of the rows", train, alone)
    numbers = sample.index.to_numpy()
    where = "row {row} of " + batches.config.train + " among others"
    _check_alike(hook, train.iloc[numbers], alone, where, numbers)
    return train


def hook(root: Path, name: str | None) -> Callable[[pd.DataFrame], pd.DataFrame] | None:
    """Return what applies a hook to a DataFrame; `None` without one."""
    if name is None:
        return None
    function = find(root, name)
    return lambda frame: call_hook(root, name, function, frame)


def call_hook(root: Path, name: str, function: Function, frame: pd.DataFrame) -> pd.DataFrame:
    """Return what a hook makes of a DataFrame, with a plain index.

    Raises:
        ProjectError: it raised, or returned something else, or other rows than it was given.
    """
    result = called(root, name, lambda: function(frame.reset_index(drop=True)))
    prepared: pd.DataFrame = checked(result, frame, name)
    prepared.columns = [str(column) for column in prepared.columns]
    return prepared


def fit(
    root: Path, config: Config, data: Data, prepared: Prepared, rows: Path | None = None
) -> Any:
    """Run the training function with features and targets, or the command; return the model.

    Where `data.split` makes the held-out rows, the training rows are written into the file `rows`,
    which `MLSHIP_TRAIN_DATA` names to the command.

    The seeds of `random`, numpy and PyTorch are set to 0 before, so that code that does not set its
    own makes the same model of the same inputs.

    Raises:
        ProjectError: it raised, exited, or returned nothing.
    """
    name = config.model.source
    random.seed(0)
    np.random.seed(0)
    if config.model.command is not None:
        if rows is not None:
            heldout.write(_with_targets(data.train, data, as_file=True), rows, config.data.read)
            os.environ[TRAINING_ROWS] = str(rows)
        return script.run(root, config.model, config.model.command, str(config.model.saved))
    function = find(root, name)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    frame = _with_targets(prepared.train, data, as_file=config.model.preprocess is None)
    model = called(root, name, lambda: function(frame, dict(config.model.params)))
    if model is None:
        message = f"{name} returned nothing"
        raise ProjectError(message, hint="return the fitted estimator, or the path of a model")
    return model


def _with_targets(features: pd.DataFrame, data: Data, *, as_file: bool) -> pd.DataFrame:
    """Return training rows with the targets in their places in the file, or at the end."""
    frame = features.copy()
    for target in sorted(data.targets, key=lambda target: target.place):
        frame.insert(target.place if as_file else len(frame.columns), target.name, target.train)
    return frame


def _check_columns(hook: str, where: str, train: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse a hook that makes other columns of other rows."""
    wanted, got = list(train.columns), list(other.columns)
    if wanted == got:
        return
    odd = [name for name in wanted if name not in got] + [n for n in got if n not in wanted]
    what = f"column {odd[0]} on one side only" if odd else "another order of columns"
    message = f"{hook} returns other columns for {where} than for the training rows: {what}"
    hint = "return the same columns for any rows: encode inside the model, not with get_dummies"
    raise ProjectError(message, hint=hint)


def _check_alike(
    hook: str, among: pd.DataFrame, other: pd.DataFrame, where: str, numbers: Any = None
) -> None:
    """Refuse a hook that makes something else of the same rows elsewhere.

    Args:
        hook: its name.
        among: what it makes of the rows.
        other: what it makes of them elsewhere.
        where: says where; `{row}` is replaced by a row's number, from 1.
        numbers: of the rows, from 0, if `where` says them.
    """
    for place, name in enumerate(among.columns):
        one, two = among.iloc[:, place], other.iloc[:, place]
        differing = np.flatnonzero(~_are_same(one, two))
        if len(differing):
            row = differing[0] if numbers is None else numbers[differing[0]]
            place_ = where.replace("{row}", str(row + 1))
            message = f"{hook} returns {name} = {two.iloc[differing[0]]} for {place_}, and "
            message += f"{one.iloc[differing[0]]} for the same row among others"
            hint = "compute a row's features from that row only, and return the rows in the order "
            hint += "in which they came; fit the rest inside the model"
            raise ProjectError(message, hint=hint)


def _are_same(one: pd.Series, two: pd.Series) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return for each pair of values whether it is the same, but for the order of a sum."""
    both = (one.to_numpy(), two.to_numpy())
    kinds = {values.dtype.kind for values in both}
    if kinds <= set("iub"):
        return np.asarray(both[0] == both[1])
    if kinds <= set("iubf"):
        is_wide = min(values.dtype.itemsize for values in both if values.dtype.kind == "f") >= 8
        relative, absolute = (1e-9, 1e-12) if is_wide else (1e-4, 1e-6)
        return np.asarray(np.isclose(*both, rtol=relative, atol=absolute, equal_nan=True))
    return np.array([_is_same(*pair) for pair in zip(one, two, strict=True)], dtype=bool)


def _is_same(one: Any, other: Any) -> bool:
    try:
        if one == other or (pd.isna(one) and pd.isna(other)):
            return True
        both_are_floats = all(isinstance(each, float | np.floating) for each in (one, other))
        return both_are_floats and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    except (TypeError, ValueError):
        # A list or an array, or the missing value of pandas beside another value.
        return repr(one) == repr(other)
