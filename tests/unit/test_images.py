"""Images without an engine: the same bytes each time, nothing sent twice, faults named."""

import ast
import io
import json
import os
import re
import zipfile
from pathlib import Path

import msgspec
import pytest

import mlship
from mlship.adapters.images.build import contents, layers, router, wheels
from mlship.adapters.images.build.contents import Lock, lock
from mlship.adapters.images.build.layout import Layout
from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.bundle import Bundle
from mlship.domain.image import Image, PlatformImage, Reference, Role, reference
from mlship.errors import ConfigError, IntegrityError, ProjectError, UnavailableError
from tests.fakes.registry import FakeRegistry, digest_of
from tests.harness.images import (
    LAYER,
    SMALL_LIBRARY,
    Project,
    Wheels,
    base_image,
    base_index,
    unpacked,
    wheel,
)

NAMES = [
    ("localhost:5000/iris:1", "localhost:5000", "iris", "1"),
    ("python:3.11-slim", "docker.io", "library/python", "3.11-slim"),
    ("ada/iris", "docker.io", "ada/iris", None),
    ("ghcr.io/ada/iris/model:v1.0_x", "ghcr.io", "ada/iris/model", "v1.0_x"),
    ("localhost/iris", "localhost", "iris", None),
    ("[::1]:5000/iris", "[::1]:5000", "iris", None),
]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wheels, "library", SMALL_LIBRARY)


@pytest.fixture
def fake() -> FakeRegistry:
    found = FakeRegistry()
    base_image(found)
    return found


@pytest.fixture
def project(tmp_path: Path, fake: FakeRegistry) -> Project:
    return Project(tmp_path, fake)


def built(project: Project) -> Image:
    return project.images.build(project.release, project.bundle, base=None)


def blob(project: Project, image: Image, role: Role) -> bytes:
    layer = next(one for one in image.platforms[0].layers if one.role == role)
    return Layout(project.folder / "images").path(layer.digest).read_bytes()


def config_of(project: Project, one: PlatformImage) -> dict[str, object]:
    data = Layout(project.folder / "images").read(one.config)
    found = json.loads(data)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(("text", "registry", "repository", "tag"), NAMES)
def test_a_reference_is_read_and_written(
    text: str, registry: str, repository: str, tag: str | None
) -> None:
    found = reference(text)
    assert found == Reference(registry=registry, repository=repository, tag=tag)
    assert reference(str(found)) == found
    at = f"{text}@{digest_of(b'x')}"
    assert reference(str(reference(at))) == reference(at)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Iris", "localhost:5000/", "iris:", "iris@sha256:12", "a b", "-x/iris:1", "iris:a/b"),
        *("localhost:65536/iris", "localhost:0/iris", "[::1]:99999/iris"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid image reference"):
        reference(text)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_layer_depends_on_names_and_bytes_alone(tmp_path: Path, *, compressed: bool) -> None:
    made = []
    for number, mode in enumerate((0o600, 0o664)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "x"
        path.write_bytes(b"text" * 40_000)
        path.chmod(mode)
        os.utime(path, (number * 1000, number * 1000))
        members = [layers.of_file("a/b/x", path), layers.of_bytes("a/y", b"1")]
        if number:
            members.reverse()
        made.append(layers.write(members, folder, compressed=compressed))
    assert made[0] == made[1]
    data = (tmp_path / "0" / made[0].digest.removeprefix("sha256:")).read_bytes()
    assert (digest_of(data), len(data)) == (made[0].digest, made[0].size)
    infos, files, inside = unpacked(data)
    assert inside == made[0].diff_id
    assert files == {"a/b/x": b"text" * 40_000, "a/y": b"1"}
    assert list(infos) == ["a", "a/b", "a/b/x", "a/y"]
    assert {(one.mtime, one.uid, one.gid, one.uname) for one in infos.values()} == {(0, 0, 0, "")}
    assert {infos[name].mode for name in files} == {0o644}
    assert infos["a"].mode == 0o755


def test_a_stored_layer_is_the_same_however_it_is_handed_over(tmp_path: Path) -> None:
    # Written down once: another zlib, Python or machine must come to the same.
    blob = layers.write([layers.of_bytes("x", b"0123456789" * 9000)], tmp_path, compressed=False)
    assert blob.digest == "sha256:da61cfde955e71586e8b9240bde4de588ac2cfc2773b33feb237f015ffe2ece8"


def test_a_full_disk_leaves_no_half_layer(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(28, "No space left on device")

    member = layers.Member(name="x", size=10, open=Full)
    with pytest.raises(OSError, match="No space left"):
        layers.write([member], tmp_path, compressed=True)
    assert list(tmp_path.iterdir()) == []


def test_the_same_release_gives_the_same_image_in_another_folder(
    tmp_path: Path, fake: FakeRegistry
) -> None:
    one, two = (Project(tmp_path / name, fake, repository=None) for name in ("one", "two two"))
    (tmp_path / "two two" / "bundle" / bundles.MANIFEST).chmod(0o600)
    assert built(one) == built(two)


def test_an_image_is_base_dependencies_runtime_and_bundle(project: Project) -> None:
    image = built(project)
    (one,) = image.platforms
    assert [layer.role for layer in one.layers] == ["base", "dependencies", "runtime", "bundle"]
    names = set(unpacked(blob(project, image, "bundle"))[1])
    manifest = bundles.read(project.bundle)
    assert names == {f"bundle/{name}" for name in (*manifest.files, bundles.MANIFEST)}
    installed = unpacked(blob(project, image, "dependencies"))[1]
    where = "opt/mlship/dependencies"
    assert f"{where}/uvloop/__init__.py" in installed
    assert f"{where}/uvloop-1.0.dist-info/METADATA" in installed
    assert not [name for name in installed if name.endswith((".pyc", "RECORD", "direct_url.json"))]
    config = config_of(project, one)
    diffs = [layer.diff_id for layer in one.layers]
    assert config["rootfs"] == {"type": "layers", "diff_ids": diffs}
    assert one.layers[3].diff_id == unpacked(blob(project, image, "bundle"))[2]


def test_an_image_runs_as_nobody_without_a_shell_and_says_what_it_is(project: Project) -> None:
    (one,) = built(project).platforms
    config = config_of(project, one)
    run = config["config"]
    assert isinstance(run, dict)
    assert run["User"] == "65532:65532"
    assert run["Entrypoint"][:4] == ["python3", "-P", "-m", "mlship.runtime"]
    assert project.release.id in run["Entrypoint"]
    assert run["StopSignal"] == "SIGTERM"
    assert "LANG=C.UTF-8" in run["Env"], "the base's environment stays"
    waiting = {"OMP_WAIT_POLICY=PASSIVE", "GOMP_SPINCOUNT=400", "OPENBLAS_THREAD_TIMEOUT=16"}
    assert waiting <= set(run["Env"]), "no thread spins under a limit of the processor"
    assert "Cmd" not in run
    labels = run["Labels"]
    assert labels["org.opencontainers.image.revision"] == project.release.commit
    assert labels["org.opencontainers.image.version"] == str(project.release)
    assert labels["org.opencontainers.image.base.name"] == "localhost:5000/library/python:3.11-slim"
    manifest = json.loads(Layout(project.folder / "images").read(one.manifest))
    assert manifest["annotations"] == labels
    assert config["created"] == "1970-01-01T00:00:00Z"


def test_nothing_beside_the_manifest_enters_an_image(project: Project) -> None:
    (project.bundle / "gha-creds-1.json").write_text("secret")
    with pytest.raises(IntegrityError, match=r"gha-creds-1\.json is not listed in the manifest"):
        built(project)


def test_a_first_push_sends_all_but_the_base_and_a_second_nothing(
    project: Project, fake: FakeRegistry
) -> None:
    image = built(project)
    pushed = project.images.push(image)
    assert pushed.mounted == 1
    assert pushed.reference == f"localhost:5000/iris@{image.digest}"
    assert fake.manifests["iris"][image.tag] == fake.manifests["iris"][image.digest]
    assert fake.log[-2] == f"PUT /v2/iris/manifests/{image.tag}", "the tag comes last"
    again = project.images.push(image)
    assert (again.sent, again.digest) == (0, image.digest)


def test_another_model_neither_fetches_nor_sends_dependencies(
    tmp_path: Path, fake: FakeRegistry
) -> None:
    first = Project(tmp_path / "first", fake)
    first.images.push(built(first))
    cold = Project(tmp_path / "cold", fake)
    release, folder = cold.another("another model")
    image = cold.images.build(release, folder, base=None)
    reused = {layer.role: layer.reused for layer in image.platforms[0].layers}
    assert reused == {"base": True, "dependencies": True, "runtime": False, "bundle": False}
    assert cold.wheels.fetched == []
    before = dict(fake.blobs["iris"])
    pushed = cold.images.push(image)
    new = {digest: data for digest, data in fake.blobs["iris"].items() if digest not in before}
    assert len(new) == 2, "the bundle's layer and the configuration"
    assert pushed.sent < 50_000


def test_other_requirements_make_another_layer_of_dependencies(project: Project) -> None:
    manifest = bundles.read(project.bundle)
    other = msgspec.structs.replace(manifest, requirements=("numpy==2.4.6",))
    locks = [lock(one, "linux/amd64") for one in (manifest, other)]
    assert locks[0].digest != locks[1].digest
    assert "numpy==2.4.6" in locks[1].pins
    assert lock(manifest, "linux/arm64").digest != locks[0].digest


@pytest.mark.parametrize("pin", ["mlship==0.1.0", "mlship-cd==0.1.0", "MLship_CD==0.1.0"])
def test_no_image_gets_mlship_from_an_index(pin: str) -> None:
    pins = lock(bundles_draft((pin, "numpy==2.4.0")), "linux/amd64").pins
    assert "numpy==2.4.0" in pins
    assert not any("mlship" in pin for pin in pins)


def test_a_bundles_own_pin_wins_and_names_are_compared_as_pip_does() -> None:
    base = bundles_draft(("Prometheus_Client==0.21.0", "click==8.1.0"))
    pins = lock(base, "linux/amd64").pins
    assert [pin for pin in pins if pin.startswith(("click", "prom"))] == [
        "click==8.1.0",
        "prometheus-client==0.21.0",
    ]


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "x @ file:///home/ada/x", "not a pin"])
def test_what_is_not_pinned_is_refused_by_name(line: str) -> None:
    with pytest.raises(ProjectError, match=re.escape(line)):
        lock(bundles_draft((line,)), "linux/amd64")


def test_two_platforms_make_an_index(tmp_path: Path, fake: FakeRegistry) -> None:
    base_index(fake)
    project = Project(tmp_path, fake, platforms=("linux/amd64", "linux/arm64"))
    image = built(project)
    index = json.loads(Layout(tmp_path / "images").read(image.digest))
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    assert [one.platform for one in project.wheels.fetched] == ["linux/amd64", "linux/arm64"]
    assert config_of(project, image.platforms[1])["architecture"] == "arm64"
    project.images.push(image)
    kept = fake.manifests["iris"]
    assert {image.tag, image.digest, *(one.manifest for one in image.platforms)} <= set(kept)


def test_a_base_of_another_machine_is_refused_naming_both(
    tmp_path: Path, fake: FakeRegistry
) -> None:
    project = Project(tmp_path, fake, platforms=("linux/arm64",))
    with pytest.raises(ConfigError, match=r"3\.11-slim is for linux/amd64, not for linux/arm64"):
        built(project)
    base_index(fake)
    built(project)


def test_a_base_with_another_python_is_refused(tmp_path: Path, fake: FakeRegistry) -> None:
    base_image(fake, environment={"PYTHON_VERSION": "3.12.1"})
    with pytest.raises(ConfigError, match=r"has Python 3\.12.*trained with Python 3\.11"):
        built(Project(tmp_path, fake))


def test_a_base_that_does_not_exist_is_refused(tmp_path: Path, fake: FakeRegistry) -> None:
    with pytest.raises(ConfigError, match="base image localhost:5000/nothing:1 does not exist"):
        built(Project(tmp_path, fake, base="localhost:5000/nothing:1"))


def test_a_build_on_a_digest_stays_when_the_tag_moves(project: Project, fake: FakeRegistry) -> None:
    before = built(project)
    base_image(fake, environment={"PATCHED": "1"})
    assert built(project).digest != before.digest
    again = project.images.build(project.release, project.bundle, base=before.base.digest)
    assert again == before


def test_a_repository_is_named_without_a_tag(tmp_path: Path, fake: FakeRegistry) -> None:
    with pytest.raises(ConfigError, match="has a tag or a digest") as caught:
        Project(tmp_path, fake, repository="localhost:5000/iris:latest")
    assert "set it to localhost:5000/iris;" in caught.value.hint


def test_no_credential_becomes_a_label(tmp_path: Path, fake: FakeRegistry) -> None:
    project = Project(tmp_path / "one", fake, source="https://ada:token@github.com/ada/iris")
    with pytest.raises(ConfigError, match=r"image\.source contains a user") as caught:
        built(project)
    assert "token" not in str(caught.value)
    source = "https://github.com/ada/iris"
    project = Project(tmp_path / "two", fake, source=source)
    run = config_of(project, built(project).platforms[0])["config"]
    assert isinstance(run, dict)
    assert run["Labels"]["org.opencontainers.image.source"] == source


def test_a_push_needs_a_repository(tmp_path: Path, fake: FakeRegistry) -> None:
    project = Project(tmp_path, fake, repository=None)
    with pytest.raises(ConfigError, match=r"no image\.repository"):
        project.images.push(built(project))


def test_a_layer_goes_from_the_bases_registry_to_another_without_a_stop(
    tmp_path: Path, fake: FakeRegistry
) -> None:
    project = Project(tmp_path, fake, base="127.0.0.1:5000/library/python:3.11-slim")
    fake.mounts_nothing = True
    project.images.push(built(project))
    assert fake.blobs["iris"][digest_of(LAYER)] == LAYER
    assert not Layout(tmp_path / "images").has(digest_of(LAYER), len(LAYER))  # type: ignore[arg-type]


def test_what_is_saved_is_the_same_each_time_and_leaves_the_layout_whole(project: Project) -> None:
    image = built(project)
    paths = [project.folder / "out" / f"{number}.tar" for number in (1, 2)]
    for path in paths:
        project.images.save(image, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len(list(paths[0].parent.iterdir())) == 2, "nothing is left over"
    layout = Layout(project.folder / "images")
    for digest in layout.digests(image):
        assert digest_of(layout.path(digest).read_bytes()) == digest
    index = json.loads((layout.folder / "index.json").read_bytes())
    assert image.digest in [entry["digest"] for entry in index["manifests"]]
    assert json.loads((layout.folder / "oci-layout").read_bytes()) == {
        "imageLayoutVersion": "1.0.0"
    }


def test_a_damaged_layer_here_is_made_again(project: Project) -> None:
    image = built(project)
    layer = next(one for one in image.platforms[0].layers if one.role == "dependencies")
    path = Layout(project.folder / "images").path(layer.digest)
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"x" + whole[1:]):
        path.write_bytes(damaged)
        assert built(project) == image
        assert path.read_bytes() == whole


def test_a_disk_that_cannot_be_written_is_named(project: Project) -> None:
    (project.folder / "images").write_text("a file in the way")
    with pytest.raises(UnavailableError, match=r"cannot write the image of .*images"):
        built(project)


def test_wheels_are_unpacked_as_installed_without_what_serving_never_reads(tmp_path: Path) -> None:
    files = {
        "numpy/__init__.py": b"1",
        "numpy/linalg/tests/test_x.py": b"2",
        "numpy/tests.py": b"3",
        "numpy-1.0.data/purelib/numpy/more.py": b"4",
        "numpy-1.0.data/scripts/f2py": b"5",
    }
    with wheels.members([wheel(tmp_path, "numpy", files)]) as members:
        names = {one.name.removeprefix("opt/mlship/dependencies/") for one in members}
    assert names == {
        "numpy/__init__.py",
        "numpy/tests.py",
        "numpy/more.py",
        "numpy-1.0.dist-info/METADATA",
        "numpy-1.0.dist-info/WHEEL",
    }


@pytest.mark.parametrize("name", ["../x.py", "/etc/x.py", "a/../../x.py"])
def test_a_wheel_that_reaches_out_of_itself_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(IntegrityError, match="unsafe path"), wheels.members([path]):
        pass


def test_the_runtimes_layer_is_all_of_mlship_that_it_imports() -> None:
    """What `mlship.runtime` imports, and what that imports, is in the layer; no more is."""
    package = Path(mlship.__file__).parent
    files = {name.removeprefix("opt/mlship/runtime/mlship/") for name in contents.runtime()}
    wanted = {"__init__.py"}
    for name in [name for name in files if name.endswith(".py")]:
        for node in ast.walk(ast.parse((package / name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlship"):
                path = (node.module or "").replace(".", "/").removeprefix("mlship").strip("/")
                found = [f"{path}.py"] if path else [f"{alias.name}.py" for alias in node.names]
                wanted |= {one for one in found if (package / one).is_file()}
    own = {name for name in files if "/" not in name}
    assert own == {name for name in wanted if "/" not in name}
    assert {name for name in files if name.startswith("runtime/")} >= {"runtime/page.html"}
    assert not [name for name in files if "__pycache__" in name]


def test_the_runtimes_own_pins_are_those_that_the_tests_run_with() -> None:
    root = Path(mlship.__file__).parents[1]
    canonical = (root / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    pins = (Path(contents.__file__).parent / "serving.txt").read_text().splitlines()
    assert {pin for pin in pins if not pin.startswith("#")} <= set(canonical)


def bundles_draft(requirements: tuple[str, ...]) -> Bundle:
    column = bundles.Field(name="x", kind="number")
    return Bundle(
        name="iris",
        task="regression",
        target="y",
        schema=bundles.Schema(inputs=(column,), outputs=(column,)),
        model=bundles.Model(format="onnx", path="m", layout="matrix", columns=(column,)),
        hooks=bundles.Hooks(),
        metrics={},
        requirements=requirements,
        python="3.11",
    )


def test_a_locks_digest_names_all_that_is_in_the_layer() -> None:
    one = Lock(pins=("a==1",), platform="linux/amd64", python="3.11")
    others = [
        msgspec.structs.replace(one, pins=("a==2",)),
        msgspec.structs.replace(one, platform="linux/arm64"),
        msgspec.structs.replace(one, python="3.12"),
        msgspec.structs.replace(one, format=0),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5


def router_of(project: Project) -> Image:
    base = built(project).base.digest
    assert base is not None
    return project.images.router(base=base)


def test_the_routers_image_is_envoy_on_the_base_and_the_same_on_every_machine(
    tmp_path: Path, fake: FakeRegistry
) -> None:
    first, second = (Project(tmp_path / name, fake) for name in ("one", "two"))
    image = router_of(first)
    assert [layer.role for layer in image.platforms[0].layers] == ["base", "dependencies"]
    assert first.wheels.fetched[-1].pins == (router.ENVOY,)
    process = config_of(first, image.platforms[0])["config"]
    assert isinstance(process, dict)
    assert process["Entrypoint"] == [router.PROGRAM]
    assert process["User"] == "65532:65532"
    assert router_of(second).digest == image.digest
    assert image.tag == f"router-{digests.short(image.digest)}"


def test_the_routers_image_is_pushed_beside_the_models(
    project: Project, fake: FakeRegistry
) -> None:
    image = router_of(project)
    assert project.images.push(image).reference == f"localhost:5000/iris@{image.digest}"
    assert image.tag in fake.manifests["iris"]
    assert project.images.push(image).sent == 0


def test_a_router_of_two_platforms_is_an_index(tmp_path: Path, fake: FakeRegistry) -> None:
    base_index(fake)
    project = Project(tmp_path, fake, platforms=("linux/amd64", "linux/arm64"))
    image = router_of(project)
    index = json.loads(Layout(tmp_path / "images").read(image.digest))
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]


def test_the_routers_envoy_is_the_one_that_tests_run() -> None:
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    assert router.ENVOY in constraints
