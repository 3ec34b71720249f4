"""Documents attached to images: found again whatever the registry can do, and never lost."""

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from mlship.adapters.http.clients import Reach
from mlship.adapters.images.registry.client import Exchange
from mlship.adapters.images.registry.referrers import RegistryReferrers
from mlship.adapters.images.registry.registry import Registry
from mlship.domain.dsse import IN_TOTO
from mlship.domain.image import Reference, reference
from mlship.domain.referrers import CYCLONEDX, LARGEST, Damaged, Document, Referrer
from mlship.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError
from tests.fakes.registry import INDEX, FakeRegistry, digest_of
from tests.fakes.timing import passing, patient
from tests.harness.images import MANIFEST

WITHOUT_API, WITH_API = 0, 2


def a_registry(
    lists: int = WITHOUT_API, fake: FakeRegistry | None = None
) -> tuple[FakeRegistry, Reference]:
    """Return a registry with one image, and the image by digest."""
    fake = fake or FakeRegistry()
    fake.lists = lists
    image = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).encode()
    fake.manifests["iris"] = {digest_of(image): (image, MANIFEST)}
    return fake, reference(f"localhost:5000/iris@{digest_of(image)}")


def opened(fake: FakeRegistry, image: Reference) -> RegistryReferrers:
    """Return what another process would open."""
    reach = Reach(transport=fake.transport)
    exchange = Exchange("localhost:5000", lambda: None, reach=reach, timing=patient([]))
    return RegistryReferrers(Registry(exchange), image)


def sbom(text: str) -> Document:
    notes = {"for": text}
    return Document(
        artifact_type=CYCLONEDX, media_type=CYCLONEDX, data=text.encode(), annotations=notes
    )


def texts(fake: FakeRegistry, image: Reference, artifact_type: str = CYCLONEDX) -> list[str]:
    return sorted(each.document.data.decode() for each in readable(fake, image, artifact_type))


def readable(fake: FakeRegistry, image: Reference, artifact_type: str) -> list[Referrer]:
    found = opened(fake, image).attached(artifact_type)
    return [each for each in found if isinstance(each, Referrer)]


def problems(fake: FakeRegistry, image: Reference) -> list[str]:
    found = opened(fake, image).attached(CYCLONEDX)
    return [each.problem for each in found if isinstance(each, Damaged)]


def index_of(fake: FakeRegistry, image: Reference) -> list[str]:
    """Return the digests in the index that other tools read."""
    data, kind = fake.manifests["iris"][fallback(image)]
    assert kind == INDEX
    return [entry["digest"] for entry in json.loads(data)["manifests"]]


def fallback(image: Reference) -> str:
    return str(image.digest).replace(":", "-")


@pytest.mark.parametrize("lists", [WITHOUT_API, WITH_API])
def test_what_was_attached_is_found_with_its_bytes(lists: int) -> None:
    fake, image = a_registry(lists)
    written = [opened(fake, image).attach(sbom(text)) for text in "abcde"]
    signed = Document(artifact_type=IN_TOTO, media_type="application/x", data=b"{}")
    opened(fake, image).attach(signed)
    found = readable(fake, image, CYCLONEDX)
    assert sorted(each.digest for each in found) == sorted(written)
    assert {each.document.data.decode(): each.document for each in found} == {
        text: sbom(text) for text in "abcde"
    }
    assert [each.document for each in readable(fake, image, IN_TOTO)] == [signed]


@pytest.mark.parametrize("lists", [WITHOUT_API, WITH_API])
def test_the_same_document_twice_writes_nothing(lists: int) -> None:
    fake, image = a_registry(lists)
    first = opened(fake, image).attach(sbom("a"))
    opened(fake, image).attach(sbom("b"))
    before = fake.requests.copy()
    assert opened(fake, image).attach(sbom("a")) == first
    assert fake.requests["PUT"] == before["PUT"]
    assert fake.requests["POST"] == before["POST"]


def test_a_registry_with_the_api_gets_no_tags() -> None:
    fake, image = a_registry(WITH_API)
    opened(fake, image).attach(sbom("a"))
    assert all(name.startswith("sha256:") for name in fake.manifests["iris"])


def test_other_tools_find_the_index_of_the_specification() -> None:
    fake, image = a_registry()
    digest = opened(fake, image).attach(sbom("a"))
    (entry,) = json.loads(fake.manifests["iris"][fallback(image)][0])["manifests"]
    stored, kind = fake.manifests["iris"][digest]
    manifest = json.loads(stored)
    assert entry == {
        "mediaType": kind,
        "digest": digest,
        "size": len(stored),
        "artifactType": CYCLONEDX,
        "annotations": {"for": "a"},
    }
    assert manifest["subject"]["digest"] == image.digest
    assert manifest["artifactType"] == CYCLONEDX


def test_entries_and_fields_of_other_tools_stay_in_the_index() -> None:
    fake, image = a_registry()
    foreign = {"mediaType": MANIFEST, "digest": digest_of(b"x"), "size": 1, "platform": {"os": "x"}}
    text = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [foreign],
        "annotations": {"a": "b"},
    }
    fake.manifests["iris"][fallback(image)] = (json.dumps(text).encode(), INDEX)
    opened(fake, image).attach(sbom("a"))
    written = json.loads(fake.manifests["iris"][fallback(image)][0])
    assert written["manifests"][0] == foreign
    assert written["annotations"] == {"a": "b"}


class Meanwhile:
    """Lets another process do something before the first request of a kind."""

    def __init__(self, method: str, end: str, action: Callable[[], object]) -> None:
        self.method, self.end, self.action = method, end, action
        self.was_run = False

    def __call__(self, request: httpx.Request) -> None:
        is_it = request.method == self.method and request.url.path.endswith(self.end)
        if is_it and not self.was_run:
            self.was_run = True
            self.action()


@pytest.mark.parametrize("compares", [False, True])
def test_an_index_written_between_read_and_write_is_not_lost(compares: bool) -> None:
    fake, image = a_registry()
    fake.compares = compares
    opened(fake, image).attach(sbom("first"))
    other = opened(fake, image)
    fake.before = Meanwhile("PUT", fallback(image), lambda: other.attach(sbom("other")))
    opened(fake, image).attach(sbom("own"))
    assert len(index_of(fake, image)) == 3
    assert texts(fake, image) == ["first", "other", "own"]


def test_a_writer_that_ended_is_found_by_who_writes_the_last_index() -> None:
    # The own index replaces that of a writer that has read it back already, and ended.
    fake, image = a_registry()
    other = opened(fake, image)
    fake.before = Meanwhile("PUT", fallback(image), lambda: other.attach(sbom("other")))
    own = opened(fake, image).attach(sbom("own"))
    listed = index_of(fake, image)
    assert own in listed
    assert len(listed) == 2


def test_a_crash_after_an_index_that_lost_an_entry_loses_no_document() -> None:
    fake, image = a_registry()
    for text in "ab":
        opened(fake, image).attach(sbom(text))
    empty = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    fake.manifests["iris"][fallback(image)] = (json.dumps(empty).encode(), INDEX)
    assert texts(fake, image) == ["a", "b"], "mlship reads the documents' own tags, too"
    opened(fake, image).attach(sbom("c"))
    assert len(index_of(fake, image)) == 3, "the next writer completes the index"


@pytest.mark.parametrize("seed", range(5))
def test_two_at_a_time_lose_none_without_the_api(seed: int) -> None:
    fake, image = a_registry()
    chance = random.Random(seed)
    fake.before = lambda _: time.sleep(chance.random() * 0.001)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: opened(fake, image).attach(sbom(str(number))), range(30)))
    assert len(set(index_of(fake, image))) == 30


def test_a_list_of_tags_that_is_late_does_not_lose_the_own_document() -> None:
    fake, image = a_registry()

    def hide(_: httpx.Request) -> None:
        fake.late = {tag for tag in fake.manifests["iris"] if ".mlship-" in tag}

    fake.before = hide
    digest = opened(fake, image).attach(sbom("a"))
    assert index_of(fake, image) == [digest]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_refused_list_is_replaced_by_the_tag(status: int) -> None:
    fake, image = a_registry()
    fake.refuses = status
    digest = opened(fake, image).attach(sbom("a"))
    assert index_of(fake, image) == [digest]
    assert texts(fake, image) == ["a"]


class ListsNothing(FakeRegistry):
    """A registry that answers the request for the list as if it had the API."""

    def _referrers(self, request: httpx.Request, name: str, digest: str) -> httpx.Response:
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        return httpx.Response(200, json=index)


def test_an_empty_list_of_a_registry_without_the_api_is_not_believed() -> None:
    fake, image = a_registry(fake=ListsNothing())
    digest = opened(fake, image).attach(sbom("a"))
    assert index_of(fake, image) == [digest]
    assert texts(fake, image) == ["a"]
    written = fake.requests["PUT"]
    opened(fake, image).attach(sbom("a"))
    assert fake.requests["PUT"] == written


def test_a_tag_that_may_not_be_changed_is_named() -> None:
    fake, image = a_registry()
    opened(fake, image).attach(sbom("a"))

    def forbid(request: httpx.Request) -> None:
        if request.method == "PUT" and request.url.path.endswith(fallback(image)):
            fake.answers = [(409, {})]

    fake.before = forbid
    with pytest.raises(ConflictError, match=fallback(image)):
        opened(fake, image).attach(sbom("b"))
    assert texts(fake, image) == ["a", "b"]


def test_an_image_that_the_registry_lacks_gets_nothing() -> None:
    fake, image = a_registry()
    with pytest.raises(NotFoundError):
        opened(fake, image.at(digest_of(b"no"))).attach(sbom("a"))  # type: ignore[arg-type]
    assert fake.requests["PUT"] == 0


def lying(fake: FakeRegistry, image: Reference, **changed: object) -> None:
    """Attach a document, then change its entry in the index."""
    opened(fake, image).attach(sbom("a"))
    data, _ = fake.manifests["iris"][fallback(image)]
    index = json.loads(data)
    index["manifests"][0] |= changed
    fake.manifests["iris"][fallback(image)] = (json.dumps(index).encode(), INDEX)


def _other_size(fake: FakeRegistry, image: Reference) -> None:
    lying(fake, image, size=1)


def _no_document(fake: FakeRegistry, image: Reference) -> None:
    lying(fake, image, digest=digest_of(b"nothing"))


def _no_digest(fake: FakeRegistry, image: Reference) -> None:
    lying(fake, image, digest="sha512:0")


def _of_another_image(fake: FakeRegistry, image: Reference) -> None:
    other = b'{"schemaVersion": 2, "layers": []}'
    fake.manifests["iris"][digest_of(other)] = (other, MANIFEST)
    elsewhere = opened(fake, image.at(digest_of(other))).attach(sbom("b"))  # type: ignore[arg-type]
    size = len(fake.manifests["iris"][elsewhere][0])
    lying(fake, image, digest=elsewhere, size=size)


def _changed_bytes(fake: FakeRegistry, image: Reference) -> None:
    opened(fake, image).attach(sbom("a"))
    fake.blobs["iris"][digest_of(b"a")] = b"b"


def _no_bytes(fake: FakeRegistry, image: Reference) -> None:
    opened(fake, image).attach(sbom("a"))
    del fake.blobs["iris"][digest_of(b"a")]


def _layer(fake: FakeRegistry, image: Reference, **changed: object) -> None:
    """Attach a document, then list another manifest for it."""
    digest = opened(fake, image).attach(sbom("a"))
    manifest = json.loads(fake.manifests["iris"][digest][0])
    manifest["layers"][0] |= changed
    data = json.dumps(manifest).encode()
    fake.manifests["iris"][digest_of(data)] = (data, MANIFEST)
    index = json.loads(fake.manifests["iris"][fallback(image)][0])
    index["manifests"][0] |= {"digest": digest_of(data), "size": len(data)}
    fake.manifests["iris"][fallback(image)] = (json.dumps(index).encode(), INDEX)
    for tag in [tag for tag in fake.manifests["iris"] if ".mlship-" in tag]:
        del fake.manifests["iris"][tag]


DAMAGED: dict[str, tuple[Callable[[FakeRegistry, Reference], object], str]] = {
    "another size in the list": (_other_size, "another size"),
    "another size of its layer": (lambda *at: _layer(*at, size=7), "another size"),
    "a layer that is too large": (
        lambda *at: _layer(*at, size=LARGEST + 1),
        "larger than 32 MiB",
    ),
    "a layer without a digest": (lambda *at: _layer(*at, digest="x"), "invalid digest"),
    "no document": (_no_document, "does not exist"),
    "no digest": (_no_digest, "invalid digest"),
    "of another image": (_of_another_image, "another image"),
    "changed bytes": (_changed_bytes, "has digest"),
    "no bytes": (_no_bytes, "blob"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_document_is_told_and_hides_no_other(case: str) -> None:
    fake, image = a_registry()
    damage, problem = DAMAGED[case]
    damage(fake, image)
    opened(fake, image).attach(sbom("own"))
    (told,) = problems(fake, image)
    assert problem in told
    assert "own" in texts(fake, image)


def test_a_document_that_is_listed_twice_is_read_with_its_size() -> None:
    fake, image = a_registry()
    opened(fake, image).attach(sbom("a"))
    index = json.loads(fake.manifests["iris"][fallback(image)][0])
    index["manifests"] += [index["manifests"][0] | {"size": 1}, index["manifests"][0]]
    fake.manifests["iris"][fallback(image)] = (json.dumps(index).encode(), INDEX)
    assert texts(fake, image) == ["a"]
    assert len(problems(fake, image)) == 1


def test_documents_are_read_one_at_a_time() -> None:
    fake, image = a_registry()
    for text in "abc":
        opened(fake, image).attach(sbom(text))
    found = opened(fake, image).attached(CYCLONEDX)
    before = fake.requests["GET"]
    next(found)
    first = fake.requests["GET"] - before
    next(found)
    assert fake.requests["GET"] - before - first == 2, "a manifest and its layer"


class Endless(FakeRegistry):
    """A registry whose list has another page after each, with a new entry."""

    def _referrers(self, request: httpx.Request, name: str, digest: str) -> httpx.Response:
        number = int(request.url.params.get("from", "0"))
        entry = {"mediaType": MANIFEST, "digest": digest_of(b"%d" % number), "size": 1}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        link = f'<{request.url.path}?from={number + 1}>; rel="next"'
        return httpx.Response(200, json=index, headers={"Link": link})


def test_a_list_without_an_end_is_refused() -> None:
    fake, image = a_registry(fake=Endless())
    with pytest.raises(UnavailableError, match="did not end the list"):
        texts(fake, image)
    assert fake.requests["GET"] == 100


def test_a_list_that_takes_too_long_is_refused() -> None:
    fake, image = a_registry(fake=Endless())
    waits: list[float] = []
    fake.before = lambda _: waits.append(50)
    exchange = Exchange(
        "localhost:5000", lambda: None, reach=Reach(transport=fake.transport), timing=passing(waits)
    )
    with pytest.raises(UnavailableError, match="after 3 pages"):
        list(RegistryReferrers(Registry(exchange), image).attached(CYCLONEDX))


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b'{"manifests": 1}',
        b"[" * 100_000,
        b'{"manifests": [{"digest": 1}]}',
        b'{"manifests": [{"mediaType": "\xff"}]}',
        b'{"manifests": [], "annotations": {"a": "\xff"}}',
    ],
)
def test_a_tag_with_something_else_is_not_overwritten(content: bytes) -> None:
    fake, image = a_registry()
    fake.manifests["iris"][fallback(image)] = (content, INDEX)
    with pytest.raises(IntegrityError, match="not an index"):
        opened(fake, image).attach(sbom("a"))
    assert fake.manifests["iris"][fallback(image)] == (content, INDEX)


def test_a_list_of_too_many_entries_is_refused() -> None:
    fake, image = a_registry()
    lying(fake, image)
    (entry,) = json.loads(fake.manifests["iris"][fallback(image)][0])["manifests"]
    entry.pop("annotations")
    many = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] * 10_001}
    fake.manifests["iris"][fallback(image)] = (json.dumps(many).encode(), INDEX)
    with pytest.raises(IntegrityError, match="more than 10000"):
        texts(fake, image)


def test_a_list_that_leads_to_another_server_is_refused() -> None:
    fake, image = a_registry(WITH_API)
    for text in "abc":
        opened(fake, image).attach(sbom(text))
    fake.link = "http://elsewhere.example"
    with pytest.raises(UnavailableError, match="another server"):
        texts(fake, image)
