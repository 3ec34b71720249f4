"""How this mlship was installed, and where jobs can install it from."""

from pathlib import Path

from mlship.adapters.checkout import repository
from mlship.config import distributions, installation
from mlship.config.installation import Installation, Origin
from mlship.errors import MlshipError


def installed(top: Path | None) -> Installation:
    """Return how this mlship was installed, for a project.

    Args:
        top: the top folder of the project's git repository.
    """
    origin = installation.current()
    source, reason = source_of(origin, top)
    return Installation(origin=origin, source=source, reason=reason, others=distributions.others())


def source_of(origin: Origin, top: Path | None) -> tuple[str, str]:
    """Return the source from which jobs can install mlship, or why it is unknown."""
    match origin.kind:
        case "none":
            return "", f"{installation.DISTRIBUTION} is not installed, it runs from its source"
        case "index":
            return "", f"mlship {origin.version} came from an index, which records no hash"
        case "folder":
            return _of_path(Path(origin.url), top)
        case "archive" if origin.url.startswith("file://"):
            return _of_path(Path(origin.url.removeprefix("file://")), top)
        case "git" if origin.url.startswith("file://"):
            return "", f"mlship came from {origin.url}, which jobs cannot reach"
        case _:
            address = installation.address(origin)
            problem = installation.refusal(address)
            return (
                ("", f"mlship came from a URL without a pin: {problem}")
                if problem
                else (address, "")
            )


def _of_path(place: Path, top: Path | None) -> tuple[str, str]:
    """Return the source for a path on this machine: in the project's repository, or published."""
    if top is not None and place.resolve().is_relative_to(top.resolve()):
        inside = place.resolve().relative_to(top.resolve()).as_posix()
        return ("." if inside == "." else f"./{inside}"), ""
    if not place.is_dir():
        return "", f"mlship came from {place}, which jobs cannot reach"
    try:
        return repository.published(place), ""
    except MlshipError as error:
        return "", f"mlship came from a folder on this machine: {error.message}"
