"""The pytest plugin that comes with mlship: the fixture `client` for a project's sanity tests.

pytest loads it in every run of an environment that has mlship, so it imports what it needs only
when a test asks for the fixture.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlship.testing.clients import SanityClient

ENDPOINT = "MLSHIP_SANITY_ENDPOINT"
BUNDLE = "MLSHIP_SANITY_BUNDLE"


@pytest.fixture(scope="session")
def client() -> Iterator["SanityClient"]:
    """Give a client of the model under test: at an endpoint, or a bundle's in this process."""
    endpoint, bundle = os.environ.get(ENDPOINT), os.environ.get(BUNDLE)
    if not endpoint and not bundle:
        pytest.skip(f"no model to test: `mlship test` sets {BUNDLE} and runs these tests")
    from mlship.testing import clients  # noqa: PLC0415 (see above)

    made = clients.of_endpoint(endpoint) if endpoint else clients.of_bundle(Path(bundle or ""))
    with made as opened:
        yield opened
