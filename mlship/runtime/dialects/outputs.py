"""The outputs that a V2 request selects, as tensors, for HTTP and gRPC."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from mlship.domain.bundle import Bundle, Label, Value, probability_of
from mlship.domain.columns import Columns
from mlship.runtime.dialects import tensors
from mlship.runtime.faults import RefusedRequest

CLASSIFICATION: Final = "classification"
BINARY: Final = "binary_data"


class Output(NamedTuple):
    """A tensor of a response.

    Attributes:
        values: row by row.
    """

    name: str
    datatype: str
    shape: list[int]
    values: list[Value]
    is_binary: bool


class Selected(NamedTuple):
    """An output that a request selects.

    Attributes:
        top: the number of classes that are wanted with their probabilities; 0 for the values.
    """

    name: str
    is_binary: bool
    top: int


class Outputs:
    """The outputs of a model."""

    def __init__(self, bundle: Bundle) -> None:
        self._datatypes = {
            field.name: tensors.datatype_of(field) for field in bundle.schema.outputs
        }
        self._classes = _classes(bundle)

    def select(
        self, wanted: Sequence[tuple[str, Mapping[str, Any]]], parameters: Mapping[str, Any]
    ) -> list[Selected]:
        """Return the outputs of a request, by default all.

        Args:
            wanted: names and parameters of outputs.
            parameters: those of the request.

        Raises:
            RefusedRequest: the model has no such output, or a parameter is invalid.
        """
        is_binary = _flag(parameters, "binary_data_output", default=False, place="parameters")
        if not wanted:
            return [Selected(name, is_binary, 0) for name in self._datatypes]
        names = [name for name, _ in wanted]
        selected = []
        for number, (name, named) in enumerate(wanted):
            place = f"outputs[{number}]"
            if name not in self._datatypes or name in names[:number]:
                what = "duplicate" if name in self._datatypes else "unknown"
                hint = f"valid outputs: {', '.join(self._datatypes)}"
                message = f"{what} output {name[:80]}"
                raise RefusedRequest(message, field=f"{place}.name", hint=hint)
            refuse_shared_memory(named, place)
            binary = _flag(named, BINARY, default=is_binary, place=f"{place}.parameters")
            selected.append(Selected(name, binary, self._top(name, named, place)))
        return selected

    def tensors(self, selected: Sequence[Selected], outputs: Columns) -> list[Output]:
        """Return a tensor of shape [rows] for each output, or [rows, classes]."""
        return [
            self._classification(chosen, outputs)
            if chosen.top
            else Output(
                chosen.name,
                self._datatypes[chosen.name],
                [len(outputs)],
                list(outputs.column(chosen.name)),
                chosen.is_binary,
            )
            for chosen in selected
        ]

    def _top(self, name: str, parameters: Mapping[str, Any], place: str) -> int:
        if CLASSIFICATION not in parameters:
            return 0
        top = parameters[CLASSIFICATION]
        field = f"{place}.parameters.{CLASSIFICATION}"
        if type(top) is not int or top < 0:
            hint = "send the number of classes"
            raise RefusedRequest(f"{CLASSIFICATION} is not a number", field=field, hint=hint)
        if top and name not in self._classes:
            message = f"output {name} has no probabilities of classes"
            known = ", ".join(self._classes)
            hint = f"outputs with classes: {known}" if known else "leave this parameter out"
            raise RefusedRequest(message, field=field, hint=hint)
        return min(top, len(self._classes.get(name, ())))

    def _classification(self, chosen: Selected, outputs: Columns) -> Output:
        """Return `probability:place:label` of the likeliest classes, the likeliest first."""
        classes = self._classes[chosen.name]
        labels = [label for label, _ in classes]
        columns = [outputs.column(column) for _, column in classes]
        values: list[Value] = []
        for shares in zip(*columns, strict=True):
            places = sorted(range(len(shares)), key=lambda place: -_share(shares[place]))
            values += [f"{shares[place]}:{place}:{labels[place]}" for place in places[: chosen.top]]
        shape = [len(outputs), chosen.top]
        return Output(chosen.name, tensors.BYTES, shape, values, chosen.is_binary)


def _classes(bundle: Bundle) -> dict[str, list[tuple[Label, str]]]:
    """Return for each output with classes their labels and the outputs with probabilities."""
    model = bundle.model
    known = {
        head.name: [(label, probability_of(label, head.name)) for label in head.classes]
        for head in model.heads
        if head.classes
    }
    if model.classes:
        known[bundle.target] = [(label, probability_of(label)) for label in model.classes]
    numbers = {field.name for field in bundle.schema.outputs if field.kind == "number"}
    return {
        name: classes
        for name, classes in known.items()
        if numbers.issuperset(column for _, column in classes)
    }


def _share(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool, place: str) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        message = f"{name} is not true or false"
        raise RefusedRequest(message, field=f"{place}.{name}", hint="send true or false")
    return value


def refuse_shared_memory(parameters: Mapping[str, Any], place: str) -> None:
    """Refuse a tensor in memory that client and server would share.

    Raises:
        RefusedRequest: the parameters name such memory.
    """
    if any(name.startswith("shared_memory") for name in parameters):
        message = "shared memory is not supported"
        hint = "send and receive tensors in the body"
        raise RefusedRequest(message, field=f"{place}.parameters", hint=hint)
