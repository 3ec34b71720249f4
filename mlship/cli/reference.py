"""The reference pages, made from the code that they describe: commands, settings, errors.

    python -m mlship.cli.reference docs/reference

The same code gives the same bytes, so that a test can tell whether the pages are current.
"""

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer
from msgspec import NODEFAULT
from msgspec import inspect as kinds

from mlship import errors, files
from mlship.cli.main import app
from mlship.config import project
from mlship.config.explain import PREFIX
from mlship.domain import digests

_MADE = "<!-- Made by `make docs` from the code. Do not edit. -->"
_COMMANDS = """\
`mlship --help` lists them, `mlship COMMAND --help` shows one. A RELEASE is named as
`iris@3f9a0c12be77`, by some of its digits, or as `champion` or `challenger`; without one it is the
release that the current commit made.
"""
_SETTINGS = """\
The keys of `mlship.yaml`. Each may also come from the environment, which wins over the file, and
from `--set KEY=VALUE`, which wins over both; `mlship doctor` lists what is set and by whom. Values
in the environment and in flags are read as YAML. NAME and METRIC stand for names of your own.
A variable's name is read in lower case: a name with capitals or a hyphen, as a parameter may have,
can be set in the file or by `--set` only.

`MLFLOW_TRACKING_URI` sets `store.uri` where `MLSHIP_STORE__URI` does not.
"""
_ERRORS = """\
A command that fails says what is wrong, with the name of the object, and the next action, both on
stderr; its exit code tells the kind. With `--json` the same is an object with `error`, `message`,
`hint` and `exit_code` on stdout. Exit code 0 is success; a call that cannot be parsed ends with 2,
as a wrong setting does. `--debug` shows the traceback instead.
"""
_WORDS = {"StrType": "text", "BoolType": "boolean", "AnyType": "anything"}


def pages() -> dict[str, str]:
    """Return every reference page by its file name.

    Each ends with a newline and depends on nothing but the code.
    """
    schema = msgspec.json.format(digests.canonical_json(project.json_schema()), indent=2)
    return {
        "commands.md": commands(),
        "settings.md": settings(),
        "errors.md": error_page(),
        "mlship.schema.json": schema.decode() + "\n",
    }


def write(folder: Path) -> None:
    """Write the pages into a folder, which is made if need be.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        files.write_atomically(folder / name, text.encode())


def commands() -> str:
    """Return the page of every command with its arguments, options, defaults and an example."""
    entry = app.registered_callback
    globals_ = _parameters(entry.callback) if entry and entry.callback else []
    parts = [
        _head("Commands"),
        _COMMANDS,
        "## Global options\n",
        "They may stand before or after the command.\n",
        _table(("option", "default", "meaning"), globals_),
    ]
    for command in app.registered_commands:
        if command.callback and command.name:
            parts += _command(command.name, command.callback)
    return "\n".join(parts)


def settings() -> str:
    """Return the page of every key of mlship.yaml: type, default, meaning, environment variable."""
    return "\n".join(
        [
            _head("Settings"),
            _SETTINGS,
            *_section(kinds.type_info(project.Config), ""),
        ]
    )


def error_page() -> str:
    """Return the page of every error with its exit code."""
    rows = []
    for name, kind in errors.tree().items():
        parent = "" if kind is errors.MlshipError else f"`{kind.__mro__[1].__name__}`"
        rows.append((f"`{name}`", str(kind.exit_code), parent, _paragraphs(kind)[0]))
    drawing = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    return "\n".join(
        [
            _head("Errors and exit codes"),
            _ERRORS,
            f"```text\n{inspect.cleandoc(drawing)}\n```\n",
            _table(("error", "exit code", "is a", "meaning"), rows),
        ]
    )


def _head(title: str) -> str:
    return f"# {title}\n\n{_MADE}\n"


def _command(name: str, callback: Callable[..., Any]) -> Iterator[str]:
    paragraphs = _paragraphs(callback)
    example = next(text for text in paragraphs if text.startswith("Example: "))
    arguments = [
        f"[{_metavar(argument, info)}]" if default is not NODEFAULT else _metavar(argument, info)
        for argument, info, _, default in _declared(callback)
        if isinstance(info, typer.models.ArgumentInfo)
    ]
    yield f"## `mlship {name}`\n"
    yield from (f"{text}\n" for text in paragraphs if text != example)
    yield f"```text\nmlship {' '.join([name, *arguments])} [OPTIONS]\n```\n"
    rows = _parameters(callback)
    if rows:
        yield _table(("argument or option", "default", "meaning"), rows)
    yield f"Example: `{example.removeprefix('Example: ')}`\n"


def _parameters(callback: Callable[..., Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, info, kind, default in _declared(callback):
        if isinstance(info, typer.models.OptionInfo):
            value = "" if kind is bool else f" {_metavar(name, info)}"
            shown = f"`{', '.join(_flags(name, info))}{value}`"
        else:
            shown = f"`{_metavar(name, info)}`"
        rows.append((shown, _default(default), info.help or ""))
    return rows


def _declared(callback: Callable[..., Any]) -> Iterator[tuple[str, Any, Any, Any]]:
    """Give name, typer's declaration, bare type and default of each parameter."""
    hints = typing.get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, info = _split(hints[name])
        if info is not None:
            missing = parameter.default is inspect.Parameter.empty
            yield name, info, kind, NODEFAULT if missing else parameter.default


def _split(hint: Any) -> tuple[Any, Any]:
    kind, *notes = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
    declarations = (typer.models.OptionInfo, typer.models.ArgumentInfo)
    info = next((one for one in notes if isinstance(one, declarations)), None)
    options = [one for one in typing.get_args(kind) if one is not type(None)]
    return (options[0] if len(options) == 1 else kind), info


def _flags(name: str, info: Any) -> list[str]:
    # In an Annotated, typer takes the first name that is given for the default.
    given = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    return [flag for one in given for flag in one.split("/")] or [f"--{name.replace('_', '-')}"]


def _metavar(name: str, info: Any) -> str:
    return str(info.metavar or name.upper())


def _default(value: Any) -> str:
    if value is NODEFAULT:
        return "required"
    return "" if value is None or value is False or value == "" else f"`{value}`"


def _section(kind: kinds.Type, prefix: str, default: Any = None) -> Iterator[str]:
    """Give a table of a section's keys, then the sections in it."""
    struct = _struct(kind)
    title = f"## `{prefix.rstrip('.')}`" if prefix else "## The file"
    yield f"{title}\n"
    yield f"{_paragraphs(struct.cls)[0]}\n"
    if isinstance(default, dict):
        changed = {name: _changed(value) for name, value in default.items()}
        yield f"By name; {meaning(kind).removeprefix('by name: ')}. Default: {_shown(changed)}\n"
    below = [(field, name) for field in struct.fields if (name := _inner(field))]
    rows = [_setting(field, prefix) for field in struct.fields if not _inner(field)]
    if rows:
        yield _table(("key", "type", "default", "meaning", "environment"), rows)
    for inner, name in below:
        default = None if inner.required else _default_of(inner)
        yield from _section(inner.type, f"{prefix}{name}.", default)


def _setting(field: kinds.Field, prefix: str) -> tuple[str, ...]:
    key = f"{prefix}{field.name}"
    variable = PREFIX + key.upper().replace(".", "__")
    default = "required" if field.required else _shown(_default_of(field))
    return (f"`{key}`", _type(field.type), default, meaning(field.type), f"`{variable}`")


def meaning(kind: kinds.Type) -> str:
    """Return what a key means, as its declaration says."""
    if not isinstance(kind, kinds.Metadata):
        return ""
    return str((kind.extra_json_schema or {}).get("description", "")) or meaning(kind.type)


def _inner(field: kinds.Field) -> str:
    """Return what a section's keys begin with: `store`, `targets.NAME`; nothing for a value."""
    kind = _bare(field.type)
    if isinstance(kind, kinds.DictType) and isinstance(_bare(kind.value_type), kinds.StructType):
        return f"{field.name}.{'NAME' if field.name == 'targets' else 'METRIC'}"
    return field.name if isinstance(kind, kinds.StructType) else ""


def _struct(kind: kinds.Type) -> kinds.StructType:
    bare = _bare(kind)
    bare = _bare(bare.value_type) if isinstance(bare, kinds.DictType) else bare
    if not isinstance(bare, kinds.StructType):
        raise TypeError(bare)
    return bare


def _bare(kind: kinds.Type) -> kinds.Type:
    if isinstance(kind, kinds.Metadata):
        return _bare(kind.type)
    if isinstance(kind, kinds.UnionType):
        return _bare(next(one for one in kind.types if type(one).__name__ != "NoneType"))
    return kind


def _type(kind: kinds.Type) -> str:
    bare = _bare(kind)
    if isinstance(bare, kinds.LiteralType):
        return " or ".join(f"`{value}`" for value in bare.values)
    if isinstance(bare, kinds.IntType | kinds.FloatType):
        word = "whole number" if isinstance(bare, kinds.IntType) else "number"
        limits = [
            f"{sign} {limit:g}"
            for sign, limit in (("≥", bare.ge), (">", bare.gt), ("≤", bare.le), ("<", bare.lt))
            if limit is not None
        ]
        return f"{word} {', '.join(limits)}".strip()
    if isinstance(bare, kinds.DictType):
        return "mapping"
    if isinstance(bare, kinds.VarTupleType):
        return f"list of {_type(bare.item_type)}"
    return _WORDS[type(bare).__name__]


def _default_of(field: kinds.Field) -> Any:
    return field.default_factory() if field.default is NODEFAULT else field.default


def _changed(section: msgspec.Struct) -> dict[str, Any]:
    """Return what differs from a section's own defaults."""
    plain = type(section)()
    return {
        name: value
        for name, value in msgspec.structs.asdict(section).items()
        if value != getattr(plain, name)
    }


def _shown(value: Any) -> str:
    return "none" if value is None else f"`{msgspec.json.encode(value).decode().strip(chr(34))}`"


def _paragraphs(documented: Any) -> list[str]:
    text = inspect.getdoc(documented) or ""
    return [" ".join(part.split()) for part in text.split("\n\n")]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    text = "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )
    return f"{text}\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
