"""How a script reads its data: with which options, and how it reads only the rows for training."""

import ast
from collections.abc import Iterator
from typing import Any, Final

from mlship.config.commands import TRAINING_ROWS
from mlship.templates.scripts import Script
from mlship.templates.syntax import name_of

_READ_CSV: Final = ("read_csv", "read_table")
_DEFAULTS: Final[dict[str, Any]] = {"sep": ",", "decimal": ".", "keep_default_na": True}
_OPTIONS: Final[dict[str, type | tuple[type, ...]]] = {
    "sep": str,
    "decimal": str,
    "thousands": str,
    "encoding": str,
    "na_values": list,
    "keep_default_na": bool,
    "index_col": (int, str),
    "dtype": dict,
    "parse_dates": list,
}
"""The options in `data.read`, with their types."""


def options_of(script: Script, train: str) -> dict[str, Any]:
    """Return the options with which a script reads its data, as `data.read` has them.

    Only values that are written in the call are known. Defaults are left out.

    Args:
        script: that trains.
        train: the path of the data, in the project.
    """
    calls = [call for _, call in _calls(script) if name_of(call) in _READ_CSV]
    known = [call for each, call in _calls(script) if call in calls and each.read_by(call) == train]
    chosen = known[:1] or (calls if len(calls) == 1 else [])
    options = {} if not chosen or name_of(chosen[0]) == "read_csv" else {"sep": "\t"}
    for keyword in (keyword for call in chosen for keyword in call.keywords):
        name = "sep" if keyword.arg == "delimiter" else keyword.arg or ""
        value = _literal(keyword.value)
        if name == "na_values" and isinstance(value, str):
            value = [value]
        is_kind = name in _OPTIONS and isinstance(value, _OPTIONS[name]) and _is_plain(value)
        # False is a number to Python.
        if is_kind and not (name == "index_col" and value is False):
            options[name] = value
    # Of several characters, pandas takes it for a regular expression.
    if len(options.get("sep", ",")) != 1:
        del options["sep"]
    return {name: value for name, value in options.items() if value != _DEFAULTS.get(name)}


def knows_rows(script: Script) -> bool:
    """Return whether a script, or a file that it imports, names `MLSHIP_TRAIN_DATA`."""
    return any(
        isinstance(node, ast.Constant) and node.value == TRAINING_ROWS
        for each in (script, *script.imported)
        for node in ast.walk(each.tree)
    )


def change_of(script: Script, train: str) -> str:
    """Return which expression of a script to replace, and by what; empty if it was not found.

    That is the path that a call reads, or else the one place where the path stands, such as the
    default of an option.
    """
    for each, call in _calls(script):
        if each.read_by(call) == train:
            return _replaced(each, call, call.args[0])
    for each in (script, *script.imported):
        places = [
            node
            for node in ast.walk(each.tree)
            if isinstance(node, ast.Constant) and each.path_of(node) == train
        ]
        if len(places) == 1:
            return _replaced(each, places[0], places[0])
    return ""


def _calls(script: Script) -> Iterator[tuple[Script, ast.Call]]:
    """Yield the calls of a script and of what it imports."""
    for each in (script, *script.imported):
        yield from ((each, call) for call in each.calls())


def _replaced(script: Script, whole: ast.expr, path: ast.expr) -> str:
    written, old = ast.unparse(path), ast.unparse(whole)
    if "environ" in written or "getenv" in written:
        return ""
    new = old.replace(written, f'os.environ.get("{TRAINING_ROWS}", {written})', 1)
    needs = "" if _imports_os(script.tree) else ", with `import os` above"
    return f"in line {whole.lineno} of {script.name}, replace {old} by {new}{needs}"


def _imports_os(tree: ast.Module) -> bool:
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import))
    return any(
        (alias.name, alias.asname) == ("os", None) for node in imports for alias in node.names
    )


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _is_plain(value: object) -> bool:
    """Return whether a value is texts, numbers, or a list or mapping of texts."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    names = value if isinstance(value, dict) else ()
    return all(isinstance(part, str) for part in (*parts, *names))
