"""A bundle, loaded: the one path from rows to predictions, for HTTP, batch and training alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.bundle import Bundle, Row, Value
from mlship.domain.digests import Digest
from mlship.errors import ProjectError
from mlship.runtime import formats, frames, hooks, rows
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.formats import Computation, Raw
from mlship.runtime.hooks import Hook


def probability_of(label: str | float | bool) -> str:  # noqa: FBT001 (a class may be a boolean)
    """Return the name of the output with the probability of a class: `probability_setosa`."""
    return f"probability_{label}"


class Model:
    """A model with its hooks, ready to predict. `load` makes one."""

    def __init__(
        self,
        bundle: Bundle,
        digest: Digest,
        compute: Computation,
        found: tuple[Hook | None, Hook | None],
    ) -> None:
        self.bundle = bundle
        self.digest = digest
        self._compute = compute
        self._before, self._after = found
        self._labels = {label: label for label in bundle.model.classes}
        self._nullable = {field.name for field in bundle.schema.outputs if field.nullable}

    @classmethod
    def load(cls, folder: Path, expected: Digest | None) -> "Model":
        """Check every byte of a bundle, then load it.

        Raises:
            NotFoundError: there is no bundle.
            IntegrityError: its digest is another, a file was changed, or the model is no model.
            ProjectError: a hook cannot be imported.
        """
        bundle = bundles.read(folder, expected=expected)
        found = hooks.load(folder, bundle.hooks)
        compute = formats.load(folder / bundle.model.path, bundle.model, bundle.task)
        digest = digests.of_file(folder / bundles.MANIFEST)
        return cls(bundle, digest, compute, found)

    def check(self, given: Sequence[Any]) -> list[Row]:
        """Return the rows as the schema has them.

        Raises:
            RefusedRequest: a row does not fit.
        """
        return rows.check(given, self.bundle.schema)

    def predict(self, given: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows: the target and, of a classifier, each probability.

        Raises:
            ProjectError: a row does not fit the schema, a hook raised, or the model gave NaN.
        """
        try:
            checked = self.check(given)
        except RefusedRequest as refusal:
            raise refusal.as_project_error() from None
        return self.compute(checked)

    def compute(self, checked: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows that `check` returned.

        Raises:
            ProjectError: a hook raised, or the model failed or gave no finite output.
        """
        if not checked:
            return []
        outputs = self._outputs(self._modelled(self._preprocessed(checked)))
        if self._after is None:
            return outputs
        frame = self._after(frames.to_frame(outputs, self._output_fields(outputs)))
        return self._postprocessed(frames.to_rows(frame))

    def _preprocessed(self, checked: Sequence[Row]) -> Sequence[Row]:
        if self._before is None:
            return checked
        frame = self._before(frames.to_frame(checked, self.bundle.schema.inputs))
        names = [field.name for field in self.bundle.model.columns]
        missing = [name for name in names if name not in frame.columns]
        if missing:
            message = f"the hook {self.bundle.hooks.preprocess} gave no column {missing[0]}"
            raise ProjectError(message, hint="return the columns that the model was trained with")
        return _nulls(frame[names])

    def _modelled(self, prepared: Sequence[Row]) -> Raw:
        try:
            return self._compute(prepared)
        except ProjectError:
            raise
        except Exception as error:  # whatever the model's library raises
            message = f"the model of {self.bundle.name} failed: {type(error).__name__}: {error}"
            raise ProjectError(
                message, hint="look at the row; training saw none like it"
            ) from error

    def _outputs(self, raw: Raw) -> list[Row]:
        target, classes = self.bundle.target, self.bundle.model.classes
        if raw.probabilities is None:
            return [
                {target: self._label(value, number)}
                for number, value in enumerate(raw.labels.tolist())
            ]
        table = raw.probabilities.tolist()
        if raw.labels is None:
            labels: list[Any] = [classes[row.index(max(row))] for row in table]
        else:
            labels = raw.labels.tolist()
        names = [probability_of(label) for label in classes]
        return [
            {
                target: self._label(label, number),
                **{
                    name: frames.plain(value, name, number)
                    for name, value in zip(names, row, strict=True)
                },
            }
            for number, (label, row) in enumerate(zip(labels, table, strict=True))
        ]

    def _label(self, value: Any, number: int) -> Value:
        """Return a label in the manifest's own type; a 1 may stand for true, or for 1.0."""
        if not self._labels:
            return frames.plain(value, self.bundle.target, number)
        try:
            return self._labels[value]
        except KeyError:
            message = f"the model gave the class {value!r}, which its manifest does not name"
            raise ProjectError(message, hint="train again") from None

    def _output_fields(self, outputs: Sequence[Row]) -> list[bundles.Field]:
        kinds: dict[type, bundles.Kind] = {bool: "boolean", int: "integer", str: "text"}
        return [
            bundles.Field(name=name, kind=kinds.get(type(value), "number"))
            for name, value in outputs[0].items()
        ]

    def _postprocessed(self, outputs: list[Row]) -> list[Row]:
        name = self.bundle.hooks.postprocess
        for number, row in enumerate(outputs):
            if self.bundle.target not in row:
                message = f"the hook {name} gave no column {self.bundle.target}"
                raise ProjectError(message, hint="return the outputs with the target among them")
            for column, value in row.items():
                if value is None and column not in self._nullable:
                    message = f"the hook {name} gave no value in outputs[{number}].{column}"
                    raise ProjectError(message, hint="return a value for every row")
        return outputs


def _nulls(frame: Any) -> list[Row]:
    """Return a preprocessed DataFrame as rows, with every kind of missing value as `None`."""
    missing = frame.isna()
    lists = {
        name: [
            None if absent else value
            for value, absent in zip(frame[name].tolist(), missing[name].tolist(), strict=True)
        ]
        for name in frame.columns
    }
    return [{name: lists[name][number] for name in lists} for number in range(len(frame))]
