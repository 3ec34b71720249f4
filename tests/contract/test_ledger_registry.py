"""What only a ledger in a container registry can suffer, and what it asks a registry for."""

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from mlship.adapters.artifacts import artifacts, collection
from mlship.adapters.artifacts.overlay import LocalArtifacts
from mlship.adapters.ledgers.registry import RegistryLedger
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, heads
from mlship.errors import IntegrityError, UnavailableError
from tests.fakes.registry import FakeRegistry
from tests.fakes.store import tiny_evidence
from tests.harness.artifacts import Place, real_place

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Machines:
    """A ledger in a fake registry, and the machines that share it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.fake = FakeRegistry()
        self.place = Place(self.fake, "iris", **environment)
        self._folder = folder

    def ledger(self, machine: str = "ada") -> RegistryLedger:
        return RegistryLedger(self.place.artifacts(self._folder / machine))

    def tag(self, digest: Digest) -> str:
        return f"mlship.iris.record.{digest.removeprefix('sha256:')}"

    @property
    def manifests(self) -> dict[str, tuple[bytes, str]]:
        return self.fake.manifests[self.place.repository]

    @property
    def blobs(self) -> dict[str, bytes]:
        return self.fake.blobs[self.place.repository]

    def delete(self, digest: Digest) -> None:
        del self.manifests[self.tag(digest)]


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


def test_a_second_look_asks_for_the_tags_alone(machines: Machines) -> None:
    for minute in range(3):
        machines.ledger().append(tiny_evidence(minute=minute))
    machines.fake.log.clear()
    assert len(machines.ledger("ada").records()) == 3
    assert machines.fake.log == [f"GET /v2/{machines.place.repository}/tags/list"]
    assert len(machines.ledger("bob").records()) == 3
    assert len(machines.fake.log) == 5, "the tags and three blobs, no manifests"


def test_tags_that_come_in_pages_are_all_read(machines: Machines) -> None:
    machines.fake.page = 2
    appended = [machines.ledger().append(tiny_evidence(minute=n)) for n in range(7)]
    assert list(machines.ledger("bob").records()) == appended


def test_many_records_are_read_in_few_requests(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "LOOSE", 5)
    ledger = machines.ledger()
    appended: list[Record] = []
    for minute in range(23):
        after = heads(appended)
        appended.append(ledger.append(tiny_evidence(minute=minute), after=after))
    machines.fake.log.clear()
    assert list(machines.ledger("bob").records()) == appended
    assert len(machines.fake.log) == 1 + 4 + 3, "the tags, four packs, three loose records"
    # A pack is no source of truth: without it, or damaged, the records are there as well.
    packs = [tag for tag in machines.manifests if tag.startswith("mlship.iris.records.")]
    machines.blobs[f"sha256:{packs[0].rpartition('.')[2]}"] += b" "
    del machines.manifests[packs[1]]
    assert list(machines.ledger("carol").records()) == appended


def test_a_removed_record_is_missed_even_at_the_end_if_a_pack_names_it(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "LOOSE", 2)
    ledger = machines.ledger()
    ledger.append(tiny_evidence(minute=0), after=())
    last = ledger.append(tiny_evidence(minute=1))
    machines.delete(last.digest)
    with pytest.raises(IntegrityError, match="were removed"):
        machines.ledger("bob").records()


def test_a_record_that_a_list_lacks_yet_is_found_by_its_tag(machines: Machines) -> None:
    first, second = (machines.ledger().append(tiny_evidence(minute=n)) for n in range(2))
    machines.fake.late = {machines.tag(first.digest)}
    assert list(machines.ledger("bob").records()) == [first, second]
    machines.fake.late = {machines.tag(second.digest)}
    assert list(machines.ledger("ada").records()) == [first, second], "who wrote it knows of it"
    assert list(machines.ledger("carol").records()) == [first]


@pytest.mark.parametrize("place", [0, 1])
def test_a_deleted_tag_before_the_end_is_tampering(machines: Machines, place: int) -> None:
    appended = [machines.ledger().append(tiny_evidence(minute=n)) for n in range(3)]
    machines.delete(appended[place].digest)
    for machine in ("ada", "bob"):
        with pytest.raises(IntegrityError, match=r"removed|missing") as caught:
            machines.ledger(machine).records()
        assert caught.value.hint
        with pytest.raises(IntegrityError):
            machines.ledger(machine).append(tiny_evidence())


def test_a_deleted_tag_at_the_end_is_missed_by_who_has_read_it(machines: Machines) -> None:
    machines.ledger().append(tiny_evidence(minute=0))
    last = machines.ledger().append(tiny_evidence(minute=1))
    machines.delete(last.digest)
    with pytest.raises(IntegrityError, match=last.digest.removeprefix("sha256:")[:12]) as caught:
        machines.ledger("ada").records()
    assert ".mlship/registry" in caught.value.hint
    assert len(machines.ledger("bob").records()) == 1


def test_a_record_whose_content_was_collected_as_garbage_is_named(machines: Machines) -> None:
    record = machines.ledger().append(tiny_evidence())
    del machines.blobs[record.digest]
    with pytest.raises(IntegrityError, match=f"{machines.tag(record.digest)} is listed"):
        machines.ledger("bob").records()


def test_other_bytes_under_a_records_digest_are_refused(machines: Machines) -> None:
    record = machines.ledger().append(tiny_evidence())
    machines.blobs[record.digest] = machines.blobs[record.digest].replace(b"ada@", b"eve@")
    with pytest.raises(IntegrityError, match="has digest"):
        machines.ledger("bob").records()


def test_a_tag_that_was_moved_changes_nothing(machines: Machines) -> None:
    one, two = (machines.ledger().append(tiny_evidence(minute=n)) for n in range(2))
    machines.manifests[machines.tag(two.digest)] = machines.manifests[machines.tag(one.digest)]
    assert list(machines.ledger("bob").records()) == [one, two]


def test_an_artifact_that_is_no_record_is_named(machines: Machines) -> None:
    machines.place.artifacts(Path("unused")).add("record", b"{}")
    shutil.rmtree("unused", ignore_errors=True)
    with pytest.raises(IntegrityError, match=r"record 44136fa355b3 in .*not a record"):
        machines.ledger("bob").records()


def test_a_foreign_tag_is_named_and_those_of_images_and_others_are_left_aside(
    machines: Machines,
) -> None:
    machines.ledger().append(tiny_evidence())
    manifest = next(iter(machines.manifests.values()))
    machines.manifests["3f9a0c12be77"] = machines.manifests["mlship.other.record.x"] = manifest
    assert len(machines.ledger("bob").records()) == 1
    machines.manifests["mlship.iris.record.3f9a"] = manifest
    with pytest.raises(IntegrityError, match=r"mlship\.iris\.record\.3f9a"):
        machines.ledger("bob").records()


def test_a_damaged_cache_is_read_again(machines: Machines, tmp_path: Path) -> None:
    appended = machines.ledger().append(tiny_evidence())
    [cached] = (tmp_path / "ada" / "record").iterdir()
    cached.write_bytes(b"{}")
    assert list(machines.ledger().records()) == [appended]


def test_a_record_that_is_larger_than_any_is_not_read_into_memory(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.ledger().append(tiny_evidence())
    monkeypatch.setattr(artifacts, "LARGEST", 100)
    with pytest.raises(IntegrityError, match="larger than"):
        machines.ledger("bob").records()


def test_no_other_server_is_asked_for_tags(machines: Machines) -> None:
    for minute in range(3):
        machines.ledger().append(tiny_evidence(minute=minute))
    machines.fake.page, machines.fake.link = 2, "https://evil.example.org"
    with pytest.raises(UnavailableError, match=r"another server .* evil\.example\.org"):
        machines.ledger("bob").records()


def test_a_list_that_goes_round_ends(machines: Machines) -> None:
    machines.ledger().append(tiny_evidence())
    tags = httpx.Response(200, json={"tags": ["a"]}, headers={"Link": '<?n=1>; rel="next"'})
    rest = machines.fake._tags
    machines.fake._tags = lambda request: tags  # type: ignore[method-assign]
    assert list(machines.ledger("bob").records()) == []
    machines.fake._tags = rest  # type: ignore[method-assign]
    assert len(machines.ledger("bob").records()) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_asked_again_and_then_named(machines: Machines, status: int) -> None:
    machines.fake.answers = [(status, {})] * 2
    assert len([machines.ledger().append(tiny_evidence())]) == 1
    assert len(machines.place.waits) == 2
    machines.fake.answers = [(status, {})] * 10
    with pytest.raises(UnavailableError, match="localhost:5000") as caught:
        machines.ledger().append(tiny_evidence(minute=1))
    assert caught.value.hint
    machines.fake.answers = []
    assert len(machines.ledger("bob").records()) == 1


def test_a_broken_download_goes_on(machines: Machines) -> None:
    appended = machines.ledger().append(tiny_evidence())
    machines.fake.cuts = [10, 5]
    assert list(machines.ledger("bob").records()) == [appended]


def test_a_denied_read_says_how_to_log_in(machines: Machines) -> None:
    machines.fake.password = "secret"
    with pytest.raises(UnavailableError, match="denied the pull from contract/") as caught:
        machines.ledger().records()
    assert "docker login localhost:5000" in caught.value.hint
    assert "MLSHIP_REGISTRY_USER" in caught.value.hint


def test_a_repository_that_is_hidden_until_it_exists_is_empty(tmp_path: Path) -> None:
    login = {"MLSHIP_REGISTRY_USER": "ada", "MLSHIP_REGISTRY_PASSWORD": "secret"}
    machines = Machines(tmp_path, **login)
    machines.fake.password = "secret"
    machines.fake.hides = True
    assert list(machines.ledger().records()) == []
    appended = machines.ledger().append(tiny_evidence())
    assert list(machines.ledger("bob").records()) == [appended]


def test_who_may_only_read_adds_nothing_and_is_told_so(tmp_path: Path) -> None:
    login = {"MLSHIP_REGISTRY_USER": "ada", "MLSHIP_REGISTRY_PASSWORD": "secret"}
    machines = Machines(tmp_path, **login)
    machines.fake.password = "secret"
    machines.ledger().append(tiny_evidence())
    machines.fake.pushes = False
    assert len(machines.ledger("bob").records()) == 1
    with pytest.raises(UnavailableError, match=r"denied the push .* you may only read") as caught:
        machines.ledger("bob").append(tiny_evidence(minute=1))
    assert "docker login" in caught.value.hint
    assert len(machines.ledger("carol").records()) == 1


class Killed(BaseException):
    """Stands for a kill at a request."""


def test_a_kill_at_any_request_leaves_a_record_or_nothing(machines: Machines) -> None:
    machines.ledger().append(tiny_evidence())
    counts = []
    for kills in range(30):
        counts.append(len(machines.ledger().records()))
        left = [kills]

        def killed(request: httpx.Request, left: list[int] = left) -> httpx.Response:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return machines.fake(request)

        machines.place.transport = httpx.MockTransport(killed)
        try:
            machines.ledger().append(tiny_evidence(minute=kills))
        except Killed:
            machines.place.transport = machines.fake.transport
        else:
            break
    assert 5 < kills < 29
    # The tag is written last; the last request, which reads it back, was killed too.
    assert counts == [1] * kills + [2]


def test_what_a_job_adds_for_itself_is_not_shared(machines: Machines, tmp_path: Path) -> None:
    first = machines.ledger().append(tiny_evidence())
    machines.fake.log.clear()

    def job() -> RegistryLedger:
        shared = machines.place.artifacts(tmp_path / "job")
        return RegistryLedger(LocalArtifacts(shared, tmp_path / "local"), packs=False)

    second = job().append(tiny_evidence(minute=1))
    third = job().append(tiny_evidence(minute=2))
    assert second.evidence.parents == (first.digest,)
    assert list(job().records()) == [first, second, third]
    assert {line.split()[0] for line in machines.fake.log} == {"GET"}
    assert list(machines.ledger("bob").records()) == [first]


def _append(open_ledger: Callable[[], RegistryLedger], writer: str, count: int) -> None:
    for number in range(count):
        open_ledger().append(tiny_evidence(actor=f"{writer}{number}"))


@pytest.mark.service("registry")
def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    place = real_place("iris")
    context = multiprocessing.get_context("fork")

    def machine(name: str) -> Callable[[], RegistryLedger]:
        return lambda: RegistryLedger(place.artifacts(tmp_path / name))

    writers = [context.Process(target=_append, args=(machine(name), name, 25)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    records = machine("c")().records()
    actors = {record.evidence.actor for record in records}
    assert actors == {f"{name}{number}" for name in "ab" for number in range(25)}
    assert len(records) == 50
    assert any(len(record.evidence.parents) > 1 for record in records), "they did write at once"
