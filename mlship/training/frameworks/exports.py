"""Models of frameworks that are served without the framework, in the one form that they export."""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from mlship.domain.bundle import Dtype, Layout, ModelFormat
from mlship.training.frameworks.onnxgraph import Output


class NotExportedError(Exception):
    """Carries why a framework could not export a model."""


class Export(ABC):
    """A model that a framework exports, in the place of an estimator.

    Attributes:
        name: of the model, for people: `the PyTorch module Net`.
        format: that of the exported files.
        layout: in which serving gives it rows.
        dtype: of the numbers in them.
        modules: top-level modules that serving it needs.
    """

    name: str
    format: ClassVar[ModelFormat] = "onnx"
    layout: ClassVar[Layout] = "matrix"
    dtype: Dtype = "float32"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    @abstractmethod
    def files(self) -> Mapping[str, bytes]:
        """Return the files of the exported model by their names; the first is the model's.

        Raises:
            NotExportedError: the framework refuses.
        """


@dataclass(frozen=True)
class Network:
    """A network as its framework runs it.

    Attributes:
        name: for people: `the PyTorch module Net`.
        compute: from a matrix of shape (n, columns) to an array of shape (n,), (n, 1) or
            (n, classes).
        export: returns its ONNX graph, with one input and one output.
        output: what it returns, where its last layer says so.
        dtype: of the matrix.
    """

    name: str
    compute: Callable[[Any], Any]
    export: Callable[[int], Any]
    output: Output | None = None
    dtype: Dtype = "float32"


@contextmanager
def exporting(framework: str) -> Iterator[None]:
    """Let a framework export without a word; map whatever it raises.

    Raises:
        NotExportedError: with the first line of what it raised.
    """
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # exporters raise all kinds of errors
        lines = str(error).strip().splitlines()
        reason = lines[0][:200] if lines else type(error).__name__
        raise NotExportedError(f"{framework} cannot export it to ONNX: {reason}") from error
    finally:
        logging.disable(logging.NOTSET)
