"""The stages of a dvc.yaml that write a model, as far as their commands are surely known."""

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from mlship import files
from mlship.config import commands
from mlship.domain.outputs import is_inside
from mlship.errors import ConfigError

FILE: Final = "dvc.yaml"
_LOCK: Final = "dvc.lock"
_PARAMS: Final = "params.yaml"
_LARGEST: Final = 1_000_000
_PARAMETER: Final = re.compile(r"\$\{\s*([\w.]+)\s*\}")


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that writes a model.

    Attributes:
        name: of the stage.
        command: how it is started in the project's folder.
        saved: the model file that it writes.
        reason: why it cannot be `model.command`, and what to do; empty if it can.
    """

    name: str
    command: str = ""
    saved: str = ""
    reason: str = ""


def stages(folder: Path, models: tuple[str, ...]) -> tuple[Stage, ...]:
    """Return the stages that write a model, in the order of dvc.yaml.

    Args:
        folder: of the project.
        models: the endings of model files.

    Raises:
        ConfigError: dvc.yaml cannot be read.
    """
    document = _document(folder / FILE)
    listed = document.get("stages") or {}
    if not isinstance(listed, dict):
        raise _unusable("`stages` is not a mapping from names to stages")
    try:
        params = _document(folder / _PARAMS)
    except ConfigError:
        params = {}
    params = params | _variables(document)
    found = (_stage(str(name), body, params, models) for name, body in listed.items())
    return tuple(stage for stage in found if stage is not None)


def locked(folder: Path) -> list[str]:
    """Return the paths of the outputs in dvc.lock, which may not be pulled or made yet."""
    try:
        listed = _document(folder / _LOCK).get("stages")
    except ConfigError:
        return []
    bodies = listed.values() if isinstance(listed, dict) else ()
    entries = [body.get("outs") for body in bodies if isinstance(body, dict)]
    outs = [out for entry in entries if isinstance(entry, list) for out in entry]
    paths = [out.get("path") for out in outs if isinstance(out, dict)]
    return [path for path in paths if isinstance(path, str) and is_inside(path)]


def _stage(
    name: str, body: object, params: Mapping[str, Any], models: tuple[str, ...]
) -> Stage | None:
    """Return a stage; `None` if it writes no model."""
    if not isinstance(body, dict):
        return None
    several = next((key for key in ("foreach", "matrix") if key in body), "")
    inner = body.get("do") if several == "foreach" else body
    inner = inner if isinstance(inner, dict) else {}
    params = {**params, **_variables(inner)}
    outputs = (_filled(out, params) for out in _outputs(inner))
    saved = next((out for out in outputs if out.endswith(models)), "")
    command = inner.get("cmd")
    if isinstance(command, list) and len(command) == 1:
        command = command[0]
    if not saved or not isinstance(command, str | list):
        return None
    text = _filled(command, params).strip() if isinstance(command, str) else ""
    wdir = _filled(str(inner.get("wdir") or "."), params)
    reason = _refusal(text, saved, wdir, several)
    return Stage(name=name, command=text, saved=saved, reason=reason)


def _refusal(command: str, saved: str, wdir: str, several: str) -> str:
    """Return why a stage cannot be `model.command`, with the next action; else an empty text."""
    script = "a script, such as train.sh, let the stage run `sh train.sh`, then `mlship init` again"
    yourself = "set model.command and model.saved in mlship.yaml"
    unknown = _PARAMETER.search(command + saved)
    if several:
        return f"it stands for several trainings ({several}): for one of them, {yourself}"
    if not command:
        return f"it has several commands: put them into {script}"
    if posixpath.normpath(wdir) != ".":
        return f"it runs in {wdir} (wdir), and mlship in the project's folder: {yourself}"
    if unknown:
        return f"the value of {unknown[0]} was not found in {_PARAMS}: {yourself}"
    if reason := _foreign(command):
        return f"{reason}: put it into {script}"
    is_whole = bool(commands.words(command))
    wrong = f"{saved} is outside of the project" if is_whole else "its quotation marks do not match"
    return "" if is_whole and is_inside(saved) else f"{wrong}: correct it in {FILE}"


def _foreign(command: str) -> str:
    """Return why a command is none for `model.command`; else an empty text."""
    if sign := commands.shell_syntax(command):
        return f"its command needs a shell ({sign}), and mlship uses none"
    call = commands.python_call(commands.words(command))
    return "its command runs no file by Python" if call is not None and call.refused else ""


def _outputs(stage: Mapping[str, Any]) -> Iterator[str]:
    listed = stage.get("outs")
    for out in listed if isinstance(listed, list) else ():
        name = next(iter(out), None) if isinstance(out, dict) else out
        if isinstance(name, str):
            yield name


def _variables(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that `vars` has itself; other files that it names are not read."""
    listed = section.get("vars")
    values: dict[str, Any] = {}
    for entry in listed if isinstance(listed, list) else ():
        values |= entry if isinstance(entry, dict) else {}
    return values


def _filled(text: str, params: Mapping[str, Any]) -> str:
    """Replace `${train.depth}` by the value of params.yaml, written as DVC does."""

    def value(match: re.Match[str]) -> str:
        found: Any = params
        for key in match[1].split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, bool):
            return str(found).lower()
        return str(found) if isinstance(found, str | int | float) else match[0]

    return _PARAMETER.sub(value, text)


def _unusable(reason: str) -> ConfigError:
    return ConfigError(reason, hint=f"correct {FILE}, then `mlship init` again")


def _document(path: Path) -> dict[str, Any]:
    """Return a mapping of YAML; an empty one if there is no file.

    Raises:
        ConfigError: it is no regular file, no YAML, or no mapping.
    """
    if not os.path.lexists(path):
        return {}
    try:
        document = yaml.safe_load(files.read_regular(path, _LARGEST).decode("utf-8"))
    except OSError as error:
        raise _unusable(error.strerror or "it cannot be read") from error
    except UnicodeDecodeError as error:
        raise _unusable("it is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise _unusable(f"{line}{error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unusable("it is not YAML") from error
    if not isinstance(document, dict | None):
        raise _unusable("it is not a mapping")
    return document or {}
