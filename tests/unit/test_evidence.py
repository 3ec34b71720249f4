from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.evidence import STEPS, Evidence, Record, Saw, decode, encode, heads, in_order
from mlship.errors import IntegrityError
from tests.fakes.store import FakeLedger, tiny_evidence, tiny_release

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
any_digest = st.binary(max_size=4).map(digests.of_bytes)
any_evidence = st.builds(
    Evidence,
    release=st.builds(tiny_release, any_digest, commit=st.text("0123456789abcdef", min_size=40)),
    step=st.sampled_from(sorted(STEPS)),
    verdict=st.sampled_from(["passed", "failed", "undecided"]),
    facts=st.dictionaries(texts, json_values, max_size=4),
    saw=st.builds(Saw, data=st.none() | any_digest, image=st.none() | any_digest),
    actor=texts,
    time=st.datetimes(timezones=st.just(UTC)),
    parents=st.lists(any_digest, max_size=3, unique=True).map(tuple),
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def chain(length: int) -> dict[Digest, bytes]:
    ledger = FakeLedger()
    for minute in range(length):
        ledger.append(tiny_evidence(actor=f"step{minute}", minute=minute))
    return ledger.stored


@pytest.mark.slow
@unhurried
@given(any_evidence)
def test_what_is_encoded_is_decoded_again(evidence: Evidence) -> None:
    record = decode(encode(evidence))
    expected = msgspec.structs.replace(evidence, facts=digests.plain(evidence.facts))
    assert record.evidence == expected
    assert encode(record.evidence) == encode(evidence)
    assert record.digest == digests.of_bytes(encode(evidence))


def test_a_record_is_an_in_toto_statement_about_the_release_and_its_bundle() -> None:
    evidence = tiny_evidence()
    statement = msgspec.json.decode(encode(evidence))
    release = evidence.release
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert [subject["digest"]["sha256"] for subject in statement["subject"]] == [
        release.id.removeprefix("sha256:"),
        release.bundle.removeprefix("sha256:"),
    ]
    assert statement["predicate"]["time"] == "2026-01-01T00:00:00Z"


def test_a_record_moved_to_another_release_is_refused() -> None:
    statement = msgspec.json.decode(encode(tiny_evidence()))
    statement["predicate"]["release"]["commit"] = "b" * 40
    with pytest.raises(IntegrityError, match="another release"):
        decode(msgspec.json.encode(statement))


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", encode(tiny_evidence())[:-1]])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="not a record"):
        decode(data)


@unhurried
@given(st.permutations(range(6)))
def test_the_order_is_the_chain_s_however_the_files_are_listed(order: list[int]) -> None:
    items = list(chain(6).items())
    records = in_order(dict(items[index] for index in order))
    assert [record.evidence.actor for record in records] == [f"step{n}" for n in range(6)]


def test_a_fork_has_two_heads_and_is_ordered_by_time_then_joined() -> None:
    root = decode(encode(tiny_evidence(actor="root", minute=9)))
    late = _after("late", 5, root)
    early = _after("early", 1, root)
    assert heads([root, late, early]) == tuple(sorted([late.digest, early.digest]))
    join = _after("join", 0, late, early)
    stored = {record.digest: encode(record.evidence) for record in (join, late, early, root)}
    assert [record.evidence.actor for record in in_order(stored)] == [
        "root",
        "early",
        "late",
        "join",
    ]


def _after(actor: str, minute: int, *parents: Record) -> Record:
    named = tuple(parent.digest for parent in parents)
    return decode(encode(tiny_evidence(actor=actor, minute=minute, parents=named)))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_changed_record_is_found_wherever_it_is(index: int) -> None:
    stored = chain(3)
    name = list(stored)[index]
    stored[name] = stored[name].replace(b'"passed"', b'"failed"')
    with pytest.raises(IntegrityError, match=digests.short(name)):
        in_order(stored)


@pytest.mark.parametrize("index", [0, 1])
def test_a_removed_record_is_found(index: int) -> None:
    stored = chain(3)
    name = list(stored)[index]
    del stored[name]
    with pytest.raises(IntegrityError, match=f"{digests.short(name)}, which is missing"):
        in_order(stored)


def test_times_of_any_zone_are_kept_as_the_instant() -> None:
    evidence = tiny_evidence(time=datetime.fromisoformat("2026-01-01T02:00:00+02:00"))
    assert decode(encode(evidence)).evidence.time == datetime(2026, 1, 1, tzinfo=UTC)
