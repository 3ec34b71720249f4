"""The manifest of a run, as bytes, and whether the parts that it names are there."""

from collections.abc import Mapping

import msgspec

from mlship.domain import batch as batches
from mlship.domain.batch import Manifest, Plan
from mlship.errors import IntegrityError


def encoded(manifest: Manifest) -> bytes:
    """Return a manifest as the bytes of its file."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def check_parts(place: str, sizes: Mapping[str, int], plan: Plan, manifest: Manifest) -> None:
    """Check that the parts of a run are as they were written.

    Args:
        place: the folder or the URL of the run, for messages.
        sizes: in bytes, of what is there, by the name of the file.
        plan: of the run.
        manifest: names the parts.

    Raises:
        IntegrityError: a part is gone, or has another size.
    """
    for part in manifest.parts:
        name = batches.file_of(part.name, plan.format)
        if sizes.get(name) != part.size:
            state = "has another size" if name in sizes else "is gone"
            message = f"{place}/{name} {state}"
            hint = f"remove {place}, then run `mlship batch` again"
            raise IntegrityError(message, hint=hint)
