"""The service described to people: one page with no reference to any other host."""

from importlib import resources
from typing import Any

import msgspec

from mlship.domain.bundle import Bundle

_MARK = b"__PAGE_DATA__"


def render(bundle: Bundle, release: str) -> bytes:
    """Return the page at `/docs` as HTML in UTF-8: a form with one input for each column.

    What comes from the bundle is carried as JSON and shown as text, never as markup.
    """
    data: dict[str, Any] = {
        "name": bundle.name,
        "task": bundle.task,
        "targets": bundle.names,
        "release": release,
        "format": bundle.model.format,
        "metrics": bundle.metrics,
        "inputs": msgspec.to_builtins(bundle.schema.inputs),
    }
    text = msgspec.json.encode(data).replace(b"<", b"\\u003c")
    return resources.files("mlship.runtime").joinpath("page.html").read_bytes().replace(_MARK, text)
