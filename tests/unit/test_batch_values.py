"""The values of a batch: names, profiles, gates, and columns that fit."""

import math
import random
from collections import Counter

import msgspec
import pytest

from mlship.config import bounds
from mlship.config.batch import BatchConfig
from mlship.domain import batch as batches
from mlship.domain import digests
from mlship.domain.batch import Block, Counts, Finished, Input, Manifest, Plan, Reading
from mlship.domain.batch_gate import judge, values
from mlship.domain.batch_profile import added, bucket, middle, profile
from mlship.domain.batch_schema import fits
from mlship.domain.bundle import Field
from mlship.domain.policy import Bound
from mlship.domain.profiles import Profile
from mlship.errors import ConfigError
from mlship.runtime.batches.counts import OutputCounts
from tests.fakes.ports import CONFIG

RELEASE = digests.of_bytes(b"release")


def file(path: str, text: bytes, *blocks: Block) -> Input:
    return Input(
        path=path,
        format="parquet",
        version="1",
        digest=digests.of_bytes(text),
        size=len(text),
        blocks=blocks or (Block(0, 1),),
    )


def test_the_name_of_a_part_is_that_of_its_bytes_and_its_place() -> None:
    one, other = file("a", b"x", Block(0, 1), Block(1, 2)), file("elsewhere/b", b"x")
    first, second = batches.parts_of([one])
    [moved] = batches.parts_of([other])
    assert moved.name == first.name != second.name
    [_, copy] = batches.parts_of([other, file("c", b"x")])
    assert copy.name not in {first.name, second.name}
    assert batches.parts_of([other])[0].name == "e98f6bbaed8c4a0b8b99390d", "names are for ever"


def test_a_run_is_its_release_its_rows_and_its_form() -> None:
    inputs = (file("a", b"x"),)
    plan = Plan(release=RELEASE, inputs=inputs, parts=batches.parts_of(inputs))
    others = [
        msgspec.structs.replace(plan, release=digests.of_bytes(b"other")),
        msgspec.structs.replace(plan, parts=batches.parts_of([file("a", b"y")])),
        msgspec.structs.replace(plan, keep=("key",)),
        msgspec.structs.replace(plan, format="csv"),
        msgspec.structs.replace(plan, reading=Reading(missing=("-",))),
    ]
    assert len({plan.run, *(other.run for other in others)}) == 6


def test_ids_are_found_again() -> None:
    prefix = batches.prefix(RELEASE, "part")
    assert batches.row_of(f"{prefix}.17") == (prefix, 17)
    assert batches.prefix(RELEASE, "other") != prefix
    for other in (prefix, f"{prefix}.01", f"{prefix}.-1", "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed.0"):
        assert batches.row_of(other) is None


def test_a_manifest_needs_each_part() -> None:
    inputs = (file("a", b"x", Block(0, 1), Block(1, 2)),)
    plan = Plan(release=RELEASE, inputs=inputs, parts=batches.parts_of(inputs))
    done = [
        Finished(name=part.name, rows=3, rejected=1, size=9, digest=RELEASE, reasons=("why",))
        for part in plan.parts
    ]
    manifest = batches.manifest_of(plan, done, "iris@1", RELEASE, "now")
    assert (manifest.rows, manifest.rejected, manifest.reasons) == (6, 2, ("why", "why"))
    with pytest.raises(KeyError):
        batches.manifest_of(plan, done[:1], "iris@1", RELEASE, "now")


def test_buckets_are_narrow_and_in_order() -> None:
    chance = random.Random(1)
    numbers = sorted(chance.choice([-1, 1]) * 10 ** chance.uniform(-300, 300) for _ in range(2000))
    for number in numbers:
        assert math.isclose(middle(bucket(number)), number, rel_tol=0.016)
    assert [bucket(number) for number in numbers] == sorted(map(bucket, numbers))
    assert middle(bucket(0.0)) == 0.0
    assert bucket(-0.0) == bucket(0.0)


def test_arrays_are_counted_as_numbers_are() -> None:
    import pyarrow as pa

    numbers = [0.0, 1.0, -1.0, 0.7, 1e-300, -2.5e200, 0.7000001, None]
    texts = ["a", "b", "a", None, "a", "a", "a", "b"]
    fields = (Field(name="x", kind="number"), Field(name="y", kind="text"))
    counts = OutputCounts(fields)
    for _ in range(2):
        counts.add(pa.record_batch([numbers, texts], names=["x", "y"]))
    counted = counts.counts()
    wanted: dict[int, int] = {}
    for number in numbers:
        if number is not None:
            wanted[bucket(number)] = wanted.get(bucket(number), 0) + 2
    assert counted["x"] == Counts(missing=2, buckets=wanted)
    assert counted["y"] == Counts(missing=2, named={"a": 10, "b": 4})


@pytest.mark.parametrize("extreme", [None, 0.0, -1.0, 5e-324, 1e-310, 2.2250738585072014e-308])
def test_many_positive_numbers_are_counted_as_each_is(extreme: float | None) -> None:
    pa = pytest.importorskip("pyarrow")
    chance = random.Random(1)
    numbers = [math.ldexp(1 + chance.random(), chance.randint(-1000, 1000)) for _ in range(500)]
    numbers += [1.0, math.nextafter(1.0, 0.0), 1.7976931348623157e308]
    numbers += [] if extreme is None else [extreme]
    counts = OutputCounts((Field(name="x", kind="number"),))
    counts.add(pa.record_batch([numbers], names=["x"]))
    assert counts.counts()["x"].buckets == Counter(map(bucket, numbers))


@pytest.mark.parametrize(
    ("first", "count"),
    [(0, 1), (0, 12_345), (7, 2), (95, 10), (998, 1_003), (98_765, 2_000), (999_999, 1), (5, 0)],
)
def test_an_id_is_the_prefix_and_the_number_of_its_row(first: int, count: int) -> None:
    pytest.importorskip("pyarrow")
    from mlship.runtime.batches.ids import ids_of

    ids = ids_of("abc", first, count)
    ids.validate(full=True)
    assert ids.to_pylist() == [f"abc.{number}" for number in range(first, first + count)]


def test_labels_are_written_by_their_places_and_other_texts_as_they_are() -> None:
    pytest.importorskip("pyarrow")
    from mlship.runtime.batches.values import to_arrow

    field = Field(name="y", kind="text", choices=("nein", "jä"))
    for texts in (["jä", "nein", "jä"], [], ["nein", None, "of a hook"]):
        labels = to_arrow(texts, field)
        labels.validate(full=True)
        assert labels.to_pylist() == texts
        assert labels.type == to_arrow(["jä"], field).type


def of_numbers(numbers: list[float]) -> dict[str, Counts]:
    buckets: dict[int, int] = {}
    for number in numbers:
        buckets[bucket(number)] = buckets.get(bucket(number), 0) + 1
    return {"x": Counts(buckets=buckets)}


def profiled(*parts: list[float]) -> Profile:
    counts = added(map(of_numbers, parts))
    return profile(counts, [Field(name="x", kind="number")], sum(map(len, parts)))


def shift(before: Profile, after: Profile) -> float:
    return float(values(after, after.rows, before)["shift"] or 0)


@pytest.mark.parametrize(("centre", "width"), [(0.5, 0.1), (1000.0, 50.0), (-3.0, 8.0), (0, 1e9)])
def test_equal_predictions_have_no_shift_and_others_have_one(centre: float, width: float) -> None:
    chance = random.Random(3)

    def numbers(middle_: float) -> list[float]:
        return [chance.gauss(middle_, width) for _ in range(4_000)]

    before = profiled(numbers(centre), numbers(centre))
    assert before.columns[0].bins is not None
    assert sum(before.columns[0].bins.counts) == 8_000
    assert shift(before, profiled(numbers(centre))) < 0.1
    assert shift(before, profiled(numbers(centre + width))) > 0.25


def test_a_profile_names_no_rare_value() -> None:
    counts = {"y": Counts(named={"common": 50, "rare": 9})}
    [column] = profile(counts, [Field(name="y", kind="text")], 59).columns
    assert (column.named, column.others) == ({"common": 50}, 9)


def manifest_with(rows: int, rejected: int, missing: int) -> Manifest:
    inputs = (file("a", b"x"),)
    plan = Plan(release=RELEASE, inputs=inputs, parts=batches.parts_of(inputs))
    done = [Finished(name=plan.parts[0].name, rows=rows, rejected=rejected, size=1, digest=RELEASE)]
    counts = {"y": Counts(named={"a": rows - rejected - missing}, missing=missing)}
    field = Field(name="y", kind="text", nullable=True)
    made = batches.manifest_of(plan, done, "iris@1", RELEASE, "now")
    return msgspec.structs.replace(made, profile=profile(counts, [field], rows - rejected))


def test_a_gate_bounds_rows_nulls_and_rejected_rows() -> None:
    limits = {"rows": Bound(min=100, max=200), "nulls": Bound(max=0.1)}

    def failed(rows: int, rejected: int, missing: int) -> list[str]:
        checks = judge(manifest_with(rows, rejected, missing), None, limits, 3)
        return [check.name for check in checks if not check.holds]

    assert failed(103, 3, 9) == []
    assert failed(99, 0, 0) == ["rows"]
    assert failed(205, 4, 0) == ["rejected", "rows"]
    assert failed(100, 0, 11) == ["nulls"]


NUMBER = Field(name="x", kind="number")
TEXT = Field(name="x", kind="text")


@pytest.mark.parametrize(
    ("field", "kind", "is_fit"),
    [
        (NUMBER, "int32", True),
        (NUMBER, "uint64", True),
        (NUMBER, "double", True),
        (NUMBER, "halffloat", True),
        (NUMBER, "string", False),
        (NUMBER, "bool", False),
        (NUMBER, "decimal128(9, 2)", False),
        (msgspec.structs.replace(NUMBER, dtype="decimal"), "decimal128(9, 2)", True),
        (NUMBER, "dictionary<values=double, indices=int32, ordered=0>", True),
        (NUMBER, "list<element: double>", False),
        (NUMBER, "null", True),
        (TEXT, "string", True),
        (TEXT, "large_string", True),
        (TEXT, "dictionary<values=string, indices=int32, ordered=0>", True),
        (TEXT, "timestamp[us]", False),
        (TEXT, "int64", False),
        (msgspec.structs.replace(TEXT, dtype="datetime64[ns]"), "timestamp[us, tz=UTC]", True),
        (msgspec.structs.replace(TEXT, dtype="date"), "date32[day]", True),
        (Field(name="x", kind="boolean"), "bool", True),
        (Field(name="x", kind="boolean"), "int8", False),
        (Field(name="x", kind="integer"), "double", True),
        (Field(name="x", kind="integer"), "csv", True),
    ],
)
def test_a_type_fits_if_http_takes_its_values(field: Field, kind: str, is_fit: bool) -> None:
    assert fits(field, kind) is is_fit


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"row": Bound(min=1)}, r"batch\.gates\.row: there is no such bound"),
        ({"rows": Bound()}, r"batch\.gates\.rows has no bound"),
        ({"shift": Bound(max=0.1, below_champion=1.0)}, "no champion is compared with"),
    ],
)
def test_a_gate_that_bounds_nothing_is_refused(gates: dict[str, Bound], message: str) -> None:
    settings = msgspec.structs.replace(CONFIG, batch=BatchConfig(gates=gates))
    with pytest.raises(ConfigError, match=message):
        bounds.check(settings)
