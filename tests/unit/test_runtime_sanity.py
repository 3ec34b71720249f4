from pathlib import Path

import httpx
import pytest

from mlship.errors import IntegrityError
from mlship.testing import clients
from tests.harness.bundles import SETOSA, VIRGINICA, iris_bundle


def test_a_client_of_a_bundle_needs_no_server(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris")
    with clients.of_bundle(tmp_path / "iris") as client:
        assert client.predict(SETOSA)["species"] == "setosa"
        assert [row["species"] for row in client.predict([VIRGINICA, SETOSA])] == [
            "virginica",
            "setosa",
        ]
        assert client.get("/v2/health/ready").json()["ready"]
        assert client.get("/").headers["location"] == "docs"
        refused = client.post("/predict", json={"sepal_length": "long"})
        assert refused.status_code == 400
        with pytest.raises(httpx.HTTPStatusError, match="missing column sepal_width"):
            client.predict({"sepal_length": 5.1})


def test_a_bundle_that_gives_other_outputs_is_no_client(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris", golden_error=0.5)
    with pytest.raises(IntegrityError, match="golden example 0"):
        clients.of_bundle(tmp_path / "iris")
