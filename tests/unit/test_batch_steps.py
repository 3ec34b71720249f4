"""batch on real files: resumed, published once, refused as a whole."""

import base64
import gzip
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from mlship.config.batch import BatchConfig
from mlship.domain import shapes
from mlship.domain.batch_record import Batched
from mlship.domain.policy import Bound
from mlship.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    ProjectError,
    UnavailableError,
)
from mlship.reports.report import collect
from mlship.steps.batch import Batch, batch
from mlship.steps.batch_trace import find
from mlship.steps.status import status
from mlship.steps.trace import trace
from tests.fakes.batch import InProcessWorkers, KilledError, batching
from tests.harness.batches import Here
from tests.harness.bundles import COLUMNS, SETOSA


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def facts(result: Batch) -> Batched:
    return shapes.of(result.record, Batched)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def test_each_row_is_scored_once_and_the_run_is_published_as_one(here: Here) -> None:
    here.write("a.parquet", key=list(range(25)))
    here.write("b.parquet", key=list(range(100, 125)))
    here.configure(keep=("key",))
    result = here.run()
    assert result.record.evidence.verdict == "passed"
    assert [str(path) for path in here.published] == [result.folder]
    assert not here.hidden
    table = pq.read_table(result.folder)
    assert sorted(table.column("key").to_pylist()) == [*range(25), *range(100, 125)]
    assert len(set(table.column("id").to_pylist())) == 50
    assert set(table.column("species").to_pylist()) == {"setosa"}
    assert (facts(result).rows, facts(result).parts, facts(result).files) == (50, 6, 2)
    footer = pq.read_schema(next(Path(result.folder).glob("part-*"))).metadata
    assert footer[b"mlship.release"].decode() == here.release.id


def test_readers_get_labels_as_texts_and_kept_columns_with_their_types(here: Here) -> None:
    here.write("a.parquet")
    plain = pq.read_table(here.root / "lake" / "a.parquet")
    place = pa.array([f"p{number % 3}" for number in range(len(plain))]).dictionary_encode()
    when = pa.array(
        [number * 1000 for number in range(len(plain))], pa.timestamp("ms", "Europe/Wien")
    )
    table = plain.append_column("place", place).append_column("time", when)
    pq.write_table(table, here.root / "lake" / "a.parquet")
    here.configure(keep=("place", "time"))
    written = pq.read_table(here.run().folder)
    assert written.schema.field("species").type == pa.string()
    assert written.schema.field("place").type == place.type
    assert written.schema.field("time").type == when.type
    assert written.column("place").to_pylist() == place.to_pylist()


def test_each_row_of_a_part_of_several_row_groups_is_traced(here: Here) -> None:
    path = here.write("a.parquet", group=4, key=list(range(25)))
    here.configure(keep=("key",))
    written = pq.read_table(path).to_pylist()
    result = here.run()
    assert facts(result).parts == 3
    for row in pq.read_table(result.folder).to_pylist():
        original = written[row["key"]]
        found = trace(here.world.pipeline, row["id"], batching=here.ports).prediction
        assert found.inputs == {name: original[name] for name in COLUMNS}


def test_a_second_run_writes_nothing(here: Here) -> None:
    here.write("a.parquet")
    first = here.run()
    before = {path: path.stat().st_mtime_ns for path in here.root.rglob("scores/**/*")}
    here.workers.asked.clear()
    second = here.run()
    assert not second.is_new
    assert second.record == first.record
    assert not here.workers.asked
    assert {path: path.stat().st_mtime_ns for path in here.root.rglob("scores/**/*")} == before
    assert sum(each.evidence.step == "batch" for each in here.world.ledger.records()) == 1


def test_another_release_writes_beside(here: Here) -> None:
    here.write("a.parquet")
    first = content(Path(here.run().folder))
    here.release = msgspec.structs.replace(here.release, params=here.release.bundle)
    second = here.run()
    assert len(here.published) == 2
    assert content(here.published[0]) != content(here.published[1])
    assert first in [content(path) for path in here.published]
    assert second.is_new


@pytest.mark.parametrize("place", range(3))
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(here: Here, place: int) -> None:
    here.write("a.parquet")
    wanted = content(Path(here.run().folder))
    here.published[0].rename(here.root / "elsewhere")
    here.workers.asked.clear()
    here.workers.kill_at = place
    with pytest.raises(KilledError):
        here.run()
    assert not here.published
    [hidden] = here.hidden
    (hidden / ".part-x.parquet.7.tmp").write_bytes(b"torn")
    with (hidden / "_journal.jsonl").open("ab") as journal:
        journal.write(b'{"name":"40b8')
    here.workers.kill_at = None
    result = here.run()
    assert content(Path(result.folder)) == wanted
    assert not list(Path(result.folder).glob(".*"))
    # The part that was written when the kill came is redone, and no other one.
    assert len(here.workers.scored) == len(wanted) + 1


def test_a_run_that_was_published_before_its_evidence_gets_it(here: Here) -> None:
    here.write("a.parquet")
    published = here.run()
    again = Here(here.root / "other")
    again.root = here.root
    object.__setattr__(again.world.pipeline, "root", here.root)
    again.release = here.release
    result = again.run()
    assert result.folder == published.folder
    assert not again.workers.asked
    assert facts(result).profile == facts(published).profile


def test_two_runs_at_once_do_not_mix(here: Here) -> None:
    here.write("a.parquet")
    other = batching(here.root, InProcessWorkers())

    def compete(_: Any) -> None:
        here.workers.before = lambda _: None
        with pytest.raises(ConflictError, match="another `mlship batch` writes to"):
            batch(here.world.pipeline, other, here.release, here.world.pipeline.read())

    here.workers.before = compete
    assert here.run().record.evidence.verdict == "passed"


def test_a_column_missing_in_file_37_of_50_stops_the_run_before_the_first_row(here: Here) -> None:
    for number in range(50):
        here.write(f"{number:02}.parquet", rows=2)
    broken = here.root / "lake" / "37.parquet"
    pq.write_table(pq.read_table(broken).drop_columns("petal_width"), broken)
    with pytest.raises(ProjectError, match=r"37.parquet has no column petal_width; no row was"):
        here.run()
    assert not here.workers.scored
    assert not (here.root / "scores").exists()


def test_a_column_of_another_type_stops_the_run(here: Here) -> None:
    here.write("a.parquet", petal_width=["wide"] * 25)
    message = "column petal_width has type string, and the model needs numbers"
    with pytest.raises(ProjectError, match=message):
        here.run()


def test_a_truncated_file_stops_the_run(here: Here) -> None:
    here.write("a.parquet")
    path = here.write("b.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ProjectError, match=r"b.parquet is not a complete Parquet file"):
        here.run()
    assert not here.workers.scored


def test_rejected_rows_stop_the_run_and_are_named(here: Here) -> None:
    path = here.write("a.parquet", sepal_width=[1.0] * 12 + [1e9] + [None] + [1.0] * 11)
    result = here.run()
    assert result.record.evidence.verdict == "failed"
    assert not here.published
    [failed] = [check for check in facts(result).checks if not check.holds]
    assert failed.text == "2 rows rejected, at most 0 allowed"
    assert result.reasons[0].startswith(f"{path}, row 2: sepal_width 1000000000.0 is too large")
    assert "1000000000" not in str(result.record.evidence.facts), "no value is in the ledger"
    here.configure(max_rejected=2)
    here.workers.asked.clear()
    passed = here.run()
    assert passed.record.evidence.verdict == "passed"
    assert len(here.workers.scored) == 1, "finished parts are kept"
    lines = [
        json.loads(line)
        for file in Path(passed.folder).glob("_rejected/*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert [(line["row"], line["column"]) for line in lines] == [
        (2, "sepal_width"),
        (3, "sepal_width"),
    ]
    assert lines[0]["values"]["sepal_width"] == 1e9
    assert pq.read_table(passed.folder).num_rows == 23


def test_gates_hold_a_run_back(here: Here) -> None:
    here.write("a.parquet")
    here.configure(gates={"rows": Bound(min=26)})
    result = here.run()
    assert result.record.evidence.verdict == "failed"
    assert result.folder == str(here.hidden[0])
    assert not here.published
    here.configure(gates={"rows": Bound(min=25, max=25)})
    assert here.run().record.evidence.verdict == "passed"
    assert len(here.published) == 1


def test_a_shift_of_the_predictions_holds_a_run_back(here: Here) -> None:
    here.write("a.parquet", rows=400, group=400)
    here.configure(gates={"shift": Bound(max=0.25)})
    first = here.run()
    assert any(
        check.text.endswith("no earlier run to compare with") for check in facts(first).checks
    )
    (here.root / "lake" / "a.parquet").unlink()
    here.write("b.parquet", rows=400, group=400, petal_length=[6.0] * 400)
    second = here.run()
    assert second.record.evidence.verdict == "failed"
    assert [check.name for check in facts(second).checks if not check.holds] == ["shift"]


def test_the_same_predictions_have_no_shift(here: Here) -> None:
    here.write("a.parquet", rows=400, group=400)
    here.configure(gates={"shift": Bound(max=0.1)})
    here.run()
    here.write("a.parquet", rows=401, group=401)
    assert here.run().record.evidence.verdict == "passed"


def test_an_input_that_changes_meanwhile_stops_the_run(here: Here) -> None:
    path = here.write("a.parquet")

    def change(_: Any) -> None:
        here.workers.before = lambda _: None
        here.write("a.parquet", rows=26)

    here.workers.before = change
    with pytest.raises(IntegrityError, match=f"{path} was changed while the batch was running"):
        here.run()
    assert not here.published


def test_digests_are_remembered(here: Here) -> None:
    here.write("a.parquet")
    here.write("b.parquet")
    here.run()
    here.workers.asked.clear()
    here.write("b.parquet", rows=26)
    here.run()
    assert [type(each).__name__ for each in here.workers.asked].count("Inspect") == 1


def test_names_follow_from_bytes_and_not_from_places(here: Here) -> None:
    path = here.write("a.parquet")
    names = set(content(Path(here.run().folder)))
    path.rename(here.root / "lake" / "renamed.parquet")
    assert not here.run().is_new, "the same rows are the same run"
    here.configure(output="other")
    assert set(content(Path(here.run().folder))) == names


def test_two_files_of_the_same_bytes_are_both_scored(here: Here) -> None:
    here.write("a.parquet")
    here.write("b.parquet")
    table = pq.read_table(here.run().folder)
    assert len(set(table.column("id").to_pylist())) == 50


CSV = "sepal_length,sepal_width,petal_length,petal_width,key\n"


def test_csv_and_json_lines_are_read_in_parts(here: Here) -> None:
    lake = here.root / "lake"
    lake.mkdir()
    lines = [f'5.1,3.5,1.4,0.2,"k{number}\n"\n' for number in range(60_000)]
    (lake / "a.csv").write_text(CSV + "".join(lines))
    (lake / "b.csv.gz").write_bytes(gzip.compress((CSV + "5.1,3.5,1.4,0.2,zipped\n").encode()))
    row = json.dumps({**SETOSA, "key": "j"})
    (lake / "c.jsonl").write_text(f"{row}\n\n" * 15_000)
    (lake / "_hidden.csv").write_text("nothing")
    here.configure(keep=("key",), part_mb=1)
    result = here.run()
    table = pq.read_table(result.folder)
    keys = sorted(table.column("key").to_pylist())
    wanted = [f"k{number}\n" for number in range(60_000)] + ["zipped"] + ["j"] * 15_000
    assert keys == sorted(wanted)
    assert facts(result).parts == 2 + 1 + 2
    assert len(set(table.column("id").to_pylist())) == 75_001


def test_a_line_with_too_many_fields_is_rejected(here: Here) -> None:
    lake = here.root / "lake"
    lake.mkdir()
    (lake / "a.csv").write_text(CSV + "5.1,3.5,1.4,0.2,a\n5.1,3.5,1.4,0.2,a,b\n5.1,x,1.4,0.2,c\n")
    here.configure(max_rejected=2)
    result = here.run()
    assert facts(result).rejected == 2
    assert any("the line has 6 fields, and the header 5" in reason for reason in result.reasons)
    assert any('sepal_width must be a number, not "x"' in reason for reason in result.reasons)
    assert pq.read_table(result.folder).num_rows == 1


def test_outputs_may_be_csv(here: Here) -> None:
    here.write("a.parquet")
    here.configure(format="csv")
    result = here.run()
    [first, *_] = sorted(Path(result.folder).glob("part-*.csv"))
    lines = first.read_text().splitlines()
    assert lines[0].startswith('"id","species","probability_setosa"')
    assert (
        trace(here.world.pipeline, lines[1].split('"')[1], batching=here.ports).prediction.outputs[
            "species"
        ]
        == "setosa"
    )


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_each_row_leads_back_to_its_release_and_its_input(here: Here, form: str) -> None:
    path = here.write("a.parquet")
    table = pq.read_table(path).to_pylist()
    if form != "parquet":
        path.unlink()
        other = path.with_name(f"a.{form}")
        lines = [json.dumps(row) for row in table]
        if form == "csv":
            lines = [",".join(table[0]), *(",".join(map(str, row.values())) for row in table)]
        other.write_text("\n".join(lines) + "\n")
    result = here.run()
    for scored in pq.read_table(result.folder).to_pylist():
        records = here.world.pipeline.read()
        [found] = find(here.world.pipeline, here.ports, records, scored["id"])
        assert found.release == here.release.id
        assert {"id": found.id, **found.outputs} == scored
        assert found.inputs in table


def test_a_row_of_a_changed_input_is_not_traced(here: Here) -> None:
    path = here.write("a.parquet")
    result = here.run()
    own = pq.read_table(result.folder).column("id").to_pylist()[0]
    os.utime(path, (1, 1))
    assert trace(here.world.pipeline, own, batching=here.ports).prediction.id == own
    here.write("a.parquet", rows=26)
    with pytest.raises(IntegrityError, match="was changed since the batch"):
        trace(here.world.pipeline, own, batching=here.ports)


def test_a_row_of_a_changed_output_is_not_traced(here: Here) -> None:
    here.write("a.parquet")
    part = next(Path(here.run().folder).glob("part-*"))
    rows = pq.read_table(part)
    own = rows.column("id").to_pylist()[0]
    pq.write_table(rows.slice(1), part)
    with pytest.raises(IntegrityError, match="was changed since it was published"):
        trace(here.world.pipeline, own, batching=here.ports)
    part.unlink()
    with pytest.raises(NotFoundError, match=r"the output .* is gone") as caught:
        trace(here.world.pipeline, own, batching=here.ports)
    assert "restore it" in caught.value.hint


def test_an_id_that_no_batch_has_is_not_found(here: Here) -> None:
    here.write("a.parquet")
    own = pq.read_table(here.run().folder).column("id").to_pylist()[0]
    with pytest.raises(NotFoundError, match="nor a published batch"):
        trace(here.world.pipeline, "0" * 32 + ".0", batching=here.ports)
    with pytest.raises(NotFoundError, match="the row was rejected, or never was"):
        trace(here.world.pipeline, own.partition(".")[0] + ".999", batching=here.ports)


def test_a_published_part_that_is_gone_is_told(here: Here) -> None:
    here.write("a.parquet")
    result = here.run()
    next(Path(result.folder).glob("part-*")).unlink()
    with pytest.raises(IntegrityError, match="is gone"):
        here.run()


def test_what_is_missing_is_named(here: Here) -> None:
    with pytest.raises(NotFoundError, match="no files to read: lake names none"):
        here.run()
    here.write("a.parquet")
    here.configure(input=None)
    with pytest.raises(ConfigError, match="the batch has no input"):
        here.run()
    here.configure(input="lake", keep=("species",))
    with pytest.raises(ConfigError, match=r"batch.keep: species is the name of an output"):
        here.run()
    here.configure(keep=("nobody",))
    with pytest.raises(ProjectError, match=r"has no column nobody, which batch.keep names"):
        here.run()


def test_an_output_without_permission_is_named(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.write("a.parquet")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    # Root, who may write everywhere, runs the tests in some places.
    monkeypatch.setattr("mlship.adapters.rows.runs.Path.mkdir", refuse)
    here.workers.asked.clear()
    with pytest.raises(UnavailableError, match=r"cannot write to .*scores: Permission denied"):
        here.run()


def test_a_full_disk_leaves_nothing_half_written(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.write("a.parquet")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mlship.runtime.batches.writing.os.fsync", full)
        with pytest.raises(UnavailableError, match=r"No space left on device; nothing"):
            here.run()
    [hidden] = here.hidden
    assert not content(hidden)
    assert not list(hidden.glob(".*"))
    assert here.run().record.evidence.verdict == "passed"


def test_the_settings_of_a_batch_have_defaults() -> None:
    assert BatchConfig().patterns == ()
    assert BatchConfig(input="a").patterns == ("a",)


def test_files_may_be_behind_a_url(here: Here) -> None:
    import fsspec

    path = here.write("a.parquet")
    system = fsspec.filesystem("memory")
    for name in ("/lake/x/a.parquet", "/lake/x/_hidden/b.parquet"):
        system.pipe(name, path.read_bytes())
    system.pipe("/lake/c.csv", (CSV + "5.1,3.5,1.4,0.2,c\n").encode())
    try:
        here.configure(input="memory://lake")
        result = here.run()
        assert pq.read_table(result.folder).num_rows == 26
        assert not here.run().is_new
        here.configure(input="memory://lake/x/*.parquet", output="other")
        other = here.run()
        assert (facts(other).files, facts(other).rows) == (1, 25)
        system.pipe("/lake/x/_delta_log/0.json", b"{}")
        here.configure(input="memory://lake")
        with pytest.raises(ConfigError, match="memory://lake is a Delta table"):
            here.run()
        here.configure(input="memory://nobody/*.parquet")
        with pytest.raises(NotFoundError, match="memory://nobody"):
            here.run()
    finally:
        system.rm("/lake", recursive=True)


def test_a_url_without_a_driver_is_named(here: Here) -> None:
    here.configure(input="nothing://lake")
    with pytest.raises(ConfigError, match="nothing://lake cannot be read"):
        here.run()


def test_status_and_report_show_the_last_batch(here: Here) -> None:
    here.write("a.parquet")
    assert status(here.world.pipeline).batch is None
    result = here.run()
    last = status(here.world.pipeline).batch
    assert last is not None
    assert (last.release, last.rows, last.output) == (str(here.release), 25, result.folder)
    report = collect(here.release, here.world.pipeline.read())
    [gate] = [gate for gate in report.gates if gate.name == "batch"]
    assert gate.verdict == "passed"
    assert "ok: 0 rows rejected, at most 0 allowed" in gate.reasons


def test_a_delta_table_is_its_current_version(here: Here) -> None:
    import deltalake

    place = here.root / "lake" / "table"
    rows = pq.read_table(here.write("old.parquet"))
    (here.root / "lake" / "old.parquet").unlink()
    deltalake.write_deltalake(str(place), rows)
    deltalake.write_deltalake(str(place), rows.slice(0, 7), mode="overwrite")
    assert len(list(place.glob("*.parquet"))) == 2, "the former file is still there"
    here.configure(input="lake/table")
    result = here.run()
    assert (facts(result).files, facts(result).rows) == (1, 7)
    here.configure(input=f"delta+{place}")
    assert not here.run().is_new
    here.configure(input="delta+nowhere")
    with pytest.raises(NotFoundError, match="there is no Delta table"):
        here.run()


def test_a_folder_above_a_delta_table_is_not_read_as_files(here: Here) -> None:
    import deltalake

    rows = pq.read_table(here.write("old.parquet"))
    deltalake.write_deltalake(str(here.root / "lake" / "table"), rows)
    with pytest.raises(ConfigError, match="table is a Delta table"):
        here.run()


def test_an_iceberg_table_is_refused(here: Here) -> None:
    here.write("data/a.parquet")
    (here.root / "lake" / "metadata").mkdir()
    (here.root / "lake" / "metadata" / "1.metadata.json").write_text("{}")
    with pytest.raises(ConfigError, match="is an Iceberg table"):
        here.run()


def test_a_quote_that_is_not_closed_takes_no_rows_with_it(here: Here) -> None:
    lake = here.root / "lake"
    lake.mkdir()
    line = "5.1,3.5,1.4,0.2,k\n"
    (lake / "a.csv").write_text(CSV + line * 9 + '5.1,3.5,1.4,0.2,"5 inch\n' + line * 9)
    with pytest.raises(ProjectError, match=r"a\.csv ends within quotes"):
        here.run()
    (lake / "a.csv").unlink()
    zipped = CSV + line + '5.1,3.5,1.4,"0.2"9,k\n' + line
    (lake / "a.csv.gz").write_bytes(gzip.compress(zipped.encode()))
    with pytest.raises(ProjectError, match="a quote within a field"):
        here.run()
    assert not here.published


def test_a_file_is_scored_once_whatever_leads_to_it(here: Here) -> None:
    path = here.write("sub/a.parquet", rows=10)
    (here.root / "lake/link.parquet").symlink_to(path)
    (here.root / "lake/again").symlink_to(path.parent)
    (here.root / "lake/sub/loop").symlink_to(here.root / "lake")
    here.configure(input=("lake", "lake/sub/../sub/a.parquet", "lake/**/*.parquet"))
    assert facts(here.run()).rows == 10
    (here.root / "lake/broken.parquet").symlink_to(here.root / "nowhere")
    with pytest.raises(NotFoundError, match=r"broken\.parquet is a link"):
        here.run()


@pytest.mark.parametrize("is_url", [False, True])
@pytest.mark.parametrize("name", ["b.csv.bz2", "b.parquet.gz", "sub/b.orc", "B.AVRO"])
def test_rows_in_a_format_that_is_not_read_are_not_left_out(
    here: Here, name: str, *, is_url: bool
) -> None:
    here.write("a.parquet")
    for other in ("README.txt", "_SUCCESS", ".b.orc.crc", "_old/c.orc", name):
        path = here.root / "lake" / other
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    here.configure(input=f"file://{here.root}/lake" if is_url else "lake")
    with pytest.raises(ConfigError, match=rf"{name} has a format that a batch does not read"):
        here.run()
    here.configure(input="lake/**/*.parquet")
    assert facts(here.run()).rows == 25


def test_what_is_no_regular_file_is_not_waited_for(here: Here) -> None:
    here.write("a.parquet")
    os.mkfifo(here.root / "lake/b.parquet")
    with pytest.raises(ConfigError, match=r"b\.parquet is not a regular file"):
        here.run()


class Keys(encryption.KmsClient):  # type: ignore[misc]
    """A key service that hides nothing."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        assert master_key_identifier
        return base64.b64encode(key_bytes)


@pytest.mark.parametrize("is_readable", [False, True])
def test_an_encrypted_file_is_not_called_damaged(here: Here, *, is_readable: bool) -> None:
    path = here.write("a.parquet")
    rows = pq.read_table(path)
    settings = encryption.EncryptionConfiguration(
        footer_key="key", column_keys={"key": rows.column_names}, plaintext_footer=is_readable
    )
    factory = encryption.CryptoFactory(lambda _: Keys())
    connection = encryption.KmsConnectionConfig()
    properties = factory.file_encryption_properties(connection, settings)
    with pq.ParquetWriter(path, rows.schema, encryption_properties=properties) as writer:
        writer.write_table(rows)
    with pytest.raises(ProjectError, match=r"a\.parquet is encrypted"):
        here.run()
    assert not here.published


def test_a_name_that_no_record_can_have_is_shown(here: Here) -> None:
    path = here.write("a.parquet")
    path.rename(os.fsdecode(os.fsencode(path.parent) + b"/\xff.parquet"))
    with pytest.raises(ConfigError, match=r"xff\.parquet' is not UTF-8"):
        here.run()


@pytest.mark.parametrize("pattern", ["lake", "lake/**/*.parquet"])
def test_outputs_in_the_folder_of_the_inputs_are_no_inputs(here: Here, pattern: str) -> None:
    here.write("a.parquet", rows=10)
    here.configure(input=pattern, output="lake/scores", keep=COLUMNS)
    first = here.run()
    assert facts(first).rows == 10
    here.write("b.parquet", rows=5)
    assert facts(here.run()).rows == 15
    here.configure(input=first.folder)
    assert facts(here.run()).rows == 10


def test_a_run_without_a_prediction_does_not_pass(here: Here) -> None:
    lake = here.root / "lake"
    lake.mkdir()
    (lake / "a.csv").write_text(CSV + "wide,3.5,1.4,0.2,k\n" * 2)
    here.configure(max_rejected=5)
    result = here.run()
    assert result.record.evidence.verdict == "failed"
    assert not here.published


def test_a_file_whose_time_was_set_back_is_another_one(here: Here) -> None:
    path = here.write("a.parquet")
    before = path.stat()

    def replaced(_: Any) -> None:
        with path.open("r+b") as file:
            file.write(b"PAR1")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    here.workers.before = replaced
    with pytest.raises(IntegrityError, match="was changed while the batch was running"):
        here.run()


def test_kept_texts_are_copied_as_they_are(here: Here) -> None:
    lake = here.root / "lake"
    lake.mkdir()
    (lake / "a.csv").write_text(CSV + "".join(f"5.1,3.5,1.4,0.2,{k}\n" for k in ("NA", "null", "")))
    here.configure(keep=("key",))
    assert pq.read_table(here.run().folder).column("key").to_pylist() == ["NA", "null", ""]


def test_rejected_rows_that_are_gone_are_written_again(here: Here) -> None:
    lake = here.root / "lake"
    lake.mkdir()
    (lake / "a.csv").write_text(CSV + "5.1,3.5,1.4,0.2,k\nwide,3.5,1.4,0.2,k\n")
    assert here.run().record.evidence.verdict == "failed"
    [rejected] = here.hidden[0].glob("_rejected/*")
    content = rejected.read_bytes()
    rejected.write_bytes(b"")
    here.configure(max_rejected=1)
    [rejected] = Path(here.run().folder).glob("_rejected/*")
    assert rejected.read_bytes() == content


def test_a_kept_column_without_values_in_a_file_is_read_with_the_others(here: Here) -> None:
    here.configure(keep=("note",))
    for name, note in (("a", None), ("b", "x"), ("c", None)):
        here.write(f"{name}.parquet", rows=5, number=[ord(name)] * 5, note=pa.array([note] * 5))
    run = Path(here.run().folder)
    kinds = {pq.read_schema(part).field("note").type for part in run.glob("part-*")}
    assert kinds == {pa.string()}
    assert pq.read_table(run).column("note").null_count == 10


def test_a_kept_column_that_is_there_twice_is_named(here: Here) -> None:
    path = here.write("a.parquet")
    table = pq.read_table(path)
    key = pa.array(range(len(table)))
    pq.write_table(table.append_column("key", key).append_column("key", key), path)
    here.configure(keep=("key",))
    with pytest.raises(ProjectError, match="has the column key twice"):
        here.run()


MEAN = """
def preprocess(rows):
    return rows - rows.mean()
"""
REVERSED = """
def postprocess(rows):
    return rows.iloc[::-1].reset_index(drop=True)
"""
ALONE = """
def preprocess(rows):
    return rows * 1.0
"""


@pytest.mark.parametrize("hook", [MEAN, REVERSED])
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_an_answer_that_depends_on_its_neighbours_is_refused(
    tmp_path: Path, hook: str, form: str
) -> None:
    name = "preprocess" if "preprocess" in hook else "postprocess"
    here = Here(tmp_path, **{name: hook})
    here.write("a.parquet", rows=9, sepal_width=[0.5 * row for row in range(9)])
    if form == "jsonl":
        rows = pq.read_table(here.root / "lake/a.parquet").to_pylist()
        (here.root / "lake/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (here.root / "lake/a.parquet").unlink()
    with pytest.raises(ProjectError, match="depends on the rows beside it"):
        here.run()
    assert not here.published


def test_a_hook_that_treats_each_row_by_itself_is_accepted(tmp_path: Path) -> None:
    here = Here(tmp_path, preprocess=ALONE)
    here.write("a.parquet")
    assert here.run().record.evidence.verdict == "passed"


def test_rows_are_asked_alone_after_some_that_are_all_refused(tmp_path: Path) -> None:
    here = Here(tmp_path, preprocess=MEAN, max_rejected=60_000)
    lake = here.root / "lake"
    lake.mkdir()
    refused = json.dumps(SETOSA | {"petal_width": "wide"}) + "\n"
    rows = [SETOSA | {"petal_width": 0.5 * row} for row in range(9)]
    (lake / "a.jsonl").write_text(
        refused * 50_000 + "".join(json.dumps(row) + "\n" for row in rows)
    )
    with pytest.raises(ProjectError, match="depends on the rows beside it"):
        here.run()
