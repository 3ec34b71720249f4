"""What integration tests share: a warm process, and projects that were carried so far once."""

import subprocess
from collections.abc import Iterator

import pytest

from mlship.adapters.checkout import children, jobs, own_commands, predictor
from mlship.adapters.rows import workers
from mlship.adapters.targets.local import processes
from tests.harness import commands
from tests.mistakes.starts import Starts


@pytest.fixture(autouse=True, scope="module")
def _warm_trainings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let trainings, predictions, projects' tests and servers be forks, also those of fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("cold"):
            for place, replaced in commands.process().places():
                patch.setattr(place, "subprocess", replaced)
        yield


@pytest.fixture(autouse=True)
def _cold_trainings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all be processes of their own, from the start of Python on, in tests marked `cold`."""
    if request.node.get_closest_marker("cold"):
        for place in (children, jobs, predictor, processes, workers, own_commands):
            monkeypatch.setattr(place, "subprocess", subprocess)


@pytest.fixture(scope="session")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starts]:
    """Give what mistakes start from; what runs of it is stopped in the end."""
    made = Starts(tmp_path_factory.mktemp("starts"))
    try:
        yield made
    finally:
        made.end()
