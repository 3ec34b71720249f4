"""How an image starts its process; the same for all builders."""

from typing import Final

from mlship.adapters.images.build.contents import BUNDLE, DEPENDENCIES, RUNTIME
from mlship.domain.deployment import slot_of
from mlship.domain.environment import WAITING
from mlship.domain.release import Release

PORT: Final = "8080"
USER: Final = "65532:65532"
"""An unprivileged user and group without a name."""
STOP_SIGNAL: Final = "SIGTERM"


def environment(release: Release) -> dict[str, str]:
    """Return the variables to set in addition to those of the base.

    The process writes only to /tmp. MLSHIP_SLOT is its slot, MLSHIP_LOG its prediction log.
    """
    return {
        "HOME": "/tmp",  # noqa: S108 (the only writable folder under a read-only root)
        "MLSHIP_LOG": "/tmp/predictions",  # noqa: S108 (the same)
        "MLSHIP_SLOT": slot_of(release),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"/{RUNTIME}:/{DEPENDENCIES}",
        **WAITING,
    }


def entry_point(release: Release) -> list[str]:
    """Return the argv of the server; it needs no shell."""
    # -P: a file in the working directory must not shadow a module.
    argv = ["python3", "-P", "-m", "mlship.runtime", "serve", "--bundle", f"/{BUNDLE}"]
    argv += ["--digest", release.bundle, "--release", release.id]
    return [*argv, "--name-of-release", str(release), "--host", "0.0.0.0", "--port", PORT]  # noqa: S104 (in a container)
