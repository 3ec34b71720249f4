"""What integration tests share: projects that were carried so far once."""

from collections.abc import Iterator

import pytest

from tests.mistakes.starts import Starts


@pytest.fixture(scope="session")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starts]:
    """Give what mistakes start from; what runs of it is stopped in the end."""
    made = Starts(tmp_path_factory.mktemp("starts"))
    try:
        yield made
    finally:
        made.end()
