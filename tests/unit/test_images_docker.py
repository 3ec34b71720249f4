"""Images that Docker builds: the Dockerfile, what is taken out of the engine, and faults named."""

import gzip
import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.images.build import contents, dockerfile, entry_point, exports
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.engine import builds
from mlship.domain import digests
from mlship.domain.image import Image, reference
from mlship.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    ProjectError,
    UnavailableError,
)
from tests.fakes.docker import FakeBuild, pairs, saved
from tests.fakes.registry import FakeRegistry
from tests.harness.images import SMALL_LIBRARY, Project, Wheels, base_image, unpacked
from tests.harness.places import Notes

EXTENSION = "system.Dockerfile"
HOSTILE = 'https://github.com/ada/"\'\\$PATH ${HOME} \\"=x #\u00e9'


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wheels, "library", SMALL_LIBRARY)


@pytest.fixture
def fake() -> FakeRegistry:
    found = FakeRegistry()
    base_image(found)
    return found


@pytest.fixture
def build() -> FakeBuild:
    return FakeBuild()


@pytest.fixture
def project(tmp_path: Path, fake: FakeRegistry, build: FakeBuild) -> Project:
    return extended(tmp_path, fake, build, "RUN apt-get update\n")


def extended(folder: Path, fake: FakeRegistry, build: FakeBuild, text: str) -> Project:
    (folder / EXTENSION).write_text(text)
    return Project(folder, fake, build, extend=EXTENSION)


def built(project: Project) -> Image:
    return project.images.build(project.release, project.bundle, base=None)


def layout(project: Project) -> Layout:
    return Layout(project.folder / ".mlship" / "images")


def text_of(project: Project, build: FakeBuild) -> str:
    built(project)
    return build.contexts[-1]["Dockerfile"].decode()


def test_the_dockerfile_is_left_where_it_was_built_from(project: Project, build: FakeBuild) -> None:
    text = text_of(project, build)
    folder = project.folder / ".mlship/docker" / digests.short(project.release.id)
    assert (folder / "Dockerfile").read_text() == text
    words = [line.partition(" ")[0] for line in text.splitlines() if line and line[0] != "#"]
    own = ["ENV", "EXPOSE", "STOPSIGNAL", "USER", "WORKDIR", "CMD", "ADD", "ADD", "ADD"]
    own += ["ENV", "LABEL", "ENTRYPOINT"]
    assert words == ["FROM", "RUN", *own]
    assert len(own) == dockerfile.OWN_STEPS
    base = project.registries.base(reference(project.config.base), ["linux/amd64"])["linux/amd64"]
    assert f"\nFROM localhost:5000/library/python@{base.reference.digest}\n" in text


def test_the_engine_gets_the_dockerfile_and_three_archives_alone(
    project: Project, build: FakeBuild
) -> None:
    left_out = b"a file that stays out of images"
    for name in (".git", ".env", ".dockerignore", "gha-creds-1.json"):
        (project.folder / name).write_bytes(left_out)
    built(project)
    (context,) = build.contexts
    archives = {dockerfile.archive(role) for role in dockerfile.ARCHIVES}
    assert set(context) == {"Dockerfile", *archives}
    for archive in archives:
        _, files, _ = unpacked(context[archive])
        assert not [name for name, data in files.items() if left_out in data]
    assert left_out not in context["Dockerfile"]
    installed = unpacked(context["dependencies.tar.gz"])[1]
    assert f"{contents.DEPENDENCIES}/uvloop/__init__.py" in installed


def test_an_image_is_what_the_engine_built_and_its_base_stays_in_its_registry(
    project: Project,
) -> None:
    image = built(project)
    (one,) = image.platforms
    assert image.builder == "docker"
    roles = [layer.role for layer in one.layers]
    assert roles == ["base", "system", "dependencies", "runtime", "bundle"]
    config = json.loads(layout(project).read(one.config))
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in one.layers]
    assert config["config"]["User"] == entry_point.USER
    assert config["config"]["Entrypoint"] == entry_point.entry_point(project.release)
    manifest = json.loads(layout(project).read(image.digest))
    assert manifest["annotations"] == config["config"]["Labels"]
    there = [layer.role for layer in one.layers if layout(project).has(layer.digest, layer.size)]
    assert there == roles[1:]


def test_the_same_image_is_not_built_twice_and_a_changed_one_is(
    project: Project, build: FakeBuild
) -> None:
    image = built(project)
    assert built(project) == image
    assert len(build.contexts) == 1
    (project.folder / EXTENSION).write_text("RUN apt-get upgrade\n")
    assert built(project).digest != image.digest
    assert len(build.contexts) == 2


def test_what_was_damaged_or_lost_here_is_built_again(project: Project, build: FakeBuild) -> None:
    image = built(project)
    layout(project).path(image.platforms[0].config).unlink()
    assert built(project).digest != image.digest
    assert len(build.contexts) == 2


def test_another_model_leaves_what_comes_before_it_in_dockers_cache(
    project: Project, build: FakeBuild
) -> None:
    built(project)
    release, bundle = project.another("another model")
    project.images.build(release, bundle, base=None)
    one, two = (
        [line for line in context["Dockerfile"].decode().splitlines() if line[:1] != "#"]
        for context in build.contexts
    )
    last = one.index("ADD bundle.tar.gz /")
    assert one[:last] == two[:last]
    for role in ("dependencies", "runtime"):
        name = dockerfile.archive(role)
        assert build.contexts[0][name] == build.contexts[1][name]
    assert len(project.wheels.fetched) == 1


def test_a_push_sends_what_was_built_and_a_second_nothing(
    project: Project, fake: FakeRegistry, build: FakeBuild
) -> None:
    image = built(project)
    pushed = project.images.push(image)
    assert pushed.mounted == 1
    assert fake.manifests["iris"][image.tag] == fake.manifests["iris"][image.digest]
    assert project.images.push(image).sent == 0
    assert len(build.contexts) == 1
    assert not [tag for tag in fake.manifests["iris"] if tag.startswith("deps-")]


def test_an_image_travels_as_a_file_and_is_never_built_again(
    project: Project, fake: FakeRegistry, tmp_path: Path
) -> None:
    image, file = built(project), tmp_path / "image.tar"
    (tmp_path / "other").mkdir()
    other = Project(tmp_path / "other", fake, FakeBuild())
    with pytest.raises(NotFoundError, match="built on another machine") as caught:
        other.images.push(image)
    assert "--from image.tar" in caught.value.hint
    with pytest.raises(NotFoundError, match="built on another machine"):
        other.images.save(image, tmp_path / "no.tar")
    project.images.save(image, file)
    other.images.load(image, file)
    assert other.images.push(image).digest == image.digest
    assert image.digest in fake.manifests["iris"]


def test_a_file_with_another_image_or_none_is_refused(project: Project, tmp_path: Path) -> None:
    image, file = built(project), tmp_path / "image.tar"
    release, bundle = project.another("another model")
    project.images.save(project.images.build(release, bundle, base=None), file)
    elsewhere = Project(tmp_path / "elsewhere", None, FakeBuild())
    with pytest.raises(IntegrityError, match=f"does not contain image {image.digest}"):
        elsewhere.images.load(image, file)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(IntegrityError, match="does not contain"):
        elsewhere.images.load(image, file)
    with pytest.raises(NotFoundError, match=r"file .*nothing\.tar not found"):
        elsewhere.images.load(image, tmp_path / "nothing.tar")


def test_bytes_that_were_changed_on_the_way_are_not_taken_in(
    project: Project, tmp_path: Path
) -> None:
    image, file = built(project), tmp_path / "image.tar"
    project.images.save(image, file)
    data = file.read_bytes()
    assert data.count(project.release.commit.encode()) > 1
    file.write_bytes(data.replace(project.release.commit.encode(), b"b" * 40))
    with pytest.raises(IntegrityError, match="has digest"):
        Project(tmp_path / "elsewhere", None, FakeBuild()).images.load(image, file)


def test_hostile_labels_stay_labels(tmp_path: Path, fake: FakeRegistry, build: FakeBuild) -> None:
    project = Project(tmp_path, fake, build, source=HOSTILE)
    image = built(project)
    config = json.loads(layout(project).read(image.platforms[0].config))
    assert config["config"]["Labels"]["org.opencontainers.image.source"] == HOSTILE
    base, labels = reference(f"x@{image.digest}"), {"title": "iris"}
    for text in ("x\nRUN touch /pwned", "x\r\nUSER root", "x\u2028USER root", "x\0"):
        with pytest.raises(ConfigError, match="cannot be used in a Dockerfile"):
            dockerfile.text(base, project.release, labels | {"source": text}, "")


def test_the_stand_in_reads_words_as_a_shell_does() -> None:
    text = r'a=b c="d e" "f"="\"\\g"'
    assert pairs(text) == dict(word.split("=") for word in shlex.split(text))


@pytest.mark.parametrize("name", ["nothing.Dockerfile", ".", "x\nRUN touch /pwned", "\0"])
def test_an_extension_that_cannot_be_read_is_named(
    tmp_path: Path, fake: FakeRegistry, build: FakeBuild, name: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        built(Project(tmp_path, fake, build, extend=name))
    assert f"cannot read {name!r}, which image.extend names" in caught.value.message
    assert not build.contexts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("RUN apt-get update \\\n", "ends with a backslash"),
        ("RUN apt-get update \\ \n# a comment\n\n", "ends with a backslash"),
        ("\xff", "is not a text file"),
    ],
)
def test_an_extension_cannot_swallow_what_comes_after_it(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        dockerfile.checked(text.encode("latin-1"), EXTENSION)
    assert dockerfile.checked(b"RUN a \\\r\n  b\r\n", EXTENSION) == "RUN a \\\n  b\n"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"Entrypoint": ["sh"]}, "ENTRYPOINT"),
        ({"User": "root"}, "USER"),
        ({"Env": ["PYTHONPATH=/evil"]}, "ENV"),
        ({"Labels": {}}, "LABEL"),
    ],
)
def test_an_image_that_would_start_otherwise_is_refused(
    project: Project, build: FakeBuild, changes: dict[str, object], what: str
) -> None:
    build.config = changes
    with pytest.raises(ConfigError, match=f"has a wrong {what}"):
        built(project)
    build.config = {}
    built(project)


def test_an_image_on_another_base_or_for_another_machine_is_refused(
    project: Project, build: FakeBuild
) -> None:
    build.architecture = "arm64"
    with pytest.raises(ConfigError, match="is for linux/arm64, not for linux/amd64"):
        built(project)
    build.architecture = "amd64"
    build.base = gzip.compress(b"another base")
    with pytest.raises(ConfigError, match=r"not based on image\.base") as caught:
        built(project)
    assert "FROM" in caught.value.hint


def test_a_failed_instruction_leaves_no_image(
    tmp_path: Path, fake: FakeRegistry, build: FakeBuild
) -> None:
    project = extended(tmp_path, fake, build, "RUN false\n")
    with pytest.raises(ProjectError, match="non-zero code"):
        built(project)
    assert not (layout(project).folder / "built").exists()
    assert not list(layout(project).folder.glob(".built-*"))


@pytest.mark.parametrize("compresses", [True, False])
def test_a_saved_image_is_read_from_old_and_new_engines(
    tmp_path: Path, *, compresses: bool
) -> None:
    build = FakeBuild()
    build.compresses = compresses
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    build(tmp_path, "linux/amd64", tmp_path / "image.tar")
    with exports.opened(tmp_path / "image.tar") as export, export.layer(0) as layer:
        diff_id = json.loads(export.config)["rootfs"]["diff_ids"][0]
        assert digests.of_bytes(layer.read()) == diff_id
    (tmp_path / "twice.tar").write_bytes(saved(b"{}", [b"same", b"other", b"same"]))
    with exports.opened(tmp_path / "twice.tar") as export, export.layer(2) as layer:
        assert layer.read() == b"same"


@pytest.mark.parametrize("data", [b"", b"no archive" * 100, saved(b"{}", [b"x"])[:600]])
def test_an_archive_that_is_none_is_the_engines_fault(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(data)
    with (
        pytest.raises(IntegrityError, match="the Docker engine exported an invalid image"),
        exports.opened(tmp_path / "image.tar"),
    ):
        pass


def said(*steps: str) -> list[Mapping[str, Any]]:
    count = 2 + dockerfile.OWN_STEPS
    return [
        {"stream": f"Step {number}/{count} : {step}"} for number, step in enumerate(steps, start=1)
    ]


def test_a_build_tells_its_steps_and_its_image() -> None:
    notes = Notes()
    events = [*said("FROM x", "RUN y"), {"status": "Pulling"}, {"aux": {"ID": "sha256:1"}}]
    assert builds.follow(events, notes) == "sha256:1"
    assert notes.lines == ["Step 1/14 : FROM x", "Step 2/14 : RUN y"]


def test_the_users_failed_instruction_shows_its_last_lines() -> None:
    lines: list[Mapping[str, Any]]
    lines = [{"stream": f"\x1b[91mline {number}\rline {number}b\n\x1b[0m"} for number in range(40)]
    events = [*said("FROM x", "RUN y"), *lines, {"error": "returned a non-zero code: 100"}]
    with pytest.raises(ProjectError) as caught:
        builds.follow(events, Notes())
    told = caught.value.message.splitlines()
    assert "non-zero code: 100; last lines of the build:" in told[0]
    assert told[-2:] == ["line 39", "line 39b"]
    assert len(told) == 16
    assert "image.extend" in caught.value.hint


@pytest.mark.parametrize("steps", [(), ("FROM x",), ("FROM x", "RUN y", "ENV HOME=/tmp")])
def test_what_fails_besides_is_not_the_users_fault(steps: tuple[str, ...]) -> None:
    with pytest.raises(UnavailableError, match="no space left"):
        builds.follow([*said(*steps), {"error": "no space left on device"}], Notes())


def test_a_build_that_ends_without_a_word_made_nothing() -> None:
    with pytest.raises(UnavailableError, match="without an image: Step 1/14"):
        builds.follow(said("FROM x"), Notes())


def test_an_image_survives_being_written_down(project: Project) -> None:
    image = built(project)
    assert msgspec.json.decode(msgspec.json.encode(image), type=Image) == image


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("unknown parent image ID x", 2), ("No such image: sha256:84bd", 2), ("full", 1)],
)
def test_a_build_whose_earlier_step_was_removed_meanwhile_is_built_again(
    reason: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def build(*_: object) -> list[dict[str, Any]]:
        made.append(reason)
        return [{"error": reason}] if len(made) == 1 else BUILT

    engine: Any = builds.EngineBuild({}, Notes())
    monkeypatch.setattr(engine, "_build", build)
    with suppress(UnavailableError):
        assert engine._built(None, Path("context"), "linux/amd64") == "sha256:built"
    assert len(made) == expected


BUILT: list[dict[str, Any]] = [{"aux": {"ID": "sha256:built"}}]
