"""How the process in an image is started: the same, whoever builds the image."""

from typing import Final

from mlship.adapters.images.build.contents import BUNDLE, DEPENDENCIES, RUNTIME
from mlship.domain.deployment import slot_of
from mlship.domain.release import Release

PORT: Final = "8080"
USER: Final = "65532:65532"
"""Nobody in particular."""
STOP_SIGNAL: Final = "SIGTERM"


def environment(release: Release) -> dict[str, str]:
    """Return the variables that are set besides the base's.

    The process writes to /tmp alone; MLSHIP_SLOT and MLSHIP_LOG say where it runs and where
    predictions are logged.
    """
    return {
        "HOME": "/tmp",  # noqa: S108 (the one place that is writable under a read-only root)
        "MLSHIP_LOG": "/tmp/predictions",  # noqa: S108 (the same)
        "MLSHIP_SLOT": slot_of(release),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"/{RUNTIME}:/{DEPENDENCIES}",
    }


def entry_point(release: Release) -> list[str]:
    """Return the argv of the server; it needs no shell."""
    # -P: a file of the user's in the working directory must not shadow a module.
    served = ["python3", "-P", "-m", "mlship.runtime", "serve", "--bundle", f"/{BUNDLE}"]
    served += ["--digest", release.bundle, "--release", release.id]
    return [*served, "--name-of-release", str(release), "--host", "0.0.0.0", "--port", PORT]  # noqa: S104 (in a container)
