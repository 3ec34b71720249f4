"""Whether something real that a test needs answers: skip with the reason, or fail where told to."""

import os

import pytest


def require(name: str, answers: bool, hint: str) -> None:
    """Skip the test where a service does not answer; with MLSHIP_REQUIRE_SERVICES=1, fail."""
    if answers:
        return
    reason = f"{name} does not answer: {hint}"
    if os.environ.get("MLSHIP_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
