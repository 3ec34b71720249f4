"""Text classification by a transformer: a tokenizer's data file, then an ONNX graph.

    model.onnx        token ids and masks of shape (1, tokens) to a label and (1, classes) shares
    tokenizer.json    the tokenizer, with its truncation, as the library `tokenizers` reads it

Each text is computed by itself, so that no padding and no other row has a part in its answer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from mlship.domain.bundle import Value

TOKENIZER: Final = "tokenizer.json"

_INPUTS: Final = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
"""The inputs of a graph, and the attributes of an encoded text that go into them."""


def load(path: Path, session: Any, outputs: Sequence[str]) -> Callable[[Sequence[Value]], Any]:
    """Return what computes outputs for n texts: one array of n rows for each output.

    Args:
        path: of the graph; the tokenizer lies beside it.
        session: the loaded graph.
        outputs: names of its outputs.

    Raises:
        ValueError: the graph has another input than a tokenizer's.
    """
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path.parent / TOKENIZER))
    names = [entry.name for entry in session.get_inputs()]
    foreign = [name for name in names if name not in _INPUTS]
    if foreign:
        message = f"the graph has an input {foreign[0]}, which no tokenizer gives"
        raise ValueError(message)

    def computed(text: Value) -> Any:
        if not isinstance(text, str):
            message = f"a text is needed, not {'null' if text is None else text}"
            raise TypeError(message)
        encoded = tokenizer.encode(text)
        inputs = {
            name: np.array([getattr(encoded, _INPUTS[name])], dtype="int64") for name in names
        }
        return session.run(outputs, inputs)

    def compute(texts: Sequence[Value]) -> Any:
        rows = [computed(text) for text in texts]
        return [np.concatenate([row[place] for row in rows]) for place in range(len(outputs))]

    return compute
