"""Where a script reads the whole file of `data.split`, and how it reads its own part instead."""

import ast

from mlship.config.commands import TRAINING_ROWS
from mlship.templates.scripts import Script


def knows(script: Script) -> bool:
    """Return whether a script, or a file that it imports, names the variable."""
    return any(
        isinstance(node, ast.Constant) and node.value == TRAINING_ROWS
        for each in (script, *script.imported)
        for node in ast.walk(each.tree)
    )


def change_of(script: Script, train: str) -> str:
    """Return the line to change in a script, and what it becomes; empty if it was not found.

    Args:
        script: that trains.
        train: the path of the data, in the project.
    """
    for each in (script, *script.imported):
        for call in each.calls():
            path = each.read_by(call)
            if path == train:
                return _changed(each, call, call.args[0])
    return ""


def _changed(script: Script, call: ast.Call, argument: ast.expr) -> str:
    written = ast.unparse(argument)
    if "environ" in written or "getenv" in written:
        return ""
    new = ast.unparse(call).replace(written, f'os.environ.get("{TRAINING_ROWS}", {written})', 1)
    needs = "" if _imports_os(script.tree) else ", with `import os` above"
    return f"in line {call.lineno} of {script.name}, replace {ast.unparse(call)} by {new}{needs}"


def _imports_os(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Import)
        and any(alias.name == "os" and not alias.asname for alias in node.names)
        for node in ast.walk(tree)
    )
