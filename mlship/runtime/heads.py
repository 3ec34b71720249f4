"""The answers of a model with several heads, brought into one shape whatever library gave them."""

from collections.abc import Iterator, Sequence
from typing import Any

from mlship.domain.bundle import Head, Label


def labels_of(values: Any, heads: Sequence[Head]) -> Any:
    """Return labels or values of shape (n, heads), each label with its type in the manifest.

    A library that puts the labels of all heads into one array makes texts of numbers among texts,
    and numbers of booleans.

    Raises:
        ValueError: the answer has another shape.
    """
    import numpy as np

    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] != len(heads):
        message = f"the model answers with shape {array.shape[1:]}, not with {len(heads)} values"
        raise ValueError(message)
    if not any(head.classes for head in heads):
        return array
    typed = np.empty(array.shape, dtype=object)
    for place, head in enumerate(heads):
        known: dict[Label, Label] = {str(label): label for label in head.classes}
        known |= {label: label for label in head.classes}
        typed[:, place] = [known.get(value, value) for value in array[:, place].tolist()]
    return typed


def probabilities_of(shares: Any, heads: Sequence[Head]) -> Any:
    """Return the probabilities of all heads beside each other, shape (n, all classes).

    Args:
        shares: an array of shape (n, classes) for each head; or one of shape (n, heads) with the
            probability of the second of two classes; or one that has the wanted shape.
        heads: the heads, with their classes.

    Returns:
        `None` if there are none, or they are not all.

    Raises:
        ValueError: the numbers of classes are others.
    """
    import numpy as np

    if shares is None:
        return None
    if isinstance(shares, list | tuple) or np.ndim(shares) == 3:
        parts = [np.asarray(part) for part in shares]
    else:
        table = np.asarray(shares)
        widths = [len(head.classes) for head in heads]
        if table.shape[1] == sum(widths) and table.shape[1] != len(heads):
            return table
        if set(widths) != {2}:
            return None
        parts = [np.stack([1 - column, column], axis=1) for column in table.T]
    shapes = [part.shape[1:] for part in parts]
    if shapes != [(len(head.classes),) for head in heads]:
        message = f"the model gives probabilities of shapes {shapes}, not one for each class"
        raise ValueError(message)
    return np.concatenate(parts, axis=1)


def slices_of(heads: Sequence[Head]) -> Iterator[slice]:
    """Return for each head the columns of its probabilities."""
    start = 0
    for head in heads:
        yield slice(start, start + len(head.classes))
        start += len(head.classes)


def likeliest(probabilities: Any, heads: Sequence[Head]) -> Any:
    """Return the label of the highest probability for each head, shape (n, heads)."""
    import numpy as np

    labels = np.empty((len(probabilities), len(heads)), dtype=object)
    for place, (head, part) in enumerate(zip(heads, slices_of(heads), strict=True)):
        best = np.asarray(probabilities)[:, part].argmax(axis=1)
        labels[:, place] = [head.classes[number] for number in best.tolist()]
    return labels
