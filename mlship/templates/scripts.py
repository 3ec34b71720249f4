"""What a Python script says of itself: the paths that it names, its target, how it is started.

The script is read as syntax and never run. Paths are followed through constants, `Path`, `/`,
`os.path.join`, f-strings, `__file__` and names that are imported from other files of the project.
"""

import ast
import posixpath
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mlship import files
from mlship.config import packages
from mlship.templates.syntax import assignments, last_name, name_of

_IMPORTS_FOLLOWED: Final = 1
_LARGEST: Final = 1_000_000
_LONGEST: Final = 300
_SHOWN: Final = 40
_PATHS: Final = ("Path", "PurePath", "PosixPath", "str", "abspath", "realpath", "fspath")
_READERS: Final = ("read_", "loadtxt", "genfromtxt", "load_dataset", "scan_")
_WRITERS: Final = (
    *("dump", "save", "save_model", "save_pretrained", "to_pickle", "write_bytes", "export"),
    *("save_weights", "SerializeToString"),
)
_RECORDS: Final = ("json", "yaml", "toml", "tomli_w", "msgspec")
_COMPOSERS: Final = ("join", "joinpath", "with_name", "with_suffix", *_PATHS)
_FITTERS: Final = ("fit", "fit_transform", "train", "fit_predict")
_SAME: Final = ("resolve", "absolute", "expanduser", "as_posix")


class Script:
    """A Python file of a project.

    Args:
        root: the project's folder.
        name: the path of the file from there.
    """

    def __init__(self, root: Path, name: str, *, follow: int = _IMPORTS_FOLLOWED) -> None:
        self.name = name
        self._root = root
        self._folders = [
            place.relative_to(root).as_posix().removeprefix(".") for place in packages.folders(root)
        ]
        self.problem = ""
        """Why it cannot be read as Python; empty if it can."""
        try:
            self.tree = _parsed(root / name)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.tree = ast.Module(body=[], type_ignores=[])
            self.problem = _described(error)
        self.known: dict[str, str] = {"__file__": name}
        self.imported: list[Script] = []
        """The files of the project that it imports names from."""
        if follow:
            self._import(follow - 1)
        self._assign()

    @property
    def is_script(self) -> bool:
        """Whether starting the file does something: it has more than definitions."""
        plain = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
        return any(
            not isinstance(node, (*plain, ast.AnnAssign))
            and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            for node in self.tree.body
        )

    @property
    def command(self) -> str:
        """How it is started from the project's folder: by its path, or as a module."""
        module = self.name.removesuffix(".py").replace("/", ".")
        return shlex.join(["python", *(["-m", module] if self._needs_package() else [self.name])])

    def paths(self) -> list[str]:
        """Return the texts that may be paths of the project, the most complete ones first."""
        found: dict[str, None] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.expr) and (text := self.value(node)):
                found[_normal(text)] = None
        texts = [*found, *(_normal(text) for text in self.known.values())]
        no_paths = {"", self.name, *self._parts()}
        texts = list(dict.fromkeys(text for text in texts if text not in no_paths))
        # What is a part of a longer one was joined to it.
        return [
            text
            for text in texts
            if not any(other != text and other.endswith(f"/{text}") for other in texts)
        ]

    def reads(self) -> list[str]:
        """Return the paths of data that it reads, as far as they are known."""
        return [path for call in self.calls() if (path := self.read_by(call))]

    def read_by(self, call: ast.Call) -> str:
        """Return the path of data that a call reads; empty if it reads none that is known."""
        is_reader = name_of(call).startswith(_READERS) and call.args
        return self.path_of(call.args[0]) if is_reader else ""

    def path_of(self, node: ast.expr) -> str:
        """Return the path that an expression stands for; empty if it is not known."""
        return _normal(self.value(node))

    def saved_models(self) -> list[str]:
        """Return the paths that it gives to `save_model`, whatever their endings."""
        return [
            _normal(text)
            for call in self.calls()
            if name_of(call) == "save_model"
            for argument in (*call.args, *(keyword.value for keyword in call.keywords))
            if (text := self.value(argument))
        ]

    @property
    def saving(self) -> str:
        """The first call that may write a file of a model: `joblib.dump in line 12`."""
        for call in self.calls():
            text = ast.unparse(call.func)
            if name_of(call) in _WRITERS and text.partition(".")[0] not in _RECORDS:
                shown = text if len(text) < _SHOWN else name_of(call)
                return f"{shown} in line {call.lineno}"
        return ""

    @property
    def fits(self) -> bool:
        """Whether it trains a model, as far as its calls show."""
        return any(name_of(call) in _FITTERS for call in self.calls())

    @property
    def functions(self) -> dict[str, int]:
        """The number of positional parameters of each function at its top level, by name."""
        defined = [node for node in self.tree.body if isinstance(node, ast.FunctionDef)]
        return {node.name: len(node.args.args) for node in defined}

    @property
    def foreign_modules(self) -> tuple[str, ...]:
        """The top-level modules that it and the project's files that it imports take from others.

        Those of Python and of the project are left out.
        """
        nodes = [node for each in (self, *self.imported) for node in ast.walk(each.tree)]
        named = {
            name
            for node in nodes
            if not (isinstance(node, ast.ImportFrom) and node.level)
            for name in _packages(node)
        }
        places = [self._root / place for place in (posixpath.dirname(self.name), *self._folders)]
        own = {name for name in named for place in places if _has_module(place, name)}
        return tuple(sorted(named - own - sys.stdlib_module_names))

    def calls(self) -> Iterator[ast.Call]:
        """Yield all calls in the file."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))

    def _import(self, follow: int) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and (file := self._file_of(node)):
                self.imported.append(Script(self._root, file, follow=follow))
                known = self.imported[-1].known
                for alias in node.names:
                    if alias.name in known:
                        self.known[alias.asname or alias.name] = known[alias.name]

    def _file_of(self, node: ast.ImportFrom) -> str:
        parts = (node.module or "").split(".") if node.module else []
        here = posixpath.dirname(self.name)
        for _ in range(node.level - 1):
            here = posixpath.dirname(here)
        places = [here] if node.level else [here, *self._folders]
        for place in places:
            file = posixpath.join(place, *parts) + ".py"
            if parts and (self._root / file).is_file():
                return file
        return ""

    def _assign(self) -> None:
        for node in ast.walk(self.tree):
            for goal, value in assignments(node):
                if isinstance(goal, ast.Name) and (text := self.value(value)):
                    self.known.setdefault(goal.id, text)

    @property
    def installed_package(self) -> str:
        """The package that the file is in and imports by name, below a folder such as `src`.

        Python finds it only where the project is installed. Empty if there is none.
        """
        parts = self.name.split("/")[1:-1]
        imported = {name for node in ast.walk(self.tree) for name in _packages(node)}
        return next((part for part in parts if part in imported), "")

    def _needs_package(self) -> bool:
        """Whether it imports its own package by name, so that its path alone does not start it."""
        package = self.name.partition("/")[0] if "/" in self.name else ""
        return bool(package) and any(
            package in _packages(node) or (isinstance(node, ast.ImportFrom) and node.level > 0)
            for node in ast.walk(self.tree)
        )

    def _parts(self) -> set[str]:
        """Return the texts that are parts of paths of which other parts are not known."""
        parts: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.expr) and not self.value(node):
                parts |= {_normal(self.value(part)) for part in _operands(node)}
        return parts

    def value(self, node: ast.AST) -> str:
        """Return the text of an expression; empty if it is not known."""
        match node:
            case ast.Constant(value=str() as text):
                return text if len(text) < _LONGEST and "\n" not in text else ""
            case ast.Name(id=name):
                return self.known.get(name, "")
            case ast.Call(func=function, args=[_, default]) if _is_variable(function):
                return self.value(default)
            case ast.Call(func=function, args=arguments):
                return self._called(function, arguments)
            case ast.Attribute() | ast.Subscript():
                return self._parent(node)
        return self._composed(node)

    def _composed(self, node: ast.AST) -> str:
        """Return the text of a sum, of paths that are joined by `/`, or of an f-string."""
        match node:
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._joined([left, right])
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                parts = [self.value(left), self.value(right)]
            case ast.JoinedStr(values=values):
                parts = [self.value(_inner(value)) for value in values]
            case _:
                parts = []
        return "".join(parts) if all(parts) else ""

    def _parent(self, node: ast.Attribute | ast.Subscript) -> str:
        """Return the text of `path.parent` or `path.parents[1]`."""
        match node:
            case ast.Attribute(value=inner, attr="parent"):
                levels = 1
            case ast.Subscript(
                value=ast.Attribute(value=inner, attr="parents"), slice=ast.Constant(value=int(up))
            ):
                levels = up + 1
            case _:
                return ""
        text = self.value(inner)
        for _ in range(levels):
            text = posixpath.dirname(text)
        return text or "."

    def _called(self, function: ast.expr, arguments: list[ast.expr]) -> str:
        name = last_name(function)
        if name == "cwd" or (name == "getcwd" and not arguments):
            return "."
        if name == "dirname" and arguments:
            return posixpath.dirname(self.value(arguments[0])) or "."
        if name in ("join", "joinpath") and isinstance(function, ast.Attribute):
            is_module = self.value(function.value) == ""
            return self._joined(arguments if is_module else [function.value, *arguments])
        if name in ("with_name", "with_suffix") and isinstance(function, ast.Attribute):
            return self._renamed(name, function.value, arguments)
        if name in _SAME and isinstance(function, ast.Attribute) and not arguments:
            return self.value(function.value)
        return self._joined(arguments) if name in _PATHS and arguments else ""

    def _renamed(self, name: str, path: ast.expr, arguments: list[ast.expr]) -> str:
        """Return the text of `path.with_name("b.pkl")` or `path.with_suffix(".pkl")`."""
        text = self.value(path)
        part = self.value(arguments[0]) if len(arguments) == 1 else ""
        if not (text and part):
            return ""
        if name == "with_name":
            return posixpath.join(posixpath.dirname(text), part)
        return posixpath.splitext(text)[0] + part

    def _joined(self, nodes: list[Any]) -> str:
        parts = [self.value(node) for node in nodes]
        return posixpath.join(*parts) if parts and all(parts) else ""


def _is_variable(function: ast.expr) -> bool:
    """Return whether a call reads an environment variable: `os.getenv`, `os.environ.get`."""
    return ast.unparse(function).endswith(("getenv", "environ.get"))


def _operands(node: ast.expr) -> list[ast.expr]:
    """Return the expressions of which one composes a path or a text."""
    match node:
        case ast.JoinedStr(values=values):
            return [_inner(value) for value in values]
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.Call(func=function, args=arguments) if last_name(function) in _COMPOSERS:
            return arguments
    return []


def _packages(node: ast.AST) -> set[str]:
    """Return the top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def _has_module(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def _inner(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.FormattedValue) else node


def _normal(text: str) -> str:
    text = text.strip()
    if not text or "://" in text or any(sign in text for sign in "{}%<>|*?\t"):
        return ""
    return posixpath.normpath(text) if "/" in text else text


def _parsed(path: Path) -> ast.Module:
    """Return the syntax of a file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        SyntaxError: it is not Python; so are ValueError, RecursionError and MemoryError.
    """
    data = files.read_regular(path, _LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST:,} bytes")
    return ast.parse(data)


def _described(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        line = (error.text or "").strip()
        magic = ", a command of notebooks" if line[:1] in ("%", "!") else ""
        return f"line {error.lineno}: {error.msg}{magic}"
    return str(error) or type(error).__name__
