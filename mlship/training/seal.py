"""From a converted model to a sealed bundle that has answered in a process of its own."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mlship.adapters.checkout import code, lock
from mlship.config import distributions
from mlship.config.installation import DISTRIBUTION
from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.bundle import Bundle, Head, Hooks, Label, Row, Schema, probability_of
from mlship.domain.digests import Digest
from mlship.domain.notation import literal
from mlship.domain.ports import Predictor
from mlship.errors import IntegrityError, ProjectError
from mlship.runtime import formats
from mlship.training.columns import fields_of, rows_of, values_of
from mlship.training.data import Data, Target
from mlship.training.fit import call_hook, find
from mlship.training.forms import conversion, onnxfile
from mlship.training.forms.convert import Converted
from mlship.training.original import Original
from mlship.training.proof import replies
from mlship.training.proof import trial as trials
from mlship.training.proof.answers import Answers, Outputs, differing
from mlship.training.proof.probes import spread
from mlship.training.scoring import groups, several

_OWN_ROWS: Final = 20_000


@dataclass(frozen=True)
class Making:
    """What a bundle is made of."""

    root: Path
    config: Config
    data: Data
    converted: Converted

    @property
    def original(self) -> Original:
        """The model that was trained."""
        return self.converted.trial.original


def seal(making: Making, folder: Path, predictor: Predictor) -> Digest:
    """Complete the bundle in `folder`, which has the model's file, and return its digest.

    The bundle is sealed without golden examples and metrics first, and asked for answers in a
    process that sees nothing but it. Only when these are the original model's, to held-out rows
    and to probes, is it sealed for good. Of very many held-out rows it is asked some; its form has
    answered all of them before, in this process.

    Raises:
        ProjectError: the bundle answers otherwise than the model that was trained.
    """
    trial = making.converted.trial
    of_held_out = trial.of_held_out
    wanted = _outputs(making, of_held_out.outputs)
    truth = {target.name: values_of(target.test) for target in making.data.targets}
    for target in making.data.targets:
        _check_comparable(making, target, truth[target.name], wanted)
    _write_code(making, folder)
    serving = _serving(making)
    _write_lines(folder / bundles.REQUIREMENTS, serving)
    pins = lock.training_environment(making.root, making.config.model)
    _write_lines(folder / bundles.ENVIRONMENT, pins)
    draft = _draft(making, wanted, serving)
    bundles.seal(folder, draft)
    asked, tried = replies.asked(making.data.test, trial.fields), replies.tried(trial)
    held_out = rows_of(making.data.test.iloc[asked])
    rows = [*held_out, *(trial.rows[n] for n in tried)]
    with predictor.answers(folder, rows) as answers_of_bundle:
        if len(asked) < len(making.data.test):
            # Two processes whose threads wait for each other on the same cores are slower than one.
            with threadpool_limits(1):
                _check_form(making, folder)
        answers = answers_of_bundle()
    _check_unwritten(folder)
    expected = replies.held_out(held_out, wanted, of_held_out, asked, _slacks(making, of_held_out))
    expected += replies.of_probes(
        trial, tried, lambda outputs: _outputs(making, outputs), _slacks(making, trial.answers)
    )
    replies.check(expected, answers)
    _check_alone(making)
    golden = replies.golden(making.original, expected, answers)
    lines = b"".join(msgspec.json.encode(line) + b"\n" for line in golden)
    (folder / bundles.GOLDEN).write_bytes(lines)
    served = list(wanted)
    for number, answer in zip(asked, answers, strict=False):
        served[number] = answer.outputs
    measured = _measured(making, draft, truth, served)
    return bundles.seal(folder, msgspec.structs.replace(draft, metrics=digests.plain(measured)))


def _check_alone(making: Making) -> None:
    """Refuse a model that answers a row otherwise without others: no replica would be ready.

    Raises:
        ProjectError: it does.
    """
    different = trials.differing_alone(making.converted.trial, making.data.test)
    for row, what in different.items():
        message = f"the model of {making.config.model.source} answers held-out row {row + 1} "
        message += f"otherwise if it is asked that row alone: {what}"
        hint = "a row's answer must depend on that row only: see `mlship guide your-own-model`"
        raise ProjectError(message, hint=hint)


def _slacks(making: Making, answers: Answers) -> Sequence[Mapping[str, float]]:
    """Return how far numbers may be from the original's; `postprocess` gives them other units."""
    if making.config.model.postprocess is not None:
        return [{} for _ in answers.outputs.labels]
    return replies.slacks(making.original, answers)


def _measured(
    making: Making, draft: Bundle, truth: several.Truth, served: Sequence[Row]
) -> dict[str, float]:
    if draft.task in bundles.UNSUPERVISED:
        hook = making.config.model.preprocess
        return groups.measure(draft.task, groups.space_of(making.root, making.data, hook), served)
    return several.measure(several.problem_of(draft), truth, served)


def _check_unwritten(folder: Path) -> None:
    """Refuse a model that writes into its bundle, which is read-only where it is served.

    Raises:
        ProjectError: the bundle is not as it was sealed.
    """
    try:
        bundles.read(folder)
    except IntegrityError as error:
        message = f"the model or a hook changes the bundle when it predicts: {error.message}"
        raise ProjectError(message, hint="write no file in predict, transform or a hook") from error


def _check_form(making: Making, folder: Path) -> None:
    """Ask the model file for the held-out rows, on the path of serving after the contract.

    Another implementation is asked for all of them, a library's own for very many.

    Raises:
        ProjectError: it answers otherwise than the model that was trained.
    """
    original, converted = making.original, making.converted
    trial, model, rows = converted.trial, converted.model, making.data.test
    # An export of a framework is ONNX as well, and is answered in a fork here.
    is_onnx = model.format == "onnx"
    numbers = np.arange(len(rows)) if is_onnx else spread(len(rows), _OWN_ROWS)

    def found() -> Answers:
        computation = converted.computation
        if computation is None:
            computation = formats.load(folder / model.path, model, original.task)
        return trials.held_out(trial, model, computation, rows, numbers)

    try:
        # onnxruntime may end its process; other forms were tried in this one already.
        if converted.held_out is not None:
            answers = converted.held_out.result()
        else:
            answers = conversion.in_child(found, "the held-out rows") if is_onnx else found()
    except onnxfile.NotConvertedError as error:
        message = f"the model as ONNX cannot answer the held-out rows: {error}"
        raise ProjectError(message, hint="check the values of the held-out rows") from error
    different = differing(original.task, original.heads, trial.of_held_out, answers, numbers)
    for row, what in different.items():
        message = f"the model as {model.format} differs on {len(different)} of {len(numbers)} "
        message += f"held-out rows, first on row {row + 1}: {what}"
        hint = "a row's answer must depend on that row only: see `mlship guide your-own-model`"
        raise ProjectError(message, hint=hint)


def _draft(making: Making, wanted: list[Row], serving: tuple[str, ...]) -> Bundle:
    model = making.config.model
    outputs = fields_of(pd.DataFrame(wanted))
    return Bundle(
        name=making.config.name,
        task=making.original.task,
        target=making.data.names[0] if making.data.names else making.original.heads[0].name,
        targets=making.data.names if len(making.data.names) > 1 else (),
        quantiles=model.quantiles,
        schema=Schema(inputs=making.converted.trial.fields, outputs=outputs),
        model=making.converted.model,
        hooks=Hooks(preprocess=model.preprocess, postprocess=model.postprocess),
        metrics={},
        requirements=serving,
        python=lock.python_version(),
    )


def _outputs(making: Making, outputs: Outputs) -> list[Row]:
    """Return what the bundle must answer, by the outputs of the original model.

    Raises:
        ProjectError: two outputs have one name; `postprocess` fails, or returns no column of a
            target's name.
    """
    frame = pd.DataFrame(_columns(making, outputs))
    hook = making.config.model.postprocess
    if hook is None:
        return rows_of(frame)
    frame = call_hook(making.root, hook, find(making.root, hook), frame)
    wanted = making.data.names or (making.original.heads[0].name,)
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        message = f"{hook} returns no column {missing[0]}"
        raise ProjectError(message, hint="return the outputs with the target among them")
    if bundles.ID in frame.columns:
        message = f"{hook} returns a column {bundles.ID}, the name of each prediction's id"
        raise ProjectError(message, hint="return it under another name")
    return rows_of(frame)


def _columns(making: Making, outputs: Outputs) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    heads = making.original.heads
    pairs = list(zip(heads, outputs.of_heads(heads), strict=True))
    for head, own in pairs:
        _add(columns, head.name, own.labels.tolist(), head)
    quantiles = making.config.model.quantiles
    if quantiles:
        target = making.data.names[0]
        columns = {target: columns[bundles.middle_of(quantiles, target)], **columns}
    for head, own in pairs:
        if own.probabilities is not None:
            names = _names_of_probabilities(making, head)
            for name, shares in zip(names, own.probabilities.T.tolist(), strict=True):
                _add(columns, name, shares, head)
    return columns


def _names_of_probabilities(making: Making, head: Head) -> list[str]:
    if making.original.task == "anomaly":
        return [bundles.SCORE]
    target = head.name if making.original.several else ""
    return [probability_of(label, target) for label in head.classes]


def _add(columns: dict[str, Any], name: str, values: list[Any], head: Head) -> None:
    """Add an output under a name that no other has.

    Raises:
        ProjectError: another has it.
    """
    hint = "rename the target, or the class that the name ends in"
    if name == bundles.ID:
        message = f"an output of {head.name} is named {name}, as each prediction's id"
        raise ProjectError(message, hint=hint)
    if name in columns:
        message = f"two outputs are named {name}, one of them of {head.name}"
        raise ProjectError(message, hint=hint)
    columns[name] = values


def _check_comparable(making: Making, target: Target, truth: list[Any], wanted: list[Row]) -> None:
    """Refuse outputs that can never be right: a metric of them would say nothing.

    Raises:
        ProjectError: values are no numbers, or no label is one of the target's.
    """
    column, name = target.name, making.config.model.source
    predicted = [row[column] for row in wanted]
    if making.original.task == "regression":
        for values, what in ((truth, f"column {column}"), (predicted, "the model's answer")):
            if not all(isinstance(value, int | float) for value in values):
                message = f"{what} is not a number, as a regression needs"
                hint = "set model.task to classification, or correct the values"
                raise ProjectError(message, hint=hint)
        return
    labels = set(values_of(target.train))
    if not labels & set(truth):
        message = f"no held-out label is one of the training labels: {column} holds "
        message += f"{_some(truth)} held out, and {_some(sorted(labels, key=str))} in training"
        raise ProjectError(message, hint="write the labels of both parts in the same way")
    known = {*truth, *labels}
    if not known & {*predicted, *_possible(making, column)}:
        message = f"the model of {name} predicts {_some(predicted)}, and {column} holds "
        message += _some(truth)
        hint = "train on the target's own values, or map the predictions to them in `postprocess`"
        if all(isinstance(value, int) for value in predicted):
            hint += ", or list the labels of the model's classes 0, 1, ... as `model.classes`"
        elif all(isinstance(value, float) for value in predicted):
            hint = "set model.task to regression, if the model predicts numbers"
        raise ProjectError(message, hint=hint)


def _possible(making: Making, column: str) -> tuple[Label, ...]:
    if making.config.model.postprocess is not None:
        return ()
    return next((head.classes for head in making.original.heads if head.name == column), ())


def _some(values: list[Any]) -> str:
    return ", ".join(literal(value) for value in list(dict.fromkeys(values))[:3])


def _own_modules(making: Making) -> list[str]:
    """Return the project's modules that the hooks and the model's own types are of."""
    hooks = (making.config.model.preprocess, making.config.model.postprocess)
    modules = [hook.partition(":")[0] for hook in hooks if hook]
    modules += [name.rpartition(".")[0] for name in making.converted.model.types]
    return list(dict.fromkeys(modules))


def _write_code(making: Making, folder: Path) -> None:
    """Copy the modules that the hooks and the model need, and the files that they read."""
    root, modules = making.root, _own_modules(making)
    for module in modules:
        if not code.closure(root, [module]):
            message = f"mlship.yaml: the hooks' module {module} is not a file in {root}"
            hint = code.hint_of_copy(root, module) or "put the hooks into the project"
            raise ProjectError(message, hint=hint)
    own = code.sources(root, modules).items()
    for name, path in [*own, *code.included(root, making.config.model.include)]:
        place = folder / bundles.CODE / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _serving(making: Making) -> tuple[str, ...]:
    """Return the pins of all that predicting needs; an image has mlship itself as files."""
    modules = set(making.converted.modules) | {"numpy", "msgspec"}
    has_hooks = making.config.model.preprocess or making.config.model.postprocess
    roots = distributions.of_modules(modules | ({"pandas"} if has_hooks else set()))
    imported = code.third_party(making.root, code.closure(making.root, _own_modules(making)))
    pins = lock.closure(sorted(roots | imported))
    return tuple(pin for pin in pins if not pin.startswith(f"{DISTRIBUTION}=="))


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")
