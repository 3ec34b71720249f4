"""How this mlship was installed, and where jobs can install it from."""

from pathlib import Path

from mlship.adapters.checkout import repository
from mlship.config import installation
from mlship.config.installation import Installation, Origin
from mlship.errors import MlshipError


def installed(top: Path | None) -> Installation:
    """Return what is known of this mlship for a project.

    Args:
        top: of the git repository that the project belongs to.
    """
    origin = installation.current()
    source, reason = source_of(origin, top)
    return Installation(
        origin=origin, source=source, reason=reason, others=installation.installed_others()
    )


def source_of(origin: Origin, top: Path | None) -> tuple[str, str]:
    """Return what jobs can install mlship from, or else why that is unknown."""
    match origin.kind:
        case "none":
            return "", f"{installation.DISTRIBUTION} is not installed, it only runs here"
        case "index":
            return "", f"mlship {origin.version} came from an index, and no hash was recorded"
        case "folder":
            return _of_path(Path(origin.url), top)
        case "archive" if origin.url.startswith("file://"):
            return _of_path(Path(origin.url.removeprefix("file://")), top)
        case "git" if origin.url.startswith("file://"):
            return "", f"mlship came from {origin.url}, which jobs cannot reach"
        case _:
            address = installation.address(origin)
            wrong = installation.refusal(address)
            return (
                ("", f"mlship came from an address without a pin: {wrong}")
                if wrong
                else (address, "")
            )


def _of_path(place: Path, top: Path | None) -> tuple[str, str]:
    """Return how jobs find what lies on this machine: in the project's repository, or published."""
    if top is not None and place.resolve().is_relative_to(top.resolve()):
        inside = place.resolve().relative_to(top.resolve()).as_posix()
        return ("." if inside == "." else f"./{inside}"), ""
    if not place.is_dir():
        return "", f"mlship came from {place}, which jobs cannot reach"
    try:
        return repository.published(place), ""
    except MlshipError as error:
        return "", f"mlship came from a folder of this machine: {error.message}"
