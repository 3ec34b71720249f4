"""batch with a challenger: a shadow beside what is published, or a share of the rows."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import xxhash

from mlship.domain import shapes
from mlship.domain.batch import Block, Input, Part, Plan, parts_of
from mlship.domain.batch_record import Batched
from mlship.domain.batch_schema import check_outputs
from mlship.domain.batch_sides import Player
from mlship.domain.bundle import Field, Hooks
from mlship.domain.digests import Digest, short
from mlship.domain.evidence import Record
from mlship.domain.policy import Bound
from mlship.errors import ConfigError, IntegrityError, ProjectError
from mlship.steps.batch import Batch
from mlship.steps.status import status
from mlship.steps.trace import trace
from tests.fakes.batch import KilledError
from tests.harness.batches import Contest
from tests.harness.bundles import SETOSA, iris_draft

BROKEN = """
def postprocess(outputs):
    raise ValueError("no")
"""
IRIS = iris_draft(Hooks()).schema
EXTRA = Field(name="extra", kind="number")


@pytest.fixture
def here(tmp_path: Path) -> Contest:
    return Contest(tmp_path)


def facts(result: Batch | Record) -> Batched:
    return shapes.of(result.record if isinstance(result, Batch) else result, Batched)


def table(folder: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder).to_pylist()
    return rows


def evidence(here: Contest) -> list[tuple[str, str, int]]:
    records = here.world.ledger.records()
    own = [each for each in records if each.evidence.step == "batch"]
    return [(each.evidence.release.name, each.evidence.verdict, facts(each).rows) for each in own]


def test_a_shadow_is_written_apart_with_the_ids_that_are_published(here: Contest) -> None:
    here.write("a.parquet")
    alone = here.run()
    result = here.compare("shadow")
    assert not result.published.is_new, "the champion's outputs are those without a challenger"
    assert result.published.folder == alone.folder
    assert result.shadow is not None
    assert result.shadow.record.evidence.verdict == "passed"
    assert result.shadow.record.evidence.release == here.challenger
    assert (facts(result.shadow).challenger, facts(result.shadow).shadowed) == (
        "shadow",
        alone.folder,
    )
    published, shadow = table(alone.folder), table(result.shadow.folder)
    assert [row["id"] for row in shadow] == [row["id"] for row in published]
    assert {row["species"] for row in published} == {"setosa"}
    assert {row["species"] for row in shadow} == {"virginica"}
    assert Path(result.shadow.folder).parents[1] == here.root / "scores" / "_shadow"
    assert pq.read_table(here.root / "scores").num_rows == 25, "readers pass over shadows"
    last = status(here.world.pipeline).batch
    assert last is not None
    assert last.output == alone.folder


def test_a_prediction_of_a_batch_is_traced_with_its_shadow(here: Contest) -> None:
    here.write("a.parquet")
    result = here.compare("shadow")
    for row in table(result.published.folder)[:3]:
        found = trace(here.world.pipeline, row["id"], batching=here.ports)
        assert found.prediction.release == here.release.id
        assert found.prediction.outputs["species"] == "setosa"
        assert found.shadow is not None
        assert found.shadow.release == here.challenger.id
        assert found.shadow.inputs == found.prediction.inputs
        assert found.shadow.outputs["species"] == "virginica"


def test_a_shadow_that_answers_otherwise_now_is_not_reproduced(here: Contest) -> None:
    here.write("a.parquet")
    result = here.compare("shadow")
    row = table(result.published.folder)[0]
    answers = {here.release.bundle: row, here.challenger.bundle: row | {"species": "versicolor"}}
    predictor = here.world.predictor

    def predict(bundle: Path, _: Any) -> list[Any]:
        [own] = [row for digest, row in answers.items() if short(digest) in str(bundle)]
        return [{name: value for name, value in own.items() if name != "id"}]

    object.__setattr__(predictor, "predict", predict)
    with pytest.raises(IntegrityError, match=r"the shadow of .* is .versicolor., was"):
        trace(here.world.pipeline, row["id"], reproduce=True, batching=here.ports)


def test_a_shadow_that_fails_leaves_what_is_published(tmp_path: Path) -> None:
    here = Contest(tmp_path, postprocess=BROKEN)
    here.write("a.parquet")
    result = here.compare("shadow")
    assert result.published.record.evidence.verdict == "passed"
    assert len(table(result.published.folder)) == 25
    assert result.shadow is not None
    assert result.shadow.record.evidence.verdict == "failed"
    [check] = facts(result.shadow).checks
    assert "no" in check.text
    assert evidence(here) == [("iris", "passed", 25), ("iris", "failed", 0)]


def test_gates_hold_for_a_shadow(here: Contest) -> None:
    here.configure(gates={"shift": Bound(max=0.1)})
    here.write("a.parquet", rows=200)
    result = here.compare("shadow")
    assert result.published.record.evidence.verdict == "passed"
    assert result.shadow is not None
    assert result.shadow.record.evidence.verdict == "failed", "it answers virginica to each row"
    assert not list(here.root.glob("scores/_shadow/*/run-*"))


def test_a_shadow_is_not_what_the_next_run_is_compared_with(here: Contest) -> None:
    here.write("a.parquet", rows=200)
    here.compare("shadow")
    here.write("a.parquet", rows=201)
    here.configure(gates={"shift": Bound(max=0.1)})
    assert here.run().record.evidence.verdict == "passed"


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_the_same_key_is_on_the_side_that_http_gives_it(here: Contest, form: str) -> None:
    keys = [f"customer {number % 60}" for number in range(200)]
    path = here.write("a.parquet", rows=200, group=40, key=keys)
    rows = pq.read_table(path).to_pylist()
    if form != "parquet":
        path.unlink()
        lines = [json.dumps(row) for row in rows]
        if form == "csv":
            lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.with_name(f"a.{form}").write_text("\n".join(lines) + "\n")
    here.configure(keep=("key",), key="key", part_rows=50)
    result = here.compare("split").published
    assert result.record.evidence.verdict == "passed"
    assert result.record.evidence.release == here.release
    scored = table(result.folder)
    assert sorted(row["key"] for row in scored) == sorted(keys), "each row once"
    first, second = sorted(
        [(str(each.id)[7:19], role) for each, role in here.roles], key=lambda pair: f"r{pair[0]}"
    )
    weights = {"champion": 70, "challenger": 30}
    for row in scored:
        point = xxhash.xxh64_intdigest(row["key"].encode()) % 100
        role = first[1] if point < weights[first[1]] else second[1]
        assert row["side"] == role
        release = here.release if role == "champion" else here.challenger
        assert row["release"] == str(release)
        assert (row["species"] == "virginica") is (role == "challenger")
    assert {row["side"] for row in scored} == {"champion", "challenger"}


def test_each_row_of_a_split_leads_back_to_the_release_that_answered_it(here: Contest) -> None:
    path = here.write("a.parquet", rows=60)
    inputs = pq.read_table(path).to_pylist()
    result = here.compare("split").published
    scored = table(result.folder)
    assert len({row["id"] for row in scored}) == 60
    sides = {"champion": here.release.id, "challenger": here.challenger.id}
    for row in scored[:3] + scored[-3:]:
        found = trace(here.world.pipeline, row["id"], batching=here.ports)
        assert found.prediction.release == sides[row["side"]]
        assert found.shadow is None
        own = {name: row[name] for name in row if name not in ("id", "release", "side")}
        assert found.prediction.outputs == own
        assert found.prediction.inputs in inputs


def test_a_killed_split_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.glob("part-*")}

    here = Contest(tmp_path)
    here.write("a.parquet")
    first = here.compare("split").published
    wanted = content(Path(first.folder))
    assert len(wanted) == 6
    for place in range(6):
        Path(first.folder).rename(here.root / f"elsewhere{place}")
        here.workers.kill_at = place % 3
        with pytest.raises(KilledError):
            here.compare("split")
        here.workers.kill_at = None
        again = here.compare("split").published
        assert again.folder == first.folder
        assert content(Path(again.folder)) == wanted


def test_a_split_that_was_published_gets_the_evidence_that_a_kill_prevented(here: Contest) -> None:
    here.write("a.parquet")
    first = here.compare("split").published
    ledger = here.world.ledger
    kept = [each for each in ledger.records() if each != first.record]
    assert len(kept) == len(list(ledger.records())) - 1
    object.__setattr__(ledger, "_records", kept)
    again = here.compare("split").published
    assert again.record.evidence.release == here.release
    assert [rows for *_, rows in evidence(here)] == [
        25 - facts(first).rows,
        facts(first).rows,
    ]
    assert not here.compare("split").published.is_new


def test_another_split_of_the_route_is_another_run(here: Contest) -> None:
    here.write("a.parquet")
    first = here.compare("split").published
    here.weigh(60)
    second = here.compare("split").published
    assert first.folder != second.folder
    assert facts(second).share == 60
    here.weigh(100)
    third = here.compare("split").published
    assert facts(third).challenger == ""
    assert {row["species"] for row in table(third.folder)} == {"setosa"}


def test_gates_hold_for_each_side_of_a_split(tmp_path: Path) -> None:
    # Of all rows, so few are no shift.
    here = Contest(tmp_path, weight=10)
    here.write("a.parquet", rows=200, group=100)
    here.run()
    folders = here.published
    here.configure(gates={"rows": Bound(min=200), "shift": Bound(max=0.1)})
    result = here.compare("split").published
    assert result.record.evidence.verdict == "failed"
    assert here.published == folders
    names = [check.name for check in facts(result).checks]
    assert names == ["rejected", "rows", "champion shift", "challenger shift"]
    [failed] = [check for check in facts(result).checks if not check.holds]
    assert failed.text.startswith("challenger: shift ")
    assert [verdict for _, verdict, _ in evidence(here)] == ["passed", "failed", "failed"]


def test_rejected_rows_and_lines_are_counted_once_in_a_split(here: Contest) -> None:
    lake = here.root / "lake"
    lake.mkdir()
    header = ",".join(SETOSA)
    values = ",".join(map(str, SETOSA.values()))
    wide = values.rpartition(",")[0] + ",wide"
    (lake / "a.csv").write_text("\n".join([header, *[values, wide] * 10, "1,2"]) + "\n")
    here.configure(max_rejected=11)
    result = here.compare("split").published
    assert result.record.evidence.verdict == "passed"
    assert len(table(result.folder)) == 10
    refused = [
        json.loads(line)
        for path in Path(result.folder).glob("_rejected/*")
        for line in path.read_text().splitlines()
    ]
    assert sorted(row["row"] for row in refused if row["row"] is not None) == [*range(1, 20, 2)]
    assert len(refused) == 11
    here.configure(max_rejected=10)
    (lake / "a.csv").write_text("\n".join([header, *[values, wide] * 11]) + "\n")
    assert here.compare("split").published.record.evidence.verdict == "failed"


def test_what_cannot_be_compared_is_refused_before_the_first_row(tmp_path: Path) -> None:
    here = Contest(tmp_path)
    here.write("a.parquet", score=[0.5] * 25)
    here.configure(key="score")
    with pytest.raises(ProjectError, match="the key score has type double"):
        here.compare("split")
    here.configure(key="nobody")
    with pytest.raises(ProjectError, match=r"no column nobody, which batch\.key names"):
        here.compare("split")
    here.configure(key=None)
    with pytest.raises(ConfigError, match=r"different outputs: extra"):
        check_outputs(IRIS, msgspec.structs.replace(IRIS, outputs=(*IRIS.outputs, EXTRA)), ())
    with pytest.raises(ConfigError, match="adds the column species"):
        check_outputs(IRIS, IRIS, ("species",))
    here.release, here.challenger = here.challenger, here.release
    with pytest.raises(ConfigError, match="is not champion"):
        here.compare("shadow")


def test_without_a_challenger_the_champion_scores_all_rows(tmp_path: Path) -> None:
    here = Contest(tmp_path)
    here.write("a.parquet")
    here.world.pipeline.learn(here.challenger, "retire", "passed", shapes.SHAPES["retire"]())
    for mode in ("shadow", "split"):
        result = here.compare(mode)
        assert (facts(result.published).challenger, result.shadow) == ("", None)
        assert {row["species"] for row in table(result.published.folder)} == {"setosa"}


def test_names_without_a_challenger_are_those_of_former_versions() -> None:
    release = Digest("sha256:" + "5" * 64)
    each = Input(
        path="a", format="csv", version="1", digest=release, size=1, blocks=(Block(0, -1),)
    )
    plan = Plan(release=release, inputs=(each,), parts=parts_of([each]))
    assert plan.parts == (Part(name="585000264eba007ba6cb59a6", input="a", block=Block(0, -1)),)
    assert plan.run == "3225ddc11617"
    player = Player(role="champion", slot="r5", release=release, name="i", bundle=release, weight=1)
    parts = parts_of([each], [player])
    assert parts[0].of == plan.parts[0].name
    assert parts[0].name != plan.parts[0].name
