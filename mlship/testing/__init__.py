"""The pytest plugin of mlship: the fixtures `client`, `model` and `data` for a project's tests.

pytest loads the plugin in every run in an environment with mlship, so its dependencies are
imported only when a test uses a fixture.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlship.testing.clients import SanityClient
    from mlship.testing.frames import ServedModel, Tables

ENDPOINT = "MLSHIP_SANITY_ENDPOINT"
BUNDLE = "MLSHIP_SANITY_BUNDLE"
DATA = "MLSHIP_SANITY_DATA"
CERTIFICATE = "MLSHIP_SANITY_CERTIFICATE"


@pytest.fixture(scope="session")
def client() -> Iterator["SanityClient"]:
    """Return a client of the model under test: at an endpoint, or a bundle in this process."""
    endpoint, bundle = os.environ.get(ENDPOINT), os.environ.get(BUNDLE)
    if not endpoint and not bundle:
        pytest.skip(f"no model to test; run `mlship test`, which sets {BUNDLE}")
    from mlship.domain import api_keys
    from mlship.testing import clients

    sanity = (
        clients.of_endpoint(
            endpoint, os.environ.get(api_keys.KEY, ""), os.environ.get(CERTIFICATE, "")
        )
        if endpoint
        else clients.of_bundle(Path(bundle or ""))
    )
    with sanity as opened:
        yield opened


@pytest.fixture(scope="session")
def model(client: "SanityClient", _tables: "Tables") -> "ServedModel":
    """Return the model under test, which predicts from a DataFrame, as it is served."""
    from mlship.testing.frames import ServedModel

    return ServedModel(client, _tables.targets)


@pytest.fixture
def data(_tables: "Tables") -> "Tables":
    """Return the project's data as DataFrames: `data.train` and the held-out `data.test`."""
    return _tables.copy()


@pytest.fixture(scope="session")
def _tables() -> "Tables":
    settings = os.environ.get(DATA)
    if not settings:
        pytest.skip(f"no data to test with; run `mlship test`, which sets {DATA}")
    from mlship.testing import frames

    return frames.read(settings)
