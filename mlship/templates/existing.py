"""What a repository has already: its training, its data, its tests and its notebooks.

Nothing of the repository is run. Scripts are read as Python syntax, dvc.yaml as YAML.
"""

import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from mlship.config import commands, packages
from mlship.domain.outputs import is_inside
from mlship.errors import ConfigError
from mlship.templates import datasets, reading, tables, tasks
from mlship.templates.scripts import Script
from mlship.templates.sources import has, listed, misnamed
from mlship.templates.stages import FILE, Stage
from mlship.templates.stages import stages as dvc_stages
from mlship.templates.targets import target_of
from mlship.templates.tasks import Task

_SCRIPTS: Final = ("train.py", "training.py", "train_model.py", "model.py", "main.py")
_MODELS: Final = (
    *(".joblib", ".pkl", ".pickle", ".skops", ".onnx", ".ubj", ".cbm", ".keras", ".pt", ".pth"),
    ".pt2",
)
_NAME: Final = re.compile(r"[^a-z0-9-]+")
_SHOWN: Final = 3
_WITHOUT_TARGET: Final = ("clustering", "anomaly")
_INSTEAD: Final = "to train by it instead, change model.command and model.saved"


class Existing(msgspec.Struct, frozen=True, kw_only=True):
    """A training that a repository has.

    Attributes:
        command: how it is started; empty if `function` is set.
        saved: the model file that it writes.
        function: instead of both, `module:train` with the parameters `data` and `params`.
        package: the package of the script, which must be installed; empty if it need not.
        also_saved: further model files that it writes.
        train: the file of training data; empty if it is not known.
        test: the held-out data; empty if there is none.
        target: the column to predict; empty if it is not known.
        read: how the script reads its data, as `data.read` has it.
        task: what kind of problem it solves; empty if it is not known.
        change: where the script reads the rows that are held out too, and how it does not; empty if
            it does not read them, or it is not known.
        reads_rows: whether the script reads the rows that mlship leaves to it.
        imports: the modules that the script imports, and neither Python nor the project has; `None`
            if it is not known.
    """

    command: str = ""
    saved: str = ""
    function: str = ""
    package: str = ""
    also_saved: tuple[str, ...] = ()
    train: str = ""
    test: str = ""
    target: str = ""
    read: Mapping[str, Any] = {}
    task: Task = ""
    change: str = ""
    reads_rows: bool = False
    imports: tuple[str, ...] | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository has.

    Attributes:
        training: `None` if no script is known to save a model.
        tests: the files and folders of its tests of the code, apart from the default tests/unit.
        has_tests: whether it has any tests of the code.
        notebooks: the notebooks, by their paths.
        notes: what was not taken although it may train, and what to do about it.
    """

    training: Existing | None = None
    tests: tuple[str, ...] = ()
    has_tests: bool = False
    notebooks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find(folder: Path, ours: Mapping[str, bytes] | None = None) -> Found:
    """Return what the repository in a folder has.

    Args:
        folder: of the project; it need not exist.
        ours: files that an interrupted `mlship init` may have written; they do not count.
    """
    if not folder.is_dir():
        return Found()
    written = {name for name, data in (ours or {}).items() if has(folder / name, data)}
    names = [name for name in listed(folder, ".py") if name not in written]
    scripts = [Script(folder, name) for name in _ranked(names)]
    tests = [name for name in listed(folder, ".py", tests=True) if name not in written]
    training, notes, has_stages = _of_stages(folder)
    if not has_stages:
        training, others = _of_scripts(folder, scripts)
        training = training or _of_functions(folder, scripts)
        notes += [*others, *_unread(scripts), *([] if training else _unused(scripts))]
    return Found(
        has_tests=bool(tests),
        training=training,
        tests=_tests(tests),
        notebooks=tuple(listed(folder, ".ipynb")),
        notes=(*notes, *misnamed(folder)),
    )


def settings(found: Found, name: str, skeleton: str) -> str:
    """Return the skeleton's mlship.yaml with what a repository has.

    Args:
        found: what it has.
        name: of the project.
        skeleton: the text of mlship.yaml for a new project.
    """
    parts = {"name": f"name: {name}"}
    if found.training is not None:
        parts |= _of_training(found.training)
    if found.tests:
        named = found.tests[0] if len(found.tests) == 1 else None
        paths = _quoted(named) if named else f"[{', '.join(map(_quoted, found.tests))}]"
        tests = f"tests:\n  unit: {paths}"
        model = parts.get("model") or _section(skeleton, "model")
        parts["model"] = f"{model}\n\n{tests}"
    for key, text in parts.items():
        skeleton = skeleton.replace(_section(skeleton, key), text, 1)
    return skeleton


def name_of(folder: Path, taken: Sequence[str] = ()) -> str:
    """Return a name for the project in a folder that no other project of the repository has."""
    parts = [part for part in folder.resolve().parts if part not in (os.sep, "")]
    words: list[str] = []
    for part in reversed(parts):
        # Accents are left out: `Modèle` gives `modele`, and `Größe` gives `grosse`.
        plain = "".join(
            letter
            for letter in unicodedata.normalize("NFKD", part)
            if not unicodedata.combining(letter)
        )
        word = _NAME.sub("-", plain.casefold()).strip("-")
        if not word:
            continue
        words.insert(0, word)
        name = "-".join(words)
        name = (name if name[0].isalpha() else f"model-{name}")[-40:].strip("-")
        if name[0].isalpha() and name not in taken:
            return name
    return "my-model"


def _section(text: str, key: str) -> str:
    """Return a section of YAML at the top level, up to the next one."""
    match = re.search(rf"^{key}:.*?(?=\n\n|\n\w|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return match[0] if match else ""


def _of_training(training: Existing) -> dict[str, str]:
    """Return the sections of mlship.yaml for a training, by their names."""
    model = (
        "model:\n"
        f"  command: {_quoted(training.command)}\n"
        f"  saved: {_quoted(training.saved)}          # the file that the command writes"
    )
    if training.function:
        model = f"model:\n  train: {training.function}  # train(data, params) returns the model"
    sections = {"data": _of_data(training), "model": model}
    if training.task == "regression":
        sections["gates"] = (
            "gates:\n"
            "  test: {}                         # for example, r2: {min: 0.7}\n"
            "  # metric: mae is for numbers, accuracy for labels.\n"
            "  promote: {metric: mae, min_labels: 200, confidence: 0.95, approvals: 1}"
        )
    if training.task in _WITHOUT_TARGET:
        sections["model"] += f"\n  task: {training.task}"
        sections["gates"] = (
            "gates:\n"
            "  test: {}                         # for example, largest_share: {max: 0.8}\n"
            "  promote: {metric: none, approvals: 1}  # nothing is known to be right: people decide"
        )
    return sections


def _of_data(training: Existing) -> str:
    """Return the section `data`."""
    held_out = "split: {fraction: 0.2, seed: 7}  # rows to hold out"
    if training.command:
        held_out += f"; the script trains on ${commands.TRAINING_ROWS}"
    if training.test:
        held_out = f"test: {_quoted(training.test)}  # held out: never used for training"
    data = f"data:\n  train: {_quoted(training.train or 'data/train.csv')}\n  {held_out}"
    if training.read:
        data += f"\n  read: {json.dumps(dict(training.read), ensure_ascii=False)}"
    if training.task in _WITHOUT_TARGET:
        return data
    note = "" if training.target else "                   # the column to predict"
    return f"{data}\n  target: {_quoted(training.target or 'target')}{note}"


def _quoted(text: str) -> str:
    """Return a text as YAML reads it back; `yes` and `1` are no texts there without quotes."""
    is_plain = re.fullmatch(r"[\w./]([\w./ -]*[\w./-])?", text) and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _ranked(names: Sequence[str]) -> list[str]:
    """Return scripts in the order in which they are likely to be the one that trains."""

    def rank(name: str) -> tuple[int, int, str]:
        last = name.rpartition("/")[2]
        place = _SCRIPTS.index(last) if last in _SCRIPTS[:3] else 3
        place = 4 if place == 3 and "train" not in last and last not in _SCRIPTS else place
        return (place, name.count("/"), name)

    return sorted(names, key=rank)


def _of_scripts(folder: Path, scripts: Sequence[Script]) -> tuple[Existing | None, list[str]]:
    """Return the training by the first script that saves a model, and what to say of the others."""
    made = [
        (script.name, training)
        for script in scripts
        if script.is_script and script.saving
        if (training := _made(folder, script, script.command, "")) is not None
    ]
    notes = [
        f"{name} saves a model too ({training.saved}), and was not taken: {_INSTEAD}"
        for name, training in made[1 : _SHOWN + 1]
    ]
    return (made[0][1], notes) if made else (None, [])


def _unread(scripts: Sequence[Script]) -> list[str]:
    """Name the scripts that train by their names, and cannot be read."""
    return [
        f"{script.name} cannot be read as Python ({script.problem}): correct it, then "
        "`mlship init` again"
        for script in scripts
        if script.problem and "train" in script.name.rpartition("/")[2]
    ][:_SHOWN]


def _unused(scripts: Sequence[Script]) -> list[str]:
    """Say of the likeliest script that trains why it was not taken."""
    script = next((script for script in scripts if script.is_script and script.fits), None)
    if script is None:
        return []
    if not script.saving:
        what = "no model file that it saves was found: save the fitted model with joblib.dump"
        return [f"{script.name} trains, and {what}, then `mlship init` again"]
    what = f"the path that it saves to was not understood ({script.saving})"
    action = f"replace what `model` has by `command: {script.command}` and `saved` with the path"
    return [f"{script.name} trains, and {what}: in mlship.yaml, {action}"]


def _of_functions(folder: Path, scripts: Sequence[Script]) -> Existing | None:
    for script in scripts:
        if not script.is_script and script.functions.get("train") == 2:
            module = script.name.removesuffix(".py").replace("/", ".")
            return _described(folder, script, Existing(function=f"{module}:train"))
    return None


def _made(folder: Path, script: Script | None, command: str, saved: str) -> Existing | None:
    """Return a training, `None` if no model file in the project is known to come of it."""
    named = [text for text in script.paths() if text.endswith(_MODELS)] if script else []
    given = script.saved_models() if script else []
    written = [text for text in dict.fromkeys((*given, *named)) if _is_file_name(text)]
    saved = saved or _chosen(written)
    if not saved or not is_inside(saved):
        return None
    others = tuple(text for text in written if text != saved)
    return _described(folder, script, Existing(command=command, saved=saved, also_saved=others))


def _described(folder: Path, script: Script | None, training: Existing) -> Existing:
    """Return a training with its data, its target and its task."""
    train, test = datasets.named(folder, script)
    head = tables.head_of(folder / train) if train else tables.Head()
    if script is None:
        return msgspec.structs.replace(training, train=train, test=test)
    read = reading.options_of(script, train)
    columns = [name for name in head.columns if name != read.get("index_col")]
    if isinstance(read.get("index_col"), int):
        columns[read["index_col"] : read["index_col"] + 1] = []
    task = tasks.task_of_code(script)
    target = "" if task in _WITHOUT_TARGET else target_of(script, columns)
    return msgspec.structs.replace(
        training,
        train=train,
        test=test,
        target=target,
        read=read,
        package=script.installed_package,
        task=task or tasks.task_of_values([row.get(target, "") for row in head.rows]),
        change="" if test or not train else reading.change_of(script, train),
        reads_rows=reading.knows_rows(script),
        imports=script.foreign_modules,
    )


def _is_file_name(text: str) -> bool:
    """Return whether a text names a file in the project; `.pkl` is an ending alone."""
    return bool(text) and is_inside(text) and text.rpartition("/")[2] not in _MODELS


def _chosen(written: Sequence[str]) -> str:
    named = [text for text in written if "model" in text.rpartition("/")[2]]
    return next(iter((*named, *written)), "")


def _of_stages(folder: Path) -> tuple[Existing | None, list[str], bool]:
    """Return what dvc.yaml has.

    Returns:
        The training by its first stage that writes a model and can be started as it is; what to
        say of the others; and whether there is any stage that writes a model.
    """
    try:
        stages = dvc_stages(folder, _MODELS)
    except ConfigError as error:
        return None, [f"{FILE} was not used: {error.message}; {error.hint}"], False
    training, notes = None, []
    for stage in stages:
        named = f"{FILE}: stage {stage.name}, which writes {stage.saved}, was not taken"
        if stage.reason:
            notes.append(f"{named}: {stage.reason}")
        elif training is not None:
            notes.append(f"{named}, because an earlier stage writes a model too: {_INSTEAD}")
        else:
            training = _of_stage(folder, stage)
    return training, notes, bool(stages)


def _of_stage(folder: Path, stage: Stage) -> Existing | None:
    names = [packages.source_of(folder, name) for name in commands.sources_of(stage.command)]
    name = next((name for name in names if (folder / name).is_file()), "")
    script = Script(folder, name) if name else None
    training = _made(folder, script, stage.command, stage.saved)
    if training is None or training.package:
        return training
    return msgspec.structs.replace(training, package=_package_of(folder, stage.command, name))


def _package_of(folder: Path, command: str, name: str) -> str:
    """Return the package of a module that a command starts and that is not in the project's folder.

    Python finds it only where the project is installed. Empty for a script.

    Args:
        folder: of the project.
        command: that trains.
        name: the path of the file that it starts.
    """
    call = commands.python_call(commands.words(command))
    if call is None or not call.module or (folder / call.source()).is_file():
        return ""
    parent = call.module.partition(".")[0]
    return parent if name.partition("/")[0] != parent else ""


def _tests(names: Sequence[str]) -> tuple[str, ...]:
    """Return the files and folders of tests of the code, apart from the default tests/unit.

    Args:
        names: the test files, by their paths.
    """
    if any(name.startswith("tests/unit/") for name in names):
        return ()
    for folder in ("tests", "test"):
        inner = [name for name in names if name.startswith(f"{folder}/")]
        own = {name.split("/")[1] for name in inner} - {"sanity"}
        if own:
            is_all = not any(name.startswith(f"{folder}/sanity/") for name in inner)
            return (folder,) if is_all else tuple(f"{folder}/{part}" for part in sorted(own))
    return tuple(name for name in names if "/" not in name)
