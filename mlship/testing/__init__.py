"""The pytest plugin of mlship: the fixture `client` for a project's sanity tests.

pytest loads the plugin in every run in an environment with mlship, so its dependencies are
imported only when a test uses the fixture.
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
    """Return a client of the model under test: at an endpoint, or a bundle in this process."""
    endpoint, bundle = os.environ.get(ENDPOINT), os.environ.get(BUNDLE)
    if not endpoint and not bundle:
        pytest.skip(f"no model to test; run `mlship test`, which sets {BUNDLE}")
    from mlship.testing import clients

    sanity = clients.of_endpoint(endpoint) if endpoint else clients.of_bundle(Path(bundle or ""))
    with sanity as opened:
        yield opened
