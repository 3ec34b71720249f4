"""What only a store in a container registry can suffer, and what it sends to a registry."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlship.adapters.artifacts.overlay import LocalArtifacts
from mlship.adapters.stores import registry_facts
from mlship.adapters.stores.registry import RegistryStore
from mlship.adapters.stores.registry_facts import AliasFact, File, RunFact
from mlship.domain import bundle, digests
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError
from tests.fakes.registry import FakeRegistry
from tests.fakes.store import tiny_bundle, tiny_release
from tests.harness.artifacts import Place

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Machines:
    """A store in a fake registry, and the machines that share it."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeRegistry()
        self.place = Place(self.fake, "iris")
        self._folder = folder

    def store(self, machine: str = "ada") -> RegistryStore:
        return RegistryStore(self.place.artifacts(self._folder / machine), "iris")

    def add(self, fact: registry_facts.Fact, *files: Path) -> None:
        attached = {digests.of_file(path): path for path in files}
        artifacts = self.place.artifacts(self._folder / "stranger")
        artifacts.add("fact", digests.canonical_json(fact), attached)

    @property
    def blobs(self) -> dict[str, bytes]:
        return self.fake.blobs[self.place.repository]

    @property
    def facts(self) -> list[str]:
        return [tag for tag in self.fake.manifests[self.place.repository] if ".fact." in tag]


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Release, Path]:
    folder = tmp_path / "made"
    return tiny_release(tiny_bundle(folder)), folder


def test_what_is_recorded_twice_is_sent_once(
    machines: Machines, made: tuple[Release, Path]
) -> None:
    run = Run(release=made[0], params={"C": "1"}, metrics={"mae": 0.5}, bundle=made[1])
    machines.store().record(run)
    machines.fake.log.clear()
    machines.store("bob").record(run)
    assert {line.split()[0] for line in machines.fake.log} == {"GET"}
    assert len(machines.facts) == 1


def test_files_that_are_there_are_not_sent_again(
    machines: Machines, made: tuple[Release, Path], tmp_path: Path
) -> None:
    machines.store().record(Run(release=made[0], bundle=made[1]))
    other = tmp_path / "other"
    release = tiny_release(tiny_bundle(other, "another model"))
    before = set(machines.blobs)
    machines.store().record(Run(release=release, bundle=other))
    # The model, the manifest, and the fact: the code and the examples are the same.
    assert len(set(machines.blobs) - before) == 3
    assert machines.store("bob").fetch(release, tmp_path / "fetched").is_dir()


def test_a_bundle_that_was_lost_in_part_is_named(
    machines: Machines, made: tuple[Release, Path], tmp_path: Path
) -> None:
    release, folder = made
    machines.store().record(Run(release=release, bundle=folder))
    del machines.blobs[digests.of_file(folder / "model" / "model.onnx")]
    with pytest.raises(NotFoundError, match=r"lost model\.onnx"):
        machines.store().fetch(release, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("content", [b"evil!", b"much longer than the model that was recorded"])
def test_another_model_is_never_taken_for_the_recorded_one(
    machines: Machines, made: tuple[Release, Path], tmp_path: Path, content: bytes
) -> None:
    release, folder = made
    machines.store().record(Run(release=release, bundle=folder))
    machines.blobs[digests.of_file(folder / "model" / "model.onnx")] = content
    with pytest.raises(IntegrityError, match="does not match"):
        machines.store().fetch(release, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_bundle_writes_nothing_outside_of_its_folder(
    machines: Machines, made: tuple[Release, Path], tmp_path: Path
) -> None:
    _, folder = made
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["files"]["../evil.txt"] = manifest["files"]["code/pipeline.py"]
    (folder / bundle.MANIFEST).write_bytes(digests.canonical_json(manifest))
    release = tiny_release(digests.of_file(folder / bundle.MANIFEST))
    files = [path for path in folder.rglob("*") if path.is_file()]
    machines.add(RunFact(turn=1, time=NOON, release=release, has_bundle=True), *files)
    with pytest.raises(IntegrityError, match=r"\.\./evil\.txt is outside the bundle"):
        machines.store().fetch(release, tmp_path / "deep" / "fetched")
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_file_of_a_run_writes_nothing_outside_of_its_folder(
    machines: Machines, made: tuple[Release, Path], tmp_path: Path
) -> None:
    source = made[1] / "code" / "pipeline.py"
    file = File(digest=digests.of_file(source), size=source.stat().st_size)
    fact = RunFact(turn=1, time=NOON, release=made[0], files={"../evil.txt": file})
    machines.add(fact, source)
    with pytest.raises(NotFoundError, match=r"evil\.txt"):
        machines.store().fetch(made[0], tmp_path / "deep" / "fetched", files=["../evil.txt"])
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize("data", [b'{"fact":"sunset"}', b'{"fact":"\xff"}'])
def test_a_fact_of_a_newer_version_says_so(machines: Machines, tmp_path: Path, data: bytes) -> None:
    machines.place.artifacts(tmp_path / "newer").add("fact", data)
    with pytest.raises(IntegrityError, match="not a fact that this version knows") as caught:
        machines.store().versions()
    assert "update mlship" in caught.value.hint


def test_an_alias_that_another_process_moves_at_once_is_a_conflict(
    machines: Machines, made: tuple[Release, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    releases = [made[0], tiny_release(tiny_bundle(other, "other"))]
    for release, folder in zip(releases, (made[1], other), strict=True):
        machines.store().record(Run(release=release, bundle=folder))
    turn = 3
    # Both processes have read two facts; the other one's is added later, and has a later digest.
    rivals = [
        AliasFact(turn=turn, time=NOON, alias="champion", release=releases[1].id, number=number)
        for number in range(1, 40)
    ]
    store = machines.store()
    add = store._add

    def at_once(fact: registry_facts.Fact, paths: dict[Digest, Path] | None = None) -> None:
        add(fact, paths)
        own = digests.of_value(fact)
        machines.add(next(rival for rival in rivals if digests.of_value(rival) > own))

    monkeypatch.setattr(store, "_add", at_once)
    with pytest.raises(ConflictError, match="alias champion"):
        store.point("champion", releases[0])
    versions = machines.store("bob").versions()
    assert [version.aliases for version in versions if version.release == releases[1].id] == [
        ("champion",)
    ]
    assert len({version.number for version in versions}) == 2


def test_two_jobs_that_record_at_once_lose_nothing(
    machines: Machines, made: tuple[Release, Path]
) -> None:
    one = RunFact(turn=1, time=NOON, release=made[0], metrics={"mae": 0.5}, tags={"a": "1"})
    two = RunFact(turn=1, time=NOON, release=made[0], metrics={"rmse": 0.7}, tags={"b": "2"})
    for fact in (one, two):
        machines.add(fact)
    facts = {digests.of_value(fact): fact for fact in (one, two)}
    run = registry_facts.fold(facts).runs[made[0].id]
    assert run.metrics == {"mae": 0.5, "rmse": 0.7}
    assert run.tags == {"a": "1", "b": "2"}
    assert list(machines.store().versions()) == []


def claim(name: str, turn: int, number: int) -> AliasFact:
    release = digests.of_bytes(name.encode())
    return AliasFact(turn=turn, time=NOON, alias="challenger", release=release, number=number)


def numbers(*facts: AliasFact) -> dict[str, int]:
    state = registry_facts.fold({digests.of_value(fact): fact for fact in facts})
    assert len(set(state.numbers.values())) == len(state.numbers)
    names = {digests.of_bytes(name.encode()): name for name in "abcd"}
    return {names[release]: number for release, number in state.numbers.items()}


def test_a_version_that_is_seen_late_renumbers_no_other_than_itself() -> None:
    in_order = (claim("a", 1, 1), claim("b", 2, 2), claim("c", 3, 3))
    assert numbers(*in_order) == {"a": 1, "b": 2, "c": 3}
    late = claim("d", 2, 2)
    found = numbers(*in_order, late)
    assert (found["a"], found["c"]) == (1, 3)
    assert {found["b"], found["d"]} == {2, 4}
    assert numbers(late, *reversed(in_order)) == found, "every reader agrees"


def test_what_a_job_records_for_itself_is_not_shared(
    machines: Machines, made: tuple[Release, Path], tmp_path: Path
) -> None:
    release, folder = made

    def job() -> RegistryStore:
        shared = machines.place.artifacts(tmp_path / "job")
        return RegistryStore(LocalArtifacts(shared, tmp_path / "local"), "iris", packs=False)

    other = tmp_path / "other"
    champion = tiny_release(tiny_bundle(other, "champion"))
    machines.store().record(Run(release=champion, bundle=other))
    machines.store().point("champion", champion)
    machines.fake.log.clear()
    job().record(Run(release=release, bundle=folder))
    assert job().fetch(release, tmp_path / "own").is_dir()
    assert job().fetch(champion, tmp_path / "shared").is_dir()
    assert [version.release for version in job().versions()] == [champion.id]
    assert {line.split()[0] for line in machines.fake.log} == {"GET"}
    with pytest.raises(NotFoundError):
        machines.store("bob").fetch(release, tmp_path / "not-shared")


def test_a_store_that_is_denied_says_how_to_log_in(machines: Machines) -> None:
    machines.fake.password = "secret"
    with pytest.raises(UnavailableError, match="denied") as caught:
        machines.store().versions()
    assert "docker login localhost:5000" in caught.value.hint
