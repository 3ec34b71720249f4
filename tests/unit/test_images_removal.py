"""Removal of images from a registry: by digest, with their tags and what is attached to them."""

import json

import pytest

from mlship.adapters.images.registry.registries import Registries
from mlship.adapters.images.registry.removal import RegistryImages
from mlship.config.project import ImageConfig
from mlship.domain.digests import Digest
from mlship.errors import RefusedError
from tests.fakes.registry import FakeRegistry, digest_of
from tests.harness.images import INDEX, MANIFEST


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


def images(fake: FakeRegistry) -> RegistryImages:
    config = ImageConfig(repository="localhost:5000/iris")
    return RegistryImages(Registries(config, {}, transport=fake.transport))


def put(
    fake: FakeRegistry, document: dict[str, object], *tags: str, kind: str = MANIFEST
) -> Digest:
    data = json.dumps(document).encode()
    kept = fake.manifests.setdefault("iris", {})
    for name in (digest_of(data), *tags):
        kept[name] = (data, kind)
    return Digest(digest_of(data))


def image(fake: FakeRegistry, text: str, *tags: str) -> Digest:
    layer = {"mediaType": "x", "digest": digest_of(text.encode()), "size": 1}
    return put(fake, {"config": layer, "layers": [layer]}, *tags)


def index(fake: FakeRegistry, inner: list[Digest], *tags: str) -> Digest:
    entries = [{"mediaType": MANIFEST, "digest": digest, "size": 1} for digest in inner]
    return put(fake, {"manifests": entries}, *tags, kind=INDEX)


def test_an_index_has_the_layers_of_its_images(fake: FakeRegistry) -> None:
    inner = [image(fake, "a"), image(fake, "b")]
    digest = index(fake, inner, "1")
    found = images(fake).find("1")
    assert found is not None
    assert (found.digest, found.images) == (digest, tuple(inner))
    assert found.layers == {digest_of(b"a"), digest_of(b"b")}
    assert images(fake).find("2") is None


@pytest.mark.parametrize("deletes", ["yes", "untagged"])
def test_an_image_goes_with_its_tags_and_no_other(fake: FakeRegistry, deletes: str) -> None:
    fake.deletes = deletes  # type: ignore[assignment]
    digest, other = image(fake, "a", "1", "one"), image(fake, "b", "2")
    images(fake).remove(digest, ["1", "one"])
    assert fake.manifests["iris"].keys() == {other, "2"}
    images(fake).remove(digest, ["1", "one"])  # as after a crash
    assert fake.manifests["iris"].keys() == {other, "2"}


@pytest.mark.parametrize("deletes", ["yes", "untagged"])
def test_what_is_attached_to_an_image_goes_with_it_and_that_of_others_stays(
    fake: FakeRegistry, deletes: str
) -> None:
    fake.deletes = deletes  # type: ignore[assignment]
    digest, other = image(fake, "a", "1"), image(fake, "b", "2")
    of_image, of_other = image(fake, "sbom of a"), image(fake, "sbom of b")
    index(fake, [of_image], digest.replace(":", "-"))
    image(fake, "signature of a", f"{digest.replace(':', '-')}.sig")
    others = index(fake, [of_other], other.replace(":", "-"))
    images(fake).remove(digest, ["1"])
    assert fake.manifests["iris"].keys() == {
        *(other, "2", of_other, others),
        other.replace(":", "-"),
    }


def test_a_registry_that_does_not_delete_is_told(fake: FakeRegistry) -> None:
    fake.deletes = "no"
    digest = image(fake, "a", "1")
    with pytest.raises(RefusedError, match="localhost:5000 does not allow") as caught:
        images(fake).remove(digest, ["1"])
    assert "REGISTRY_STORAGE_DELETE_ENABLED=true" in caught.value.hint
    assert fake.requests["DELETE"] == 1
