"""Whether something real that a test needs answers: skip with the reason, or fail where told to."""

import os
import shutil
from pathlib import Path

import pytest


def require(name: str, answers: bool, hint: str) -> None:
    """Skip the test where a service does not answer; with MLSHIP_REQUIRE_SERVICES=1, fail."""
    if answers:
        return
    reason = f"{name} does not answer: {hint}"
    if os.environ.get("MLSHIP_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def installed(name: str) -> str | None:
    """Return a program: on PATH, or where `go install` puts it; `None` if it is not there."""
    places = [os.environ.get("PATH", ""), os.environ.get("GOBIN", "")]
    places.append(str(Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin"))
    return shutil.which(name, path=os.pathsep.join(filter(None, places)))
