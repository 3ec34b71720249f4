"""Outcomes of batch rows: by id or by a key, compared and promoted like those of requests."""

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import deltalake
import fsspec
import msgspec
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from mlship.adapters.observations.directory import DirectoryObservations
from mlship.config.project import GatesConfig
from mlship.domain import shapes
from mlship.domain.evidence import Record
from mlship.domain.facts import Evaluated
from mlship.domain.policy import PromotePolicy
from mlship.domain.prediction import Taken
from mlship.domain.versions import Alias, Run
from mlship.errors import (
    ConflictError,
    IntegrityError,
    NotFoundError,
    ProjectError,
    RefusedError,
)
from mlship.steps.approve import approve
from mlship.steps.batch_feedback import Key
from mlship.steps.evaluate import evaluate
from mlship.steps.feedback import feedback
from mlship.steps.outcome_files import Received, read
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import promote
from mlship.steps.trace import trace
from tests.fakes.batch import KilledError
from tests.harness import samples
from tests.harness.batches import Contest

ROWS = 300


class Judged(Contest):
    """A contest with customers in its rows, whose outcomes are in files."""

    def __init__(self, root: Path, **settings: Any) -> None:
        super().__init__(root, **{"keep": ("customer",), **settings})
        store = DirectoryObservations([root / "predictions"], root / "outcomes.jsonl")
        object.__setattr__(self.world.pipeline, "observations", store)
        self.lake()

    def lake(self, name: str = "a.parquet", first: int = 0, rows: int = ROWS) -> None:
        """Write rows of customers."""
        self.write(name, rows, group=100, customer=[f"c{first + row}" for row in range(rows)])

    def configure(self, **settings: Any) -> None:
        """Change settings of the batch; promotions need few outcomes."""
        super().configure(**settings)
        gates = GatesConfig(promote=PromotePolicy(min_labels=50))
        config = msgspec.structs.replace(self.world.pipeline.config, gates=gates)
        object.__setattr__(self.world.pipeline, "config", config)

    def feedback(
        self, outcomes: dict[str, str], column: str = "customer", run: str = "", **options: Any
    ) -> Taken:
        """Give outcomes as a file."""
        path = self.root / "outcomes.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([column or "prediction_id", "outcome"])
            writer.writerows(outcomes.items())
        return self.take(path, column, run, **options)

    def take(self, path: Path, column: str = "customer", run: str = "", **options: Any) -> Taken:
        """Take in a file of outcomes."""
        key = Key(column, run) if column else None
        return feedback(
            self.world.pipeline,
            read(path, ["species"], column),
            batching=self.ports,
            key=key,
            **options,
        )

    def evaluate(self) -> tuple[Record, Evaluated]:
        """Evaluate with what batches answered."""
        record = evaluate(self.world.pipeline, batching=self.ports)
        return record, shapes.of(record, Evaluated)


@pytest.fixture
def here(tmp_path: Path) -> Judged:
    return Judged(tmp_path)


def of(numbers: range, label: str = "virginica") -> dict[str, str]:
    return {f"c{number}": label for number in numbers}


def ids(folder: str) -> dict[str, str]:
    rows = pq.read_table(folder).to_pylist()
    return {row["customer"]: row["id"] for row in rows}


def test_the_whole_way_from_a_shadow_to_a_promotion(here: Judged) -> None:
    learn = here.world.pipeline.learn
    for step in ("test", "verify-staging-workload"):
        learn(here.challenger, step, "passed", samples.nothing(step))
    for release, role in here.roles:
        bundle = here.world.pipeline.bundle_folder(release.bundle)
        here.world.store.record(Run(release=release, bundle=bundle))
        here.world.store.point(cast("Alias", role), release)
    here.compare("shadow")
    assert here.feedback(of(range(200))) == Taken(new=200, known=0)
    assert here.feedback(of(range(200))) == Taken(new=0, known=200)
    record, facts = here.evaluate()
    assert (record.evidence.release, record.evidence.verdict) == (here.challenger, "passed")
    assert (facts.champion_mean, facts.challenger_mean) == (0.0, 1.0)
    assert (facts.champion_n, facts.challenger_n) == (200, 200)
    assert "paired" in facts.method
    approve(here.world.pipeline, here.challenger, "grace@example.org")
    promote(here.world.pipeline, here.challenger)
    assert here.world.pipeline.read().history.champion == here.challenger


def test_a_challenger_that_is_worse_on_rows_of_a_batch_is_not_promoted(here: Judged) -> None:
    here.compare("shadow")
    here.feedback(of(range(200), "setosa"))
    record, _ = here.evaluate()
    assert record.evidence.verdict == "failed"
    with pytest.raises(RefusedError):
        promote(here.world.pipeline, here.challenger)


def test_each_row_of_a_split_counts_for_the_release_that_answered_it(here: Judged) -> None:
    result = here.compare("split").published
    here.feedback(of(range(ROWS)))
    _, facts = here.evaluate()
    sides = [row["side"] for row in pq.read_table(result.folder).to_pylist()]
    assert facts.champion_n == sides.count("champion")
    assert facts.challenger_n == sides.count("challenger") > 50
    assert float(facts.champion_mean or 0) < 0.1
    assert facts.challenger_mean == 1.0


def test_outcomes_by_id_count_as_those_by_key(here: Judged) -> None:
    published = here.compare("shadow").published
    own = ids(published.folder)
    given = {own[f"c{number}"]: "virginica" for number in range(0, 120, 2)}
    assert here.feedback(given | {"f" * 32 + ".7": "setosa"}, "") == Taken(
        new=60, known=0, unknown=("f" * 32 + ".7",)
    )
    assert here.feedback(of(range(60))) == Taken(new=30, known=30), "the same rows"
    assert here.evaluate()[1].challenger_n == 90
    found = trace(here.world.pipeline, own["c2"], batching=here.ports)
    assert found.outcome is not None
    assert found.outcome.value == "virginica"
    with pytest.raises(NotFoundError, match="published batch"):
        here.feedback(
            {published.folder: "setosa", f"{own['c1'].split('.')[0]}.99999": "setosa"}, ""
        )


def test_corrected_contradicted_and_impossible_outcomes_are_as_those_of_requests(
    here: Judged,
) -> None:
    own = ids(here.compare("shadow").published.folder)
    here.feedback(of(range(100)))
    with pytest.raises(ConflictError, match="already have another outcome"):
        here.feedback({"c500": "setosa", "c7": "setosa"} | of(range(100, 110)))
    with pytest.raises(ProjectError, match=r"outcomes.csv:3: .*rose"):
        here.feedback({"c101": "setosa", "c102": "rose"})
    with pytest.raises(ProjectError, match="rose"):
        here.feedback({own["c101"]: "rose"}, "")
    assert here.evaluate()[1].outcomes == 100, "nothing of a refused file is recorded"
    assert here.feedback({"c7": "setosa"}, corrects=True) == Taken(new=1, known=0, corrected=1)
    _, facts = here.evaluate()
    assert (facts.corrected, facts.challenger_mean) == (1, 0.99)
    assert "1 outcomes were corrected" in facts.reason
    path = here.root / "twice.csv"
    path.write_text("customer,outcome\nc200,setosa\nc200,setosa\nc201,setosa\nc201,virginica\n")
    with pytest.raises(ConflictError):
        here.take(path)
    path.write_text("customer,outcome\nc200,setosa\nc200,setosa\nc999,setosa\n")
    assert here.take(path) == Taken(new=1, known=1, unknown=("c999",))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "has no outcomes"),
        ("prediction_id,outcome\nc1,setosa\n", "customer or outcome is missing"),
        ("customer,outcome\n,setosa\n", "customer or outcome is missing"),
        ("customer,outcome\nc1,\n", "customer or outcome is missing"),
        ("customer,outcome,outcome_time\nc1,setosa,yesterday\n", "not a time with a time zone"),
        (
            "customer,outcome,outcome_time\nc1,setosa,2136-01-01T00:00:00Z\n",
            r"csv:2: the outcome of c1 has a time in the future",
        ),
        ("customer,outcome\n\x00,\xff", "customer or outcome is missing|cannot read"),
    ],
)
def test_a_file_that_is_no_file_of_outcomes_is_refused(here: Judged, text: str, match: str) -> None:
    here.compare("shadow")
    path = here.root / "outcomes.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ProjectError, match=match):
        here.take(path)


def test_a_file_of_another_format_is_called_so(here: Judged) -> None:
    for name, content in (("o.csv.gz", gzip.compress(b"a,b")), ("o.parquet", b"PAR1\xff")):
        path = here.root / name
        path.write_bytes(content)
        with pytest.raises(ProjectError, match=r"and outcomes are CSV or JSON lines") as caught:
            here.take(path)
        assert "decompress it" in caught.value.hint


def test_a_key_is_of_the_last_run_before_its_outcome_or_of_the_run_that_is_named(
    here: Judged,
) -> None:
    first = here.compare("shadow").published
    between = here.world.clock() + timedelta(hours=1)
    here.world.clock.now += timedelta(hours=2)
    here.lake("a.parquet", first=200)
    second = here.compare("shadow").published
    lines = [
        {"customer": "c250", "outcome": "virginica", "outcome_time": between.isoformat()},
        {"customer": "c251", "outcome": "virginica"},
        {"customer": "c3", "outcome": "virginica"},
    ]
    path = here.root / "late.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert here.take(path) == Taken(new=2, known=0, unknown=("c3",))
    run = Path(first.folder).name.removeprefix("run-")
    assert here.feedback({"c3": "virginica"}, run=run) == Taken(new=1, known=0)
    kept = here.world.pipeline.observations.outcomes(
        (),
        {
            each.partition(".")[0]
            for each in (*ids(first.folder).values(), *ids(second.folder).values())
        },
    )
    assert [each.prediction for each in kept] == [
        ids(first.folder)["c250"],
        ids(second.folder)["c251"],
        ids(first.folder)["c3"],
    ]
    with pytest.raises(NotFoundError, match="no published batch 0123456789ab"):
        here.feedback({"c3": "virginica"}, run="0123456789ab")
    with pytest.raises(NotFoundError, match=r"no row with this customer: c3"):
        here.feedback({"c3": "virginica"})
    early = {"customer": "c250", "outcome": "setosa", "outcome_time": "2020-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(early))
    with pytest.raises(NotFoundError, match=r"no batch was published before .* c250"):
        here.take(path)
    with pytest.raises(ProjectError, match="before its prediction"):
        here.take(path, run=run)


def test_a_key_that_two_rows_have_is_refused(here: Judged) -> None:
    here.write("b.parquet", 10, customer=[f"c{row}" for row in range(10)])
    here.compare("shadow")
    with pytest.raises(ProjectError, match=r"customer c3 is in two rows of the batch"):
        here.feedback(of(range(3, 5)))
    assert here.feedback(of(range(20, 25))).new == 5, "keys of one row"


@pytest.mark.parametrize(
    ("values", "given", "match"),
    [
        ([number + 0.5 for number in range(ROWS)], "7.5", "has type double"),
        (list(range(ROWS)), "7", ""),
        ([None, *range(1, ROWS)], "7", ""),
    ],
)
def test_a_key_is_text_or_whole_numbers(
    here: Judged, values: list[Any], given: str, match: str
) -> None:
    here.write("a.parquet", ROWS, customer=values)
    here.compare("shadow")
    if match:
        with pytest.raises(ProjectError, match=match):
            here.feedback({given: "setosa"})
    else:
        assert here.feedback({given: "setosa"}).new == 1


def test_a_run_without_the_column_is_refused(here: Judged) -> None:
    here.configure(keep=())
    here.compare("shadow")
    with pytest.raises(ProjectError, match="have no column customer: it keeps none"):
        here.feedback({"c1": "setosa"})


def test_an_output_that_was_changed_or_removed_decides_nothing(here: Judged) -> None:
    result = here.compare("shadow")
    here.feedback(of(range(100)))
    assert result.shadow is not None
    for folder in (result.published.folder, result.shadow.folder):
        part = min(Path(folder).glob("part-*"))
        content = part.read_bytes()
        rows = pq.read_table(part)
        pq.write_table(rows.slice(0, rows.num_rows - 1), part)
        with pytest.raises(IntegrityError, match=f"{part} was changed since it was published"):
            here.evaluate()
        if folder == result.published.folder:
            with pytest.raises(IntegrityError, match="was changed"):
                here.feedback(of(range(10)))
        part.unlink()
        with pytest.raises(NotFoundError, match=f"{part} is gone"):
            here.evaluate()
        part.write_bytes(content)
    assert here.evaluate()[0].evidence.verdict == "passed"
    Path(result.shadow.folder).rename(here.root / "elsewhere")
    record, facts = here.evaluate()
    assert record.evidence.verdict == "undecided"
    assert f"{result.shadow.folder} are gone and do not count" in facts.reason
    Path(result.published.folder).rename(here.root / "away")
    with pytest.raises(NotFoundError, match="are gone"):
        here.feedback(of(range(10)))


def test_runs_of_one_release_and_those_before_the_challenger_compare_nothing(
    here: Judged,
) -> None:
    here.run()
    here.feedback(of(range(100)))
    record, facts = here.evaluate()
    assert (record.evidence.verdict, facts.outcomes) == ("undecided", 0)
    assert facts.reason.startswith("no outcomes for the champion yet")
    here.compare("shadow")
    assert here.evaluate()[1].challenger_n == 100, "the same rows, which both answered now"


def test_outputs_as_csv_are_read_as_well(tmp_path: Path) -> None:
    here = Judged(tmp_path, format="csv")
    folder = here.compare("shadow").published.folder
    assert here.feedback(of(range(100))).new == 100
    rows = [row for part in Path(folder).glob("part-*") for row in pacsv.read_csv(part).to_pylist()]
    [known] = [row["id"] for row in rows if row["customer"] == "c7"]
    assert here.feedback({known: "virginica"}, "").known == 1
    assert here.evaluate()[1].challenger_mean == 1.0


def test_one_outcome_is_given_by_hand(here: Judged) -> None:
    here.compare("shadow")
    one = [Received("c17", "setosa")]
    key = Key("customer")
    assert feedback(here.world.pipeline, one, batching=here.ports, key=key).new == 1


@pytest.fixture(params=["memory://bucket15/scores", "delta+scores"])
def elsewhere(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Judged]:
    """A contest whose outputs go to a URL or a table."""
    yield Judged(tmp_path, output=request.param)
    store = fsspec.filesystem("memory")
    if store.exists("/bucket15"):
        store.rm("/bucket15", recursive=True)


def published(here: Judged) -> list[dict[str, Any]]:
    """Return what readers of the output get."""
    output = here.world.pipeline.config.batch.output
    assert output is not None
    if output.startswith("delta+"):
        table: Any = deltalake.DeltaTable(here.root / "scores").to_pyarrow_table()
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    store = fsspec.filesystem("memory")
    found = []
    for name in store.glob("/bucket15/scores/*/run-*/part-*"):
        with store.open(name) as file:
            found += pq.read_table(file).to_pylist()
    return found


def test_a_shadow_of_outputs_elsewhere_is_apart_from_them(elsewhere: Judged) -> None:
    here = elsewhere
    result = here.compare("shadow")
    assert result.shadow is not None
    assert result.shadow.record.evidence.verdict == "passed"
    rows = published(here)
    assert len(rows) == ROWS
    assert rows[0]["species"] == "setosa"
    assert not here.compare("shadow").is_new
    found = trace(here.world.pipeline, rows[0]["id"], batching=here.ports)
    assert found.shadow is not None
    assert found.shadow.outputs["species"] == "virginica"
    assert here.feedback(of(range(200))).new == 200
    record, facts = here.evaluate()
    assert (record.evidence.verdict, facts.champion_n, facts.challenger_n) == ("passed", 200, 200)


def test_a_split_of_outputs_elsewhere_is_published_as_one(elsewhere: Judged) -> None:
    here = elsewhere
    here.compare("split")
    assert not here.compare("split").is_new
    rows = published(here)
    assert len(rows) == ROWS
    ids = {"champion": here.release, "challenger": here.challenger}
    assert {row["side"] for row in rows} == set(ids)
    for row in rows:
        assert row["release"] == str(ids[row["side"]])
        assert row.get("mlship_release", ids[row["side"]].id) == ids[row["side"]].id
    here.feedback(of(range(ROWS)))
    _, facts = here.evaluate()
    assert facts.champion_n == [row["side"] for row in rows].count("champion")
    assert facts.challenger_n == [row["side"] for row in rows].count("challenger")


def test_a_batch_that_is_killed_around_its_publication_ends_as_an_undisturbed_one(
    here: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the outputs of both releases and their records, whatever arrives in between."""
    real = Pipeline.learn
    for kill_at in range(2):  # the record of the champion, then that of the shadow
        here.lake("a.parquet", rows=ROWS + kill_at + 1)
        left = kill_at

        def learn(pipeline: Pipeline, *arguments: Any, **options: Any) -> Record:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            return real(pipeline, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Pipeline, "learn", learn)
            with pytest.raises(KilledError):
                here.compare("shadow")
        if kill_at == 0:
            with pytest.raises(NotFoundError, match=r"no published batch|no batch|no row"):
                here.feedback(of(range(10)))
        else:
            assert here.feedback({"c7": "virginica"}).new == 1
            assert here.evaluate()[1].challenger_n in (0, None)
        result = here.compare("shadow")
        records = [
            each.evidence.release.name
            for each in here.world.ledger.records()
            if each.evidence.step == "batch"
        ]
        assert len(records) == 2 * (kill_at + 1), "each record once"
        assert not here.compare("shadow").is_new
        assert len(pq.read_table(result.published.folder)) == ROWS + kill_at + 1
    assert here.feedback(of(range(100))) == Taken(new=99, known=1)
    assert here.evaluate()[1].challenger_n == 100


def test_two_batches_do_not_take_the_outcomes_of_each_other(here: Judged) -> None:
    first = here.compare("shadow").published
    here.world.clock.now += timedelta(hours=1)
    here.write("a.parquet", ROWS, customer=[f"d{row}" for row in range(ROWS)])
    here.compare("shadow")
    assert here.feedback({f"d{number}": "virginica" for number in range(60)}).new == 60
    with pytest.raises(NotFoundError, match="no row with this customer"):
        here.feedback(of(range(60)))
    assert here.feedback(of(range(60)), run=Path(first.folder).name[4:]).new == 60
    assert here.evaluate()[1].challenger_n == 120
