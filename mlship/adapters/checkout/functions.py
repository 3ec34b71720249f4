"""The functions that mlship.yaml names, as the project's source has them. Nothing is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mlship.adapters.checkout import code, shadows
from mlship.config import distributions
from mlship.config.project import Config
from mlship.errors import ProjectError

_LITERALS: Final = (ast.Constant, ast.List, ast.Dict, ast.Tuple, ast.Set, ast.JoinedStr)


class _Named(NamedTuple):
    key: str
    name: str
    parameters: tuple[str, ...]


def check(root: Path, config: Config) -> int:
    """Check that each function is in its module and takes what mlship gives it; count them.

    A module that is not a file of the project, and a name that is not defined plainly, such as one
    of `from module import *`, are taken as they are.

    Raises:
        ProjectError: a module or a function is not there, is no function, or takes other
            parameters; or a module has the name of one that mlship needs.
    """
    shadows.check_names(root, config.model)
    named = list(_named(config))
    for one in named:
        _check(root, one)
    return len(named)


def _named(config: Config) -> Iterator[_Named]:
    model, promote = config.model, config.gates.promote
    hooks = {
        "model.train": (model.train, ("data", "params")),
        "model.preprocess": (model.preprocess, ("rows",)),
        "model.postprocess": (model.postprocess, ("outputs",)),
        "gates.promote.metric": (promote.metric if ":" in promote.metric else None, ()),
    }
    for key, (name, parameters) in hooks.items():
        if name is not None:
            yield _Named(key, name, parameters)
    for key, name in config.metrics.items():
        if ":" in name:
            yield _Named(f"metrics.{key}", name, ("truth", "outputs"))


def _check(root: Path, named: _Named) -> None:
    module, _, function = named.name.partition(":")
    code.closure(root, [module])  # what is not Python is named, also in what it imports
    file = code.source_of(root, module)
    if file is None:
        if (root / module.partition(".")[0]).is_dir() or not _is_installed(module):
            message = (
                f"mlship.yaml: {named.key} names {named.name}, and there is no {_file(module)}"
            )
            raise ProjectError(message, hint="correct the name, or write the file")
        if copied := code.hint_of_copy(root, module):
            message = f"mlship.yaml: {named.key} names {named.name}, of a copy that is installed"
            raise ProjectError(message, hint=copied)
        return
    tree = ast.parse(file.read_bytes())
    place = file.relative_to(root).as_posix()
    bound = _bound(tree, function)
    if bound is None:
        if any(_is_star(node) for node in ast.walk(tree)):
            return
        message = f"mlship.yaml: {named.key} names {named.name}, and {place} has no {function}"
        raise ProjectError(message, hint=f"define {_signature(function, named)} there")
    if isinstance(bound, ast.Assign | ast.AnnAssign) and isinstance(bound.value, _LITERALS):
        message = f"{place}:{bound.lineno}: {function} is no function, and mlship.yaml: "
        message += f"{named.key} names it"
        raise ProjectError(message, hint=f"define {_signature(function, named)} there")
    if isinstance(bound, ast.FunctionDef) and not _takes(bound.args, len(named.parameters)):
        message = f"{place}:{bound.lineno}: mlship calls {_signature(function, named)}, and "
        message += f"{function} takes other parameters"
        raise ProjectError(message, hint="correct its parameters")


def _bound(tree: ast.Module, name: str) -> ast.stmt | None:
    """Return the last statement that binds a name at the top level of a module."""
    found: ast.stmt | None = None
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if name in _names(node):
            found = node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
            handlers = getattr(node, "handlers", ())
            waiting = [*inner, *(part for each in handlers for part in each.body), *waiting]
    return found


def _names(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
        case ast.Assign(targets=targets):
            goals = [part for target in targets for part in ast.walk(target)]
            return {goal.id for goal in goals if isinstance(goal, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _takes(arguments: ast.arguments, count: int) -> bool:
    """Return whether a function can be called with so many positional arguments; 0: not known."""
    plain = len(arguments.posonlyargs) + len(arguments.args)
    needed = plain - len(arguments.defaults)
    keywords = [default for default in arguments.kw_defaults if default is None]
    most = count if arguments.vararg else plain
    return not count or (needed <= count <= most and not keywords)


def _is_star(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)


def _is_installed(module: str) -> bool:
    return bool(distributions.of_modules([module.partition(".")[0]]))


def _file(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def _signature(function: str, named: _Named) -> str:
    return f"{function}({', '.join(named.parameters) or '...'})"
