"""Every call of tritonclient that applies to a served model, by HTTP and gRPC.

`benchmarks/clients.py` starts it with the Python of an environment that has tritonclient, and gives
it the addresses, the rows, and the original model's probabilities as JSON on stdin. It prints one
line a call, and exits with 1 if an answer differs.
"""

import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

TYPES: dict[str, Any] = {
    "BYTES": np.object_,
    "FP64": np.float64,
    "FP32": np.float32,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT16": np.int16,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


class Case:
    """A model, the rows that are sent to it, and the expected probabilities."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.name: str = given["name"]
        self.url: str = given["http"]
        self.grpc: str = given["grpc"]
        self.target: str = given["target"]
        self.classes: list[str] = given["classes"]
        self.columns: dict[str, list[Any]] = given["columns"]
        self.datatypes: dict[str, list[str]] = given["datatypes"]
        self.expected = np.array(given["probabilities"])
        self.is_table: bool = given["is_table"]

    def inputs(self, library: Any, datatypes: dict[str, str], **options: Any) -> list[Any]:
        """Return one tensor for each column."""
        tensors = []
        for name, values in self.columns.items():
            array = np.array(values, dtype=TYPES[datatypes[name]])
            tensor = library.InferInput(name, list(array.shape), datatypes[name])
            tensor.set_data_from_numpy(array, **options)
            tensors.append(tensor)
        return tensors

    def table(self, library: Any, datatype: str, **options: Any) -> list[Any]:
        """Return one tensor with all columns."""
        array = np.array(list(self.columns.values()), dtype=TYPES[datatype]).T.copy()
        tensor = library.InferInput("input-0", list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **options)
        return [tensor]

    def choices(self) -> list[dict[str, str]]:
        """Return the datatypes to send: the first of each column, then each other one."""
        first = {name: known[0] for name, known in self.datatypes.items()}
        others = [
            {**first, name: datatype}
            for name, known in self.datatypes.items()
            for datatype in known[1:]
        ]
        return [first, *others]

    def check(self, result: Any) -> None:
        """Compare probabilities and labels with the original model's."""
        for place, label in enumerate(self.classes):
            answered = result.as_numpy(f"probability_{label}")
            np.testing.assert_allclose(answered, self.expected[:, place], atol=1e-5)
        self.check_labels(result)

    def check_labels(self, result: Any) -> None:
        """Compare the labels with the likeliest classes."""
        labels = [text(value) for value in result.as_numpy(self.target)]
        assert labels == [self.classes[number] for number in self.expected.argmax(axis=1)], labels


def text(value: Any) -> str:
    """Return a value of a BYTES tensor, which is a `str` if it came as JSON."""
    return value.decode() if isinstance(value, bytes) else str(value)


class Calls:
    """The calls of one client to one model; each method raises if an answer is wrong."""

    def __init__(self, case: Case, library: Any, address: str) -> None:
        self.case = case
        self.library = library
        self.client = library.InferenceServerClient(address)
        self.is_http = library is tritonclient.http
        self.as_json = {} if self.is_http else {"as_json": True}
        metadata = self.client.get_model_metadata(case.name, **self.as_json)
        self.version = metadata["versions"][0]
        self.forms: list[dict[str, Any]] = [{}]
        if self.is_http:
            self.forms = [{"binary_data": True}, {"binary_data": False}]
        self.requested = [case.target, *(f"probability_{label}" for label in case.classes)]
        self.inputs = case.inputs(library, case.choices()[0])

    def health(self) -> None:
        """Ask whether server and model are there."""
        name = self.case.name
        assert self.client.is_server_live()
        assert self.client.is_server_ready()
        assert self.client.is_model_ready(name)
        assert self.client.is_model_ready(name, self.version)

    def metadata(self) -> None:
        """Ask what server and model are."""
        name = self.case.name
        assert self.client.get_server_metadata(**self.as_json)["name"] == "mlship"
        metadata = self.client.get_model_metadata(name, self.version, **self.as_json)
        assert [tensor["name"] for tensor in metadata["inputs"]] == list(self.case.columns)
        config = self.client.get_model_config(name, **self.as_json)
        config = config if self.is_http else config["config"]
        assert [tensor["name"] for tensor in config["output"]] == self.requested
        index = self.client.get_model_repository_index(**self.as_json)
        index = index if self.is_http else index["models"]
        assert [(model["name"], model["state"]) for model in index] == [(name, "READY")]

    def statistics(self) -> None:
        """Compare the statistics before and after one request."""
        before = self._counts()
        self.client.infer(self.case.name, self.inputs)
        rows, requests = self._counts()
        assert (rows, requests) == (before[0] + len(self.case.expected), before[1] + 1)
        everything = self.client.get_inference_statistics(**self.as_json)
        assert everything["model_stats"][0]["name"] == self.case.name

    def infer(self) -> None:
        """Send one tensor for each column, in each datatype and form."""
        for datatypes in self.case.choices():
            for form in self.forms:
                inputs = self.case.inputs(self.library, datatypes, **form)
                result = self.client.infer(self.case.name, inputs, self.version, request_id="mine")
                self.case.check(result)
                response = result.get_response(**self.as_json)
                assert response["id"] == "mine"
                assert response["parameters"]["predictions"]

    def table(self) -> None:
        """Send one tensor of all columns, if they have one kind."""
        for datatype in ("FP64", "FP32") if self.case.is_table else ():
            for form in self.forms:
                inputs = self.case.table(self.library, datatype, **form)
                self.case.check(self.client.infer(self.case.name, inputs))

    def outputs(self) -> None:
        """Select outputs: all, and one."""
        for form in self.forms:
            outputs = [self.library.InferRequestedOutput(name, **form) for name in self.requested]
            self.case.check(self.client.infer(self.case.name, self.inputs, outputs=outputs))
            only = self.client.infer(self.case.name, self.inputs, outputs=outputs[:1])
            self.case.check_labels(only)
            assert only.as_numpy(self.requested[1]) is None

    def outputs_in_both_forms(self) -> None:
        """Select binary outputs beside JSON, over HTTP."""
        if not self.is_http:
            return
        outputs = [
            self.library.InferRequestedOutput(name, binary_data=bool(place % 2))
            for place, name in enumerate(self.requested)
        ]
        self.case.check(self.client.infer(self.case.name, self.inputs, outputs=outputs))

    def classification(self) -> None:
        """Ask for the two likeliest classes."""
        target, expected = self.case.target, self.case.expected
        for form in self.forms:
            output = self.library.InferRequestedOutput(target, class_count=2, **form)
            result = self.client.infer(self.case.name, self.inputs, outputs=[output])
            ranked = result.as_numpy(target)
            assert ranked.shape == (len(expected), 2)
            for row, shares in zip(ranked, expected, strict=True):
                value, place, label = text(row[0]).split(":")
                assert int(place) == shares.argmax()
                assert label == self.case.classes[int(place)]
                assert abs(float(value) - shares.max()) < 1e-5

    def compression(self) -> None:
        """Compress requests and responses."""
        for algorithm in ("gzip", "deflate"):
            both = {"compression_algorithm": algorithm}
            if self.is_http:
                both = {
                    "request_compression_algorithm": algorithm,
                    "response_compression_algorithm": algorithm,
                }
            self.case.check(self.client.infer(self.case.name, self.inputs, **both))

    def async_infer(self) -> None:
        """Have four requests in flight."""
        answers: queue.Queue[Any] = queue.Queue()
        name = self.case.name
        if self.is_http:
            waiting = [self.client.async_infer(name, self.inputs) for _ in range(4)]
            for request in waiting:
                answers.put((request.get_result(), None))
        else:
            for _ in range(4):
                self.client.async_infer(
                    name, self.inputs, lambda result, error: answers.put((result, error))
                )
        for _ in range(4):
            result, error = answers.get(timeout=10)
            assert error is None, error
            self.case.check(result)

    def parameters(self) -> None:
        """Send parameters that have no meaning for the server."""
        own = {"who": "me"}
        result = self.client.infer(
            self.case.name, self.inputs, priority=1, timeout=5_000_000, parameters=own
        )
        self.case.check(result)

    def refusals(self) -> None:
        """Send what is refused: the client raises, with the server's text."""
        name = self.case.name
        for model, inputs, expected in (
            ("other", self.inputs, "other"),
            (name, self.inputs[1:], "missing tensor"),
            (name, [self.inputs[0], *self.inputs], "duplicate tensor"),
        ):
            message = ""
            try:
                self.client.infer(model, inputs)
            except InferenceServerException as error:
                message = error.message()
            assert expected in message, message

    def _counts(self) -> tuple[int, int]:
        statistics = self.client.get_inference_statistics(self.case.name, **self.as_json)
        (model,) = statistics["model_stats"]
        requests = int(model["inference_stats"]["success"]["count"])
        return int(model["inference_count"]), requests


NAMES = (
    *("health", "metadata", "statistics", "infer", "table", "outputs", "outputs_in_both_forms"),
    *("classification", "compression", "async_infer", "parameters", "refusals"),
)


def main() -> int:
    """Run all calls; return the exit code."""
    failed = 0
    for given in json.load(sys.stdin):
        case = Case(given)
        for library in (tritonclient.http, tritonclient.grpc):
            calls = Calls(case, library, case.url if library is tritonclient.http else case.grpc)
            for name in NAMES:
                verdict = "ok"
                try:
                    getattr(calls, name)()
                except Exception as error:  # noqa: BLE001 (all calls are reported)
                    failed += 1
                    verdict = f"FAILED {type(error).__name__}: {error}".replace("\n", " ")[:300]
                sys.stdout.write(f"{case.name:10} {library.__name__:18} {name:22} {verdict}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
