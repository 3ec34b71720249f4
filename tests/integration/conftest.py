"""What integration tests share: a warm process, and projects that were carried so far once."""

from collections.abc import Iterator

import pytest

from tests.harness import commands
from tests.mistakes.starts import Starts


@pytest.fixture(autouse=True)
def _warm_trainings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings and predictions fork from the warm processes, but in tests marked `cold`."""
    if not request.node.get_closest_marker("cold"):
        for place, replaced in commands.process().places():
            monkeypatch.setattr(place, "subprocess", replaced)


@pytest.fixture(scope="session")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starts]:
    """Give what mistakes start from; what runs of it is stopped in the end."""
    made = Starts(tmp_path_factory.mktemp("starts"))
    try:
        yield made
    finally:
        made.end()
