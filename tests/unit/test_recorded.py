"""A ledger that an older version wrote is read as before: digests, roles, status and reports."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain import approvals, digests, gates, shapes
from mlship.domain.checks import Check
from mlship.domain.digests import Digest
from mlship.domain.drift import unfinished
from mlship.domain.evidence import STEPS, Evidence, Record, encode, heads, in_order
from mlship.domain.facts import Deployed, Tested
from mlship.domain.history import fold, latest, releases
from mlship.domain.release import Release, find
from mlship.errors import IntegrityError
from mlship.reports import markdown
from mlship.reports.report import collect

FOLDER = Path(__file__).parents[1] / "recorded"
STORED: Mapping[Digest, bytes] = {
    digests.of_bytes(line): line for line in (FOLDER / "ledger.jsonl").read_bytes().splitlines()
}
SAID: dict[str, Any] = msgspec.json.decode((FOLDER / "said.json").read_bytes())


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return in_order(STORED)


def test_every_record_is_read_in_one_whole_chain(records: list[Record]) -> None:
    assert len(records) == len(STORED) == 43
    assert len(heads(records)) == 1
    assert {record.evidence.tool for record in records} == {"0.1.0"}


def test_every_record_is_written_again_to_the_letter(records: list[Record]) -> None:
    assert [encode(record.evidence) for record in records] == [
        STORED[record.digest] for record in records
    ]


def test_an_edit_of_any_record_is_found(records: list[Record]) -> None:
    for record in records:
        edited = {**STORED, record.digest: STORED[record.digest].replace(b"ada@", b"eve@")}
        with pytest.raises(IntegrityError, match=digests.short(record.digest)):
            in_order(edited)


def test_a_removal_of_any_record_but_the_last_is_found(records: list[Record]) -> None:
    for record in records[:-1]:
        rest = {name: data for name, data in STORED.items() if name != record.digest}
        with pytest.raises(IntegrityError, match=f"{digests.short(record.digest)}, which is miss"):
            in_order(rest)


_PLOTS = re.compile(r"<details><summary>Plots</summary>\n\n.*?</details>\n\n", re.DOTALL)
_APPROVAL = re.compile(r"(?<=### Approvals\n\n)(- \S+),")


def test_status_tells_the_same_roles_and_reigns(records: list[Record]) -> None:
    history = fold(records)
    assert [
        {"release": str(release), "commit": release.commit, "role": history.role(release)}
        for release in releases(records)
    ] == SAID["releases"]
    reigns = [
        {"release": str(reign.release), "since": reign.since, "until": reign.until, "by": reign.by}
        for reign in history.reigns
    ]
    assert digests.plain(reigns) == SAID["reigns"]
    assert unfinished(records) == SAID["drift"] == []


@pytest.mark.parametrize("name", SAID["reports"])
def test_reports_are_the_same_to_the_letter(records: list[Record], name: str) -> None:
    report = collect(find(name, releases(records)), records)
    # Pictures were folded, below the rest.
    said, count = _PLOTS.subn("", SAID["reports"][name])
    # That an approval was by a name alone was not said.
    said = _APPROVAL.sub(r"\1 (by name, not verified),", said)
    assert markdown.render(report) == said
    names = [f"plots/{plot}" for plot in (report.tested.plots if report.tested else ())]
    shown = markdown.render(report, pictures={name: name for name in names})
    assert [f"]({name})" in shown for name in names] == [True] * count


def test_reasons_that_were_lines_are_checks(records: list[Record]) -> None:
    tests = [record for record in records if record.evidence.step == "test"]
    assert all("reasons" in record.evidence.facts for record in tests)
    failed = shapes.of(tests[-1], Tested).checks
    assert Check(name="", holds=True, text="30 held-out rows") in failed
    assert Check(name="", holds=False, text="accuracy 0.6, needs at least 0.7") in failed
    deployed = latest(records, "deploy-production")
    assert deployed is not None
    assert [check.holds for check in shapes.of(deployed, Deployed).checks] == [True] * 3


def test_the_facts_of_every_record_are_values_of_its_step(records: list[Record]) -> None:
    for record in records:
        value = shapes.read(record)
        assert type(value) is shapes.SHAPES[record.evidence.step]
        lost = set(record.evidence.facts) - set(msgspec.to_builtins(value))
        assert lost <= {"reasons"}


def test_gates_and_approvals_read_it(records: list[Record]) -> None:
    champion = _champion(records)
    assert gates.for_production(champion, records, "no image").verdict == "passed"
    assert approvals.author(champion, records) == "ada@example.org"
    (approver,) = approvals.approvers(champion, records).names
    assert approver == "grace@example.org (by name, not verified)"
    last = releases(records)[-1]
    assert [check.name for check in gates.for_production(last, records, "no image").failed] == [
        "test",
        "verify-staging-workload",
    ]


def test_a_new_record_is_added_after_it(records: list[Record], tmp_path: Path) -> None:
    for digest, data in STORED.items():
        digits = digest.removeprefix("sha256:")
        (tmp_path / digits[:2]).mkdir(exist_ok=True)
        (tmp_path / digits[:2] / f"{digits}.json").write_bytes(data)
    added = DirectoryLedger(tmp_path).append(
        msgspec.structs.replace(records[-1].evidence, actor="lin@example.org")
    )
    assert added.evidence.parents == (records[-1].digest,)
    assert DirectoryLedger(tmp_path).records()[-1] == added


def test_a_step_of_a_newer_version_is_named_with_what_to_do(records: list[Record]) -> None:
    evidence = records[-1].evidence
    newer: Evidence = msgspec.structs.replace(evidence, step="hand-over", tool="0.9.0")
    data = encode(newer)
    with pytest.raises(IntegrityError, match=r"mlship 0\.9\.0 recorded.*hand-over") as caught:
        in_order({digests.of_bytes(data): data})
    assert caught.value.hint == "update mlship"
    assert "hand-over" not in STEPS


def _champion(records: list[Record]) -> Release:
    champion = fold(records).champion
    assert champion is not None
    return champion
