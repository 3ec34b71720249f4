"""A loaded bundle: the only code path from rows to predictions, for HTTP, batch and training."""

from array import array
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.bundle import Bundle, Head, Row, Value, probability_of
from mlship.domain.columns import Column, Columns
from mlship.domain.digests import Digest
from mlship.errors import MlshipError, ProjectError
from mlship.runtime import blame, formats, frames, heads, hooks, outputs, rows
from mlship.runtime.faults import Fault, RefusedRequest, show, text_of
from mlship.runtime.formats import Computation, Raw
from mlship.runtime.hooks import Hook
from mlship.runtime.jobs import Answer, Computed, Health, Job, Refused


class Model:
    """A model with its hooks, ready to predict. Use `load`."""

    def __init__(
        self,
        bundle: Bundle,
        digest: Digest,
        compute: Computation,
        before_and_after: tuple[Hook | None, Hook | None],
    ) -> None:
        self.bundle = bundle
        self.digest = digest
        self._compute = compute
        self._before, self._after = before_and_after
        self._names = [field.name for field in bundle.schema.inputs]
        self._heads = bundle.model.heads
        self._labels = {label: label for label in bundle.model.classes}
        self._shares = tuple(probability_of(label) for label in bundle.model.classes)
        if bundle.task == "anomaly":
            self._shares = (bundles.SCORE,)
        self._nullable = {field.name for field in bundle.schema.outputs if field.nullable}

    @classmethod
    def load(cls, folder: Path, expected: Digest | None) -> "Model":
        """Verify every file of a bundle, then load it.

        Raises:
            NotFoundError: there is no bundle.
            IntegrityError: the digest is not the expected one, a file was changed, or the model
                file is invalid.
            ProjectError: a hook cannot be imported.
        """
        bundle = bundles.read(folder, expected=expected)
        before_and_after = hooks.load(folder, bundle.hooks)
        hooks.check_types(folder, bundle.model.types)
        compute = formats.load(folder / bundle.model.path, bundle.model, bundle.task)
        digest = digests.of_file(folder / bundles.MANIFEST)
        return cls(bundle, digest, compute, before_and_after)

    def check(self, received: Sequence[Any]) -> list[Row]:
        """Check rows against the schema, and return them in its order and types.

        Raises:
            RefusedRequest: a row does not fit the schema.
        """
        return rows.check(received, self.bundle.schema)

    def named(self, columns: Sequence[Column]) -> Columns:
        """Return the rows whose columns are in the schema's order."""
        return Columns(self._names, columns)

    def predict(self, inputs: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows: the targets and, for a classifier, the probabilities.

        Raises:
            ProjectError: a row does not fit the schema, a hook raised, or the model returned NaN.
        """
        try:
            return self.compute(self.check(inputs))
        except RefusedRequest as refusal:
            raise refusal.as_project_error() from None

    def compute(self, checked: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows that `check` returned.

        Raises:
            RefusedRequest: the model or a hook fails on a row, and works on others; it names the
                row, and the column if another value in that column alone would do.
            ProjectError: the model or a hook fails on any row.
        """
        return self._or_blame(Columns.of_rows(checked)).outputs().rows() if checked else []

    def _or_blame(self, checked: Columns) -> Computed:
        """Return what `table` returns, or raise what it raises."""
        try:
            return self.table(checked)
        except ProjectError as error:
            refusal = blame.refusal_of(self.together, checked.rows(), self.bundle.schema, error)
            if refusal is None:
                raise
            raise refusal from error

    def answer(self, rows: Columns) -> Answer:
        """Return the outputs for rows with the schema's columns, or why there are none.

        Whatever a hook or a library raises becomes an answer.
        """
        try:
            return self._or_blame(rows)
        except RefusedRequest as refusal:
            return Refused(refusal.fault, refusal.status)
        except MlshipError as error:
            return Refused(Fault(message=error.message, hint=error.hint), 500)
        except Exception as error:  # noqa: BLE001 (an internal error gets a response too)
            return internal(error)

    def admit(self, size: int) -> None:
        """Take each: one is computed at a time."""

    def submit(self, job: Job) -> None:
        """Compute a job in this process, for tests of a project."""
        job.finish(self.answer(job.rows))

    def cancel(self, job: Job) -> None:
        """Do nothing: each job is computed when it is submitted."""

    def health(self) -> Health:
        """Return that it is ready."""
        return Health()

    def answers(self, received: Sequence[Any]) -> list[Row | Fault]:
        """Return for each row its outputs, or why it is refused. No row makes others fail.

        Raises:
            ProjectError: the model or a hook fails on any row.
        """
        checked: list[Row] = []
        faults: dict[int, Fault] = {}
        for number, row in enumerate(received):
            try:
                checked += self.check([row])
            except RefusedRequest as refusal:
                faults[number] = refusal.fault
        results = iter(self._separately(checked))
        return [faults.get(number) or next(results) for number in range(len(received))]

    def _separately(self, checked: list[Row]) -> list[Row | Fault]:
        if len(checked) == 1:
            try:
                return list(self.compute(checked))
            except RefusedRequest as refusal:
                return [refusal.fault]
        try:
            return list(self.together(checked)) if checked else []
        except (ProjectError, RefusedRequest):
            half = len(checked) // 2
            return [*self._separately(checked[:half]), *self._separately(checked[half:])]

    def together(self, checked: Sequence[Row]) -> list[Row]:
        """Return the outputs for rows that `check` returned, without a search for who is to blame.

        Raises:
            RefusedRequest: a value has no form in its column's type.
            ProjectError: the model or a hook failed.
        """
        return self.table(Columns.of_rows(checked)).outputs().rows()

    def table(self, checked: Columns) -> Computed:
        """Return what `together` returns, by columns.

        Raises:
            RefusedRequest: a value has no form in its column's type.
            ProjectError: the model or a hook failed.
        """
        computed = self._computed(self._modelled(self._preprocessed(checked)))
        if self._after is None:
            return computed
        before = computed.outputs()
        frame = self._after(frames.to_frame(before, self._output_fields(before)))
        return _sent(self._postprocessed(frames.to_columns(frame)))

    def _preprocessed(self, checked: Columns) -> formats.Data:
        if self._before is None:
            return checked
        frame = self._before(frames.to_frame(checked, self.bundle.schema.inputs))
        names = [field.name for field in self.bundle.model.columns]
        missing = [name for name in names if name not in frame.columns]
        if missing:
            hook = self.bundle.hooks.preprocess
            message = f"the result of hook {hook} has no column {missing[0]}"
            raise ProjectError(message, hint="return all columns that the model was trained with")
        return frame[names]

    def _modelled(self, prepared: formats.Data) -> Raw:
        try:
            return self._compute(prepared)
        except (ProjectError, RefusedRequest):
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also the panics of libraries in Rust
            reason = f"{type(error).__name__}: {text_of(error)}"
            message = f"the model of {self.bundle.name} failed: {reason}"
            raise ProjectError(
                message, hint="check the row: the training data had no similar row"
            ) from error

    def _computed(self, raw: Raw) -> Computed:
        if self._heads:
            return _sent(frames.plain_columns(self._of_heads(raw)))
        return self._by_columns(raw) or self._by_rows(raw)

    def _by_columns(self, raw: Raw) -> Computed | None:
        """Return what `_by_rows` returns; `None` where an output is in doubt."""
        shares = raw.probabilities
        table = outputs.shares_of(shares, len(self._shares))
        if table is None:
            return None
        labels = outputs.labels_of(raw, self.bundle.model.classes, self._labels)
        if labels is None:
            return None
        names = (self.bundle.target, *(self._shares if shares is not None else ()))
        return Computed(names, [labels, *table])

    def _by_rows(self, raw: Raw) -> Computed:
        target = self.bundle.target
        if raw.probabilities is None:
            labels = raw.labels.tolist()
            return Computed(
                (target,), [[self._label(value, number) for number, value in enumerate(labels)]]
            )
        table = raw.probabilities.tolist()
        if raw.labels is None:
            classes = self.bundle.model.classes
            labels = [classes[row.index(max(row))] for row in table]
        else:
            labels = raw.labels.tolist()
        numbers = enumerate(zip(labels, table, strict=True))
        rows = [
            (self._label(label, number), *frames.plain_values(row, self._shares, number))
            for number, (label, row) in numbers
        ]
        return Computed((target, *self._shares), list(map(list, zip(*rows, strict=True))))

    def _of_heads(self, raw: Raw) -> Columns:
        columns: dict[str, list[Any]] = {}
        for place, head in enumerate(self._heads):
            columns[head.name] = raw.labels[:, place].tolist()
            self._check_labels(head, columns[head.name])
        if self.bundle.quantiles:
            middle = bundles.middle_of(self.bundle.quantiles, self.bundle.target)
            columns = {self.bundle.target: columns[middle], **columns}
        if raw.probabilities is not None:
            for head, part in zip(self._heads, heads.slices_of(self._heads), strict=True):
                names = [probability_of(label, head.name) for label in head.classes]
                columns |= dict(zip(names, raw.probabilities[:, part].T.tolist(), strict=True))
        return Columns(tuple(columns), tuple(columns.values()))

    def _check_labels(self, head: Head, values: list[Any]) -> None:
        foreign = set(values) - set(head.classes) if head.classes else set()
        if foreign:
            message = f"the model returned class {min(foreign, key=str)!r} of {head.name}, "
            message += "which is not in its manifest"
            raise ProjectError(message, hint="train again")

    def _label(self, value: Any, number: int) -> Value:
        """Return a label with its type in the manifest, where a 1 may be true or 1.0."""
        if not self._labels:
            return frames.plain(value, self.bundle.target, number)
        try:
            return self._labels[value]
        except KeyError:
            message = f"the model returned class {value!r}, which is not in its manifest"
            raise ProjectError(message, hint="train again") from None

    def _output_fields(self, outputs: Columns) -> list[bundles.Field]:
        kinds: dict[type, bundles.Kind] = {bool: "boolean", int: "integer", str: "text"}
        return [
            bundles.Field(name=name, kind=kinds.get(type(values[0]), "number"))
            for name, values in zip(outputs.names, outputs.values, strict=True)
        ]

    def _postprocessed(self, outputs: Columns) -> Columns:
        name = self.bundle.hooks.postprocess
        missing = [target for target in self.bundle.names if target not in outputs.names]
        if missing:
            message = f"the hook {name} returned no column {missing[0]}"
            raise ProjectError(message, hint="return the outputs with the target among them")
        if bundles.ID in outputs.names:  # which it did not return in training
            message = (
                f"the hook {name} returned a column {bundles.ID}, the name of each prediction's id"
            )
            raise ProjectError(message, hint="return it under another name")
        empty = [
            (values.index(None), column)
            for column, values in zip(outputs.names, outputs.values, strict=True)
            if column not in self._nullable and not isinstance(values, array) and None in values
        ]
        if empty:
            number, column = min(empty, key=itemgetter(0))
            message = f"the hook {name} returned no value in outputs[{number}].{column}"
            raise ProjectError(message, hint="return a value for every row")
        return outputs


def _sent(outputs: Columns) -> Computed:
    """Return outputs as a worker sends them."""
    columns = [
        values.tobytes() if isinstance(values, array) else list(values) for values in outputs.values
    ]
    return Computed(tuple(outputs.names), columns)


def internal(error: Exception) -> Refused:
    """Return the answer for an error that nobody expects, whose traceback goes to stderr."""
    show(error)
    return Refused(Fault(message=f"internal error: {type(error).__name__}"), 500)
