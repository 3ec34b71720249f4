"""Which repository of Google's an image's name means, and what is said where Google denies it."""

import sys

import httpx
import pytest

from mlship.adapters.http.clients import Reach
from mlship.adapters.images.registry import google_repository
from mlship.adapters.images.registry.client import Ask, Exchange
from mlship.adapters.images.registry.credentials import Credential
from mlship.domain.image import reference
from mlship.errors import ConfigError, UnavailableError
from tests.harness.places import Notes

HOST = "europe-west1-docker.pkg.dev"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (
            f"{HOST}/iris-1/models/iris",
            "projects/iris-1/locations/europe-west1/repositories/models",
        ),
        ("us-docker.pkg.dev/iris-1/m/a/b", "projects/iris-1/locations/us/repositories/m"),
        (
            f"{HOST}/example.com/iris-1/models/iris",
            "projects/example.com:iris-1/locations/europe-west1/repositories/models",
        ),
    ],
)
def test_an_images_name_tells_where_its_repository_is(image: str, expected: str) -> None:
    assert str(google_repository.place(reference(image))) == expected


@pytest.mark.parametrize(
    "image", ["localhost:5000/iris", "ghcr.io/ada/iris", "eu.gcr.io/iris-1/iris", "iris"]
)
def test_other_registries_are_left_alone(image: str) -> None:
    notes = Notes()
    google_repository.prepare(
        reference(image),
        create=True,
        progress=notes,
        client=lambda _: pytest.fail("Google was asked"),
    )
    assert notes.lines == []


@pytest.mark.parametrize("name", ["iris-1", "iris-1/models", "example.com/iris-1/models"])
def test_a_name_without_an_image_or_a_repository_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="lacks the repository or the image") as caught:
        google_repository.place(reference(f"{HOST}/{name}"))
    assert f"{HOST}/PROJECT/REPOSITORY/IMAGE" in caught.value.hint


def test_without_googles_library_only_what_must_be_made_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    notes, image = Notes(), reference(f"{HOST}/iris-1/models/iris")
    google_repository.prepare(image, create=False, progress=notes)
    assert "is not looked up: Artifact Registry needs the package" in notes.lines[0]
    with pytest.raises(ConfigError, match="not installed") as caught:
        google_repository.prepare(image, create=True, progress=notes)
    assert "[gcp]" in caught.value.hint


@pytest.mark.parametrize(("action", "role"), [("pull,push", "writer"), ("pull", "reader")])
def test_who_may_not_is_told_the_role_that_may(action: str, role: str) -> None:
    exchange = Exchange(
        HOST,
        lambda: Credential(user="oauth2accesstoken", password="ya29"),
        reach=Reach(transport=httpx.MockTransport(lambda _: httpx.Response(403))),
    )
    ask = Ask(method="GET", url="/v2/", scope=f"repository:iris-1/models/iris:{action}")
    with pytest.raises(UnavailableError, match="iris-1/models/iris") as caught:
        exchange.send(ask)
    assert f"roles/artifactregistry.{role}" in caught.value.hint
