"""What everything that makes images promises: the fake, and ours on a fake and a real registry."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from mlship.adapters.images.engine.builds import EngineBuild
from mlship.domain import digests
from mlship.domain.dsse import IN_TOTO
from mlship.domain.image import reference
from mlship.domain.ports import Images
from mlship.domain.referrers import CYCLONEDX, Document, Referrer
from mlship.domain.release import Release
from mlship.errors import IntegrityError, NotFoundError
from tests.fakes.docker import FakeBuild
from tests.fakes.images import FakeImages
from tests.fakes.registry import FakeRegistry
from tests.harness import asking, engine
from tests.harness.base import small
from tests.harness.images import Project, a_release, base_image
from tests.harness.places import Notes
from tests.harness.services import require

BACKENDS = (
    "fake",
    "oci",
    "engine's fake",
    pytest.param("registry", marks=pytest.mark.service("registry")),
    pytest.param("engine", marks=[pytest.mark.service("registry"), pytest.mark.service("docker")]),
)


@pytest.fixture(scope="module")
def folders() -> Iterator[list[Path]]:
    """Give a list for the folders of projects whose images the engine is to forget in the end.

    Until then it has their layers: the tests build the same few images.
    """
    found: list[Path] = []
    yield found
    for folder in found:
        engine.forget(folder)


@pytest.fixture(params=BACKENDS)
def reopen(
    request: pytest.FixtureRequest, tmp_path: Path, folders: list[Path]
) -> Callable[[], Images]:
    """Give a function that opens the same images anew, as the next command would.

    What mlship makes itself is the same on another machine; what Docker builds, on this one.
    """
    if request.param == "engine":
        folders.append(tmp_path)
    return opening(request.param, tmp_path)


def opening(backend: str, tmp_path: Path) -> Callable[[], Images]:
    if backend == "fake":
        images = FakeImages()
        return lambda: images
    if backend == "engine's fake":
        fake = FakeRegistry()
        base_image(fake)
        return Project(tmp_path / "machine", fake, FakeBuild()).again
    if backend == "oci":
        fake = FakeRegistry()
        base_image(fake)
        return lambda: Project(tmp_path / uuid.uuid4().hex, fake).images
    require("registry", answers(), "services up registry")
    name = f"localhost:5000/contract/{uuid.uuid4().hex}"
    if backend == "engine":
        engine.required()
        build = EngineBuild(os.environ, Notes())
        return Project(tmp_path / "machine", None, build, repository=name, base=small()).again
    base = small()
    return lambda: Project(tmp_path / uuid.uuid4().hex, None, repository=name, base=base).images


def answers() -> bool:
    try:
        return asking.get("http://localhost:5000/v2/", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def made(tmp_path: Path) -> tuple[Release, Path]:
    return a_release(tmp_path / "bundle")


def test_the_same_release_gives_the_same_digest_each_time(
    reopen: Callable[[], Images], made: tuple[Release, Path]
) -> None:
    image = reopen().build(*made, base=None)
    assert reopen().build(*made, base=image.base.digest).digest == image.digest
    assert image.base.digest is not None
    assert image.tag == digests.short(made[0].id)


def test_another_release_gives_another_digest(
    reopen: Callable[[], Images], made: tuple[Release, Path], tmp_path: Path
) -> None:
    images = reopen()
    other = a_release(tmp_path / "other", "another model")
    same_model = msgspec.structs.replace(made[0], commit="b" * 40)
    found = [images.build(*made, base=None), images.build(*other, base=None)]
    found.append(images.build(same_model, made[1], base=None))
    assert len({image.digest for image in found}) == 3


def test_a_push_twice_sends_once_and_names_the_same_digest(
    reopen: Callable[[], Images], made: tuple[Release, Path]
) -> None:
    one, two = reopen(), reopen()
    pushed = one.push(one.build(*made, base=None))
    again = two.push(two.build(*made, base=None))
    assert pushed.sent > 0
    assert again.sent == 0
    assert again.reference == pushed.reference
    assert pushed.reference.endswith(f"@{pushed.digest}")


def test_a_damaged_bundle_makes_no_image(
    reopen: Callable[[], Images], made: tuple[Release, Path]
) -> None:
    (made[1] / "model" / "model.onnx").write_text("another")
    with pytest.raises(IntegrityError):
        reopen().build(*made, base=None)


def test_an_image_is_saved_where_it_is_told(
    reopen: Callable[[], Images], made: tuple[Release, Path], tmp_path: Path
) -> None:
    images = reopen()
    image = images.build(*made, base=None)
    images.save(image, tmp_path / "new" / "image.tar")
    assert (tmp_path / "new" / "image.tar").stat().st_size > 0


def test_a_saved_image_is_taken_in_again_and_no_other_file_is(
    reopen: Callable[[], Images], made: tuple[Release, Path], tmp_path: Path
) -> None:
    images, file = reopen(), tmp_path / "image.tar"
    image = images.build(*made, base=None)
    images.save(image, file)
    elsewhere = reopen()
    elsewhere.load(image, file)
    assert elsewhere.push(image).digest == image.digest
    other = images.build(*a_release(tmp_path / "other", "another model"), base=None)
    with pytest.raises(IntegrityError):
        images.load(other, file)
    with pytest.raises(NotFoundError):
        images.load(image, tmp_path / "nothing.tar")


def test_a_document_is_attached_once_and_found_with_its_bytes(
    reopen: Callable[[], Images], made: tuple[Release, Path]
) -> None:
    images = reopen()
    pushed = reference(images.push(images.build(*made, base=None)).reference)
    bill = Document(artifact_type=CYCLONEDX, media_type=CYCLONEDX, data=b"{}")
    digest = images.attach(pushed, bill)
    assert reopen().attach(pushed, bill) == digest
    assert list(reopen().attached(pushed, CYCLONEDX)) == [Referrer(digest=digest, document=bill)]
    assert list(reopen().attached(pushed, IN_TOTO)) == []


def test_an_image_that_was_not_pushed_gets_no_document(
    reopen: Callable[[], Images], made: tuple[Release, Path]
) -> None:
    images = reopen()
    image = images.build(*made, base=None)
    bill = Document(artifact_type=CYCLONEDX, media_type=CYCLONEDX, data=b"{}")
    with pytest.raises(NotFoundError):
        images.attach(reference(f"{image.name}@{image.digest}"), bill)


def test_what_is_installed_is_told_for_each_platform(
    reopen: Callable[[], Images], made: tuple[Release, Path]
) -> None:
    images = reopen()
    image = images.build(*made, base=None)
    installed = images.inventory(image)
    assert installed.keys() == {each.platform for each in image.platforms}
    assert all(inventory.distributions for inventory in installed.values())
    images.push(image)
    assert reopen().inventory(image) == installed
