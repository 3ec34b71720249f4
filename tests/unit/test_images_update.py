"""images update: what it writes into mlship.yaml, and what it leaves as it is."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
import yaml

from mlship.adapters.images.registry.bases import RegistryBases
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.config.yaml_edit import with_value
from mlship.domain import bases, digests
from mlship.domain.bases import BaseImage, BaseUpdate
from mlship.domain.digests import Digest
from mlship.domain.image import Platform, Reference, reference
from mlship.errors import ConfigError, RefusedError
from mlship.steps.containerize import containerize
from mlship.steps.images_update import update_base
from mlship.steps.train import train
from tests.fakes.ports import World, world
from tests.fakes.registry import FakeRegistry
from tests.harness.images import BASE, base_image, base_index

ONE, TWO = (digests.of_bytes(name) for name in (b"one", b"two"))
PATH = ("image", "base")
TEXT = """\
# The project.
name: iris   # a flower
image:
  repository: localhost:5000/iris
  base: python:3.11-slim  # as the laptops have it
  max_mb: 500
"""


class FakeBases:
    """Knows one image by its tag and every digest that it ever had."""

    def __init__(self, digest: Digest = ONE) -> None:
        self.digest = digest
        self.gone: set[Digest] = set()

    def describe(
        self, image: Reference, platforms: Sequence[Platform]
    ) -> Mapping[Platform, BaseImage]:
        if image.digest in self.gone:
            raise ConfigError(f"base image {image} does not exist", hint="correct image.base")
        digest = image.digest or self.digest
        return {
            each: BaseImage(digest=digest, platform=each, python="3.11.9") for each in platforms
        }


class FakeFile:
    """mlship.yaml in a folder and in a commit."""

    def __init__(self, text: str = TEXT) -> None:
        self.text = self.head = text
        self.index: list[str] = []
        self.messages: list[str] = []
        self.writes = 0

    def read(self) -> str:
        return self.text

    def write(self, text: str) -> None:
        self.text, self.writes = text, self.writes + 1

    def committed(self) -> str:
        return self.head

    def staged(self) -> Sequence[str]:
        return self.index

    def commit(self, message: str) -> str:
        self.head = self.text
        self.messages.append(message)
        return "c" * 40


def updated(here: World, file: FakeFile, of: FakeBases, *, commit: bool = False) -> BaseUpdate:
    """Run the step with the base that the file has now."""
    base = yaml.safe_load(file.text)["image"]["base"]
    image = msgspec.structs.replace(here.pipeline.config.image, base=base)
    config = msgspec.structs.replace(here.pipeline.config, image=image)
    pipeline = dataclasses.replace(here.pipeline, config=config)
    return update_base(pipeline, file, of, commit=commit)


def test_a_pin_is_written_after_the_tag_and_nothing_else_changes(tmp_path: Path) -> None:
    here, file = world(tmp_path), FakeFile()
    update = updated(here, file, FakeBases())
    assert update.changed
    assert (update.before, update.after) == (None, ONE)
    assert file.text == TEXT.replace("python:3.11-slim ", f"python:3.11-slim@{ONE} ")
    assert not file.messages


def test_a_second_update_changes_nothing_until_the_tag_moves(tmp_path: Path) -> None:
    here, file, of = world(tmp_path), FakeFile(), FakeBases()
    updated(here, file, of)
    again = updated(here, file, of)
    assert (again.changed, file.writes) == (False, 1)
    of.digest = TWO
    moved = updated(here, file, of)
    assert (moved.before, moved.after, file.writes) == (ONE, TWO, 2)
    assert [image.digest for image in (*moved.was, *moved.now)] == [ONE, TWO]
    assert file.text == TEXT.replace("python:3.11-slim ", f"python:3.11-slim@{TWO} ")


def test_a_former_image_that_its_registry_removed_is_no_obstacle(tmp_path: Path) -> None:
    here, file, of = world(tmp_path), FakeFile(), FakeBases()
    updated(here, file, of)
    of.digest, of.gone = TWO, {ONE}
    update = updated(here, file, of)
    assert (update.before, update.after, update.was) == (ONE, TWO, ())


def test_a_commit_has_the_change_alone_and_says_what_it_was(tmp_path: Path) -> None:
    here, file, of = world(tmp_path), FakeFile(), FakeBases()
    update = updated(here, file, of, commit=True)
    assert update.commit == "c" * 40
    subject, blank, *body = file.messages[0].splitlines()
    assert subject.startswith("Pin the base image python:3.11-slim to ")
    assert not blank
    assert any(ONE in line for line in body)
    assert not updated(here, file, of, commit=True).commit
    assert len(file.messages) == 1


def test_a_crash_before_the_commit_is_made_up_for(tmp_path: Path) -> None:
    here, file, of = world(tmp_path), FakeFile(), FakeBases()
    updated(here, file, of)  # as if it had been killed before its commit
    assert updated(here, file, of, commit=True).commit
    assert (file.writes, file.head) == (1, file.text)


def test_other_changes_are_not_mixed_into_the_commit(tmp_path: Path) -> None:
    here, file, of = world(tmp_path), FakeFile(), FakeBases()
    file.index = ["train.py"]
    with pytest.raises(RefusedError, match=r"staged: train\.py"):
        updated(here, file, of, commit=True)
    file.index, file.text = [], TEXT.replace("500", "600")
    with pytest.raises(RefusedError, match="uncommitted changes"):
        updated(here, file, of, commit=True)
    assert not file.messages
    assert not file.writes


def test_a_base_that_an_option_sets_is_not_written(tmp_path: Path) -> None:
    here = world(tmp_path)
    pipeline = dataclasses.replace(here.pipeline, overridden=("image.base",))
    with pytest.raises(ConfigError, match=r"not from mlship\.yaml"):
        update_base(pipeline, FakeFile(), FakeBases())


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("python:3.11-slim", "python:3.11-slim"),
        (f"python:3.11-slim@{ONE}", "python:3.11-slim"),
        ("localhost:5000/python", "localhost:5000/python:latest"),
        (f"localhost:5000/a/b:1@{ONE}", "localhost:5000/a/b:1"),
    ],
)
def test_the_tag_stays_in_the_name(base: str, expected: str) -> None:
    assert bases.tagged(base) == expected


def test_a_digest_without_a_tag_has_nothing_to_be_updated_from() -> None:
    with pytest.raises(ConfigError, match="has no tag"):
        bases.tagged(f"python@{ONE}")


PIN = f"python:3.11-slim@{ONE}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: iris\n", f"name: iris\nimage:\n  base: {PIN}\n"),
        ("name: iris", f"name: iris\nimage:\n  base: {PIN}\n"),
        ("name: iris\r\n", f"name: iris\r\nimage:\r\n  base: {PIN}\r\n"),
        (
            "image:\n    # where\n    repository: a/b\n",
            f"image:\n    # where\n    base: {PIN}\n    repository: a/b\n",
        ),
        ("image: {repository: a/b}\n", f"image: {{base: {PIN}, repository: a/b}}\n"),
        ("image: {}\n", f"image: {{base: {PIN}}}\n"),
        ("image: {base: x}  # c\n", f"image: {{base: {PIN}}}  # c\n"),
        ('image:\n  base: "x:1" # c\n', f'image:\n  base: "{PIN}" # c\n'),
        ("image:\n  base: 'x:1'\nname: é\n", f"image:\n  base: '{PIN}'\nname: é\n"),
        ("\ufeffimage:\n  base: x\n", f"\ufeffimage:\n  base: {PIN}\n"),
        (f"image:\n  base: {PIN}\n", f"image:\n  base: {PIN}\n"),
    ],
)
def test_layout_and_comments_stay(text: str, expected: str) -> None:
    assert with_value(text, PATH, PIN) == expected


@pytest.mark.parametrize(
    "text",
    [
        "image:\n  base: &b x\n  source: *b\n",
        "a: &i {base: x}\nimage: *i\n",
        "image: text\n",
        "image:\n  base: [x]\n",
    ],
)
def test_what_cannot_be_changed_alone_is_left_to_the_user(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot change image\.base") as caught:
        with_value(text, PATH, PIN)
    assert PIN in caught.value.hint


def described(fake: FakeRegistry, *platforms: Platform) -> Mapping[Platform, BaseImage]:
    registries = Registries(ImageConfig(), {}, transport=fake.transport)
    return RegistryBases(registries).describe(reference(BASE), platforms)


def test_a_base_is_described_by_its_registry() -> None:
    fake = FakeRegistry()
    _, digest = base_image(fake, environment={"PYTHON_VERSION": "3.11.9"})
    (image,) = described(fake, "linux/amd64").values()
    assert (image.digest, image.python) == (digest, "3.11.9")
    assert image.size > 0


def test_one_digest_pins_all_platforms() -> None:
    fake = FakeRegistry()
    base_index(fake)
    images = described(fake, "linux/amd64", "linux/arm64")
    assert len({image.digest for image in images.values()}) == 1
    assert next(iter(images.values())).digest in fake.manifests["library/python"]


def test_an_image_on_a_tag_that_can_move_is_told_with_the_next_step(tmp_path: Path) -> None:
    here = world(tmp_path)
    release = train(here.pipeline).evidence.release
    containerize(here.pipeline, release)
    (note,) = [note for note in here.progress.notes if "images update" in note]
    assert note.startswith("image.base python:3.11-slim is a tag")


def test_a_pinned_base_is_not_told(tmp_path: Path) -> None:
    here = world(tmp_path)
    release = train(here.pipeline).evidence.release
    config = msgspec.structs.replace(
        here.pipeline.config, image=ImageConfig(base=f"python:3.11-slim@{ONE}")
    )
    containerize(dataclasses.replace(here.pipeline, config=config), release)
    assert not [note for note in here.progress.notes if "images update" in note]
