"""Python syntax: what is assigned to which name, and what a call calls."""

import ast
from collections.abc import Iterator


def name_of(call: ast.Call) -> str:
    """Return the last name of what is called: `read_csv` of `pd.read_csv(...)`."""
    return last_name(call.func)


def last_name(node: ast.expr) -> str:
    """Return the last part of a dotted name; empty for another expression."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield the goals and values of an assignment, also of `X, y = a, b` and `x: int = 1`."""
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        yield node.target, node.value
    if not isinstance(node, ast.Assign):
        return
    for goal in node.targets:
        if isinstance(goal, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(goal.elts, node.value.elts, strict=False)
        else:
            yield goal, node.value


def bindings(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield names with the expressions that they may stand for, in no order of execution.

    Beside assignments: `a, b = train_test_split(x, y)`, which splits each argument in two;
    `x, y = load()` and `x = load()` of a function of the file; and the parameters of such a
    function, where it is called.
    """
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        for goal, value in assignments(node):
            if isinstance(goal, ast.Name):
                yield goal.id, value
            yield from _returned(goal, value, functions)
        if isinstance(node, ast.Call) and (function := functions.get(name_of(node))):
            names = [argument.arg for argument in function.args.args]
            yield from zip(names, node.args, strict=False)
            yield from ((key.arg, key.value) for key in node.keywords if key.arg in names)


def _returned(
    goal: ast.expr, value: ast.expr, functions: dict[str, ast.FunctionDef]
) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names of an assignment with what the call that is assigned returns for them."""
    if not isinstance(value, ast.Call):
        return
    goals = goal.elts if isinstance(goal, ast.Tuple) else [goal]
    names = [part.id if isinstance(part, ast.Name) else "" for part in goals]
    if name_of(value) == "train_test_split":
        yield from (
            (name, value.args[n // 2]) for n, name in enumerate(names[: 2 * len(value.args)])
        )
    elif function := functions.get(name_of(value)):
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and node.value is not None:
                parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                if len(parts) == len(names):
                    yield from zip(names, parts, strict=True)
