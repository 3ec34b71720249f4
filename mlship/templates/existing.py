"""What a repository trains with today: its script, the model that it saves, its data and target.

Nothing of the repository is run. Scripts are read as Python syntax, dvc.yaml as YAML.
"""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

_SCRIPTS = ("train.py", "training.py", "train_model.py", "model.py", "main.py")
_FOLDERS = ("", "src", "scripts", "code")
_MODELS = (".joblib", ".pkl", ".pickle", ".skops", ".onnx", ".ubj", ".cbm", ".keras")
_DATA = (".csv", ".csv.gz", ".parquet", ".jsonl")
_TARGETS = ("y", "target", "label", "labels", "y_train", "Y")
_NAME = re.compile(r"[^a-z0-9-]+")


class Existing(msgspec.Struct, frozen=True, kw_only=True):
    """A training that a repository has.

    Attributes:
        command: how it is started.
        saved: the model file that it writes.
        train: the file of training data; empty if it is not known.
        test: the held-out data; empty if there is none.
        target: the column to predict; empty if it is not known.
    """

    command: str
    saved: str
    train: str = ""
    test: str = ""
    target: str = ""


def find(folder: Path) -> Existing | None:
    """Return the training of a repository; `None` if no script is known to save a model."""
    for command, saved in (*_of_dvc(folder), *_of_scripts(folder)):
        script = next((word for word in shlex.split(command) if word.endswith(".py")), "")
        tree = _parsed(folder / script) if script else None
        texts = list(_texts(tree)) if tree else []
        saved = saved or next((text for text in texts if text.endswith(_MODELS)), "")
        if not saved or Path(saved).is_absolute() or ".." in Path(saved).parts:
            continue
        train, test = _data(folder, texts)
        return Existing(
            command=command,
            saved=saved,
            train=train,
            test=test,
            target=_target(tree) if tree else "",
        )
    return None


def settings(existing: Existing, folder: Path, skeleton: str) -> str:
    """Return the skeleton's mlship.yaml with an existing training in it."""
    name = _NAME.sub("-", folder.resolve().name.lower()).strip("-")
    name = name if name[:1].isalpha() else f"model-{name}".strip("-")
    held_out = (
        f"test: {_quoted(existing.test)}              # held out: never used for training"
        if existing.test
        else "split: {fraction: 0.2, seed: 7}  # rows to hold out; the script must not train on them"
    )
    data = (
        "data:\n"
        f"  train: {_quoted(existing.train or 'data/train.csv')}\n"
        f"  {held_out}\n"
        f"  target: {_quoted(existing.target or 'target')}"
        + ("" if existing.target else "                   # the column to predict")
    )
    model = (
        "model:\n"
        f"  command: {_quoted(existing.command)}\n"
        f"  saved: {_quoted(existing.saved)}          # the file that the command writes"
    )
    parts = {"name": f"name: {name[:40].rstrip('-')}", "data": data, "model": model}
    for key, text in parts.items():
        skeleton = re.sub(rf"^{key}:.*?(?=\n\n|\n\w|\Z)", lambda _: text, skeleton, flags=re.M | re.S)  # noqa: B023
    return skeleton


def _quoted(text: str) -> str:
    """Return a text as YAML reads it back; `yes` and `1` are no texts there without quotes."""
    is_plain = re.fullmatch(r"[\w./]([\w./ -]*[\w./-])?", text) and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _of_dvc(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the stages of dvc.yaml that write a model, and the file."""
    try:
        stages = yaml.safe_load((folder / "dvc.yaml").read_text("utf-8"))["stages"]
        items = list(stages.values())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return
    for stage in items:
        command = stage.get("cmd") if isinstance(stage, dict) else None
        outs = [next(iter(out)) if isinstance(out, dict) else out for out in stage.get("outs", [])] if command else []
        saved = next((out for out in outs if str(out).endswith(_MODELS)), None)
        if isinstance(command, str) and saved is not None and "${" not in command:
            yield command, str(saved)


def _of_scripts(folder: Path) -> Iterator[tuple[str, str]]:
    for place in _FOLDERS:
        for name in _SCRIPTS:
            path = folder / place / name
            if path.is_file():
                yield f"python {path.relative_to(folder).as_posix()}", ""


def _parsed(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _data(folder: Path, texts: list[str]) -> tuple[str, str]:
    """Return the files of training and of held-out data that a script names or a folder has."""
    named = [text for text in texts if text.endswith(_DATA) and (folder / text).is_file()]
    present = [
        path.relative_to(folder).as_posix()
        for path in sorted((folder / "data").glob("*"))
        if path.name.endswith(_DATA)
    ]
    known = list(dict.fromkeys([*named, *present]))
    test = next((name for name in known if re.search(r"test|valid|held", Path(name).name)), "")
    rest = [name for name in known if name != test]
    train = next((name for name in rest if "train" in Path(name).name), rest[0] if rest else "")
    return train, test if train else ""


def _target(tree: ast.Module) -> str:
    """Return the column that a script takes for the target: `y = data["price"]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for goal, value in _pairs(node):
                if isinstance(goal, ast.Name) and goal.id in _TARGETS:
                    column = _column(value)
                    if column:
                        return column
    return ""


def _pairs(node: ast.Assign) -> Iterator[tuple[Any, Any]]:
    for goal in node.targets:
        if isinstance(goal, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(goal.elts, node.value.elts, strict=False)
        else:
            yield goal, node.value


def _column(value: Any) -> str:
    """Return the text of the subscript in `data["price"]`, `data["price"].values`, and the like."""
    for node in ast.walk(value):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            text = node.slice.value
            if isinstance(text, str):
                return text
    return ""
