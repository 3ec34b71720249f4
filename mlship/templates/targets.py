"""Which column of its data a script predicts, as its code says."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Final

from mlship.templates.scripts import Script
from mlship.templates.syntax import bindings, name_of

_TARGETS: Final = ("y", "target", "label", "labels", "y_train", "Y", "y_all")
_TARGET_NAMES: Final = ("target", "target_col", "target_column", "label_col", "label_column")
_FITTERS: Final = ("fit", "partial_fit", "fit_transform", "fit_resample")
_DATA_SETS: Final = ("Dataset", "DMatrix", "QuantileDMatrix", "Pool")
_LABELS: Final = ("y", "label")
_TRANSFORMERS: Final = (
    "fit_transform",
    "transform",
    "to_categorical",
    "astype",
    "array",
    "asarray",
)
_MODULES: Final = ("np", "numpy", "pd", "pandas")
_SETTINGS: Final = re.compile(
    r"(.*_)?(cfg|conf|config|params?|settings?|args|opts?|options|safe_load)", re.IGNORECASE
)
_DEEPEST: Final = 60


def target_of(script: Script, columns: Sequence[str] = ()) -> str:
    """Return the column that a script predicts; empty if its code does not say which.

    It is what is assigned to `y` and its like, what is given to `fit` beside the features, or what
    a constant such as `TARGET` names. One that the data have comes first.

    Args:
        script: that trains.
        columns: of its data, in their order; none if they are not known.
    """
    named = [column for column in _Columns(script, columns).named() if column]
    constants = (
        script.known.get(name, "") for name in script.known if name.lower() in _TARGET_NAMES
    )
    named += [name for name in constants if name and "/" not in name]
    return next((name for name in named if name in columns), named[0] if named else "")


class _Columns:
    """The columns that expressions of a script take."""

    def __init__(self, script: Script, columns: Sequence[str]) -> None:
        self._script = script
        self._columns = columns
        self._followed: set[str] = set()
        self._bound: dict[str, list[ast.expr]] = {}
        for name, value in bindings(script.tree):
            self._bound.setdefault(name, []).append(value)

    def named(self) -> Iterator[str]:
        """Yield the columns that are targets, likely ones first."""
        for name in self._bound:
            if name in _TARGETS:
                yield from map(self._column, self._bound[name])
        for call in self._script.calls():
            yield from map(self._column, _labels(call))

    def _column(self, node: ast.AST) -> str:
        self._followed = set()
        return self._of(node, _DEEPEST)

    def _of(self, node: ast.AST, depth: int) -> str:
        """Return the column that an expression takes; empty if its name is not known."""
        if depth == 0:
            return ""
        match node:
            case ast.Name(id=name):
                values = () if name in self._followed else self._bound.get(name, ())
                self._followed.add(name)
                return next((text for value in values if (text := self._of(value, depth - 1))), "")
            case ast.Subscript(value=inner, slice=key):
                # The key of settings is no column: `cfg["target"]`, also in `df[cfg["target"]]`.
                text = "" if _is_of_settings(inner) else self._key(key)
                return text or self._of(inner, depth - 1)
            case ast.Call(func=ast.Attribute(attr="pop" | "get", value=inner), args=[key, *_]):
                return "" if _is_of_settings(inner) else self._key(key)
            case ast.Attribute(value=inner, attr=name):
                text = self._of(inner, depth - 1)
                return text or (name if name in self._columns else "")
        columns = (self._of(child, depth - 1) for child in _parts(node))
        return next((column for column in columns if column), "")

    def _key(self, key: ast.expr) -> str:
        """Return the column of `"a"`, `["a"]`, `:, -1`, `:, "a"` or `df.columns[-1]`."""
        match key:
            case ast.Tuple(elts=[ast.Slice(), place]):
                return self._at(place) or self._key(place)
            case ast.List(elts=[only]):
                return self._key(only)
            case ast.Subscript(value=ast.Attribute(attr="columns"), slice=place):
                return self._at(place)
        return self._script.value(key)

    def _at(self, place: ast.expr) -> str:
        """Return the column at a place in the data: `-1`, or `-1:` for the last one."""
        match place:
            case ast.Slice(lower=ast.expr() as lower, upper=None, step=None):
                number = _number(lower)
                return self._columns[-1] if number == -1 and self._columns else ""
            case ast.List(elts=[only]):
                place = only
        number = _number(place)
        if number is None or not -len(self._columns) <= number < len(self._columns):
            return ""
        return self._columns[number]


def _labels(call: ast.Call) -> Iterator[ast.expr]:
    """Yield what a call gets as the truth of rows: `fit(X, y)`, `Dataset(X, label=y)`."""
    if name_of(call) in (*_FITTERS, *_DATA_SETS):
        yield from call.args[1:2]
        yield from (keyword.value for keyword in call.keywords if keyword.arg in _LABELS)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of an expression that its value is made of.

    What a function does with its arguments is known of few: of those of numpy and pandas.
    """
    if not isinstance(node, ast.Call):
        yield from ast.iter_child_nodes(node)
        return
    match node.func:
        case ast.Attribute(value=ast.Name(id=name)) if name in _MODULES:
            is_known = not name_of(node).startswith("read")
        case _:
            is_known = name_of(node) in _TRANSFORMERS
    yield node.func
    yield from (part for part in node.args if is_known or not isinstance(part, ast.Name))


def _number(node: ast.expr) -> int | None:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return -number
    return None


def _is_of_settings(node: ast.expr) -> bool:
    """Return whether an expression is a part of settings: `cfg`, `self.params["data"]`."""
    while True:
        match node:
            case ast.Attribute(value=inner, attr=name):
                pass
            case ast.Subscript(value=inner):
                name = ""
            case ast.Call(func=inner):
                name = ""
            case _:
                return _SETTINGS.fullmatch(getattr(node, "id", "")) is not None
        if _SETTINGS.fullmatch(name):
            return True
        node = inner
