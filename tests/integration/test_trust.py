"""Whose records count, on the command line: forged ones, old ones, and keys."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.keys import Keys, MachineSigning
from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Step
from tests.harness import commands
from tests.harness.samples import better, record, release

PROJECT = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
ledger: {kind: directory}
store: {kind: directory}
gates: {container: false}
"""
CHAMPION, CHALLENGER = release("a"), release("b")
STEPS: tuple[Step, ...] = ("train", "test", "verify-staging-workload", "deploy-production")


class Desk:
    """A project on a machine: commands are typed there, and somebody writes to its ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "iris"
        self.folder.mkdir()
        self.environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": ""}
        self.here = MachineSigning(Keys("iris", self.environment))
        (self.folder / "mlship.yaml").write_text(PROJECT)

    @property
    def ledger(self) -> Path:
        return self.folder / ".mlship" / "ledger"

    def write(
        self, step: Step, signer: Signing | None, about: Any = CHALLENGER, **facts: Any
    ) -> None:
        """Append a record, signed by somebody or by nobody."""
        at = timedelta(seconds=len(DirectoryLedger(self.ledger).records()))
        made = record(about, step, facts=facts, after=at).evidence
        DirectoryLedger(self.ledger, signer).append(made)

    def duel(self, signer: Signing | None) -> None:
        """Write that a champion and a challenger run in production."""
        for about in (CHAMPION, CHALLENGER):
            for step in STEPS:
                role = "champion" if about == CHAMPION else "challenger"
                facts = {"role": role, "weight": 10} if step == "deploy-production" else {}
                self.write(step, signer, about, **facts)

    def mlship(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment: Mapping[str, str] = {**self.environment, **more}
        return commands.run(*arguments, folder=self.folder, environment=environment)

    def said(self, *arguments: str, **more: str) -> dict[str, Any]:
        """Return what a command printed as JSON."""
        done = self.mlship("--json", *arguments, **more)
        found: dict[str, Any] = msgspec.json.decode(done.stdout)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_forged_records_promote_nothing(desk: Desk) -> None:
    desk.duel(desk.here)
    stranger = MachineSigning(Keys("iris", {"HOME": str(desk.folder)}))
    forged = msgspec.to_builtins(better(500))
    desk.write("evaluate", None, **forged)
    desk.write("evaluate", stranger, **forged)
    desk.write("approve", None, by="grace@example.org")
    desk.write("approve", stranger, by="heidi@example.org")
    done = desk.mlship("promote", "challenger")
    assert done.returncode == 3
    assert "evaluate: never run" in done.stderr
    assert "0 of 1 approvals" in done.stderr
    found = desk.said("status")
    assert [each["step"] for each in found["untrusted"]] == ["evaluate"] * 2 + ["approve"] * 2
    assert found["untrusted"][0]["reason"] == "it is not signed"
    assert "which `trust` does not name" in found["untrusted"][1]["reason"]
    assert "4 records do not count" in desk.mlship("status").stdout


def test_the_same_records_promote_where_signatures_are_not_asked_for(desk: Desk) -> None:
    """The control: what keeps forged records from counting is their signatures."""
    desk.duel(desk.here)
    forged = msgspec.to_builtins(better(500))
    evaluated = {**forged, "champion": str(CHAMPION)}
    desk.write("evaluate", None, **evaluated)
    desk.write("approve", None, by="grace@example.org")
    done = desk.mlship("promote", "challenger", "--set", "trust.unsigned=true")
    assert "evaluate: never run" not in done.stderr
    assert "0 of 1 approvals" not in done.stderr


def test_a_forged_promotion_changes_no_role(desk: Desk) -> None:
    desk.duel(desk.here)
    desk.write("promote", None, **{"from": str(CHAMPION), "to": str(CHALLENGER)})
    roles = {each["release"]: each["role"] for each in desk.said("status")["releases"]}
    assert roles == {str(CHAMPION): "champion", str(CHALLENGER): "challenger"}


def test_a_ledger_of_a_former_version_is_taken_over_once(desk: Desk) -> None:
    desk.duel(None)
    done = desk.mlship("report", str(CHALLENGER))
    assert done.returncode == 7
    assert "none of its 8 records counts; it is not signed" in done.stderr
    assert "mlship ledger sign" in done.stderr
    assert desk.mlship("ledger", "verify").returncode == 7
    asked = desk.mlship("ledger", "sign")
    assert asked.returncode == 2
    assert "8 records would be taken over" in asked.stderr
    assert desk.said("ledger", "verify")["records"] == 0
    assert desk.mlship("ledger", "sign", "--yes").returncode == 0
    assert desk.mlship("report", str(CHALLENGER)).returncode == 0
    found = desk.said("ledger", "verify")
    assert (found["records"], found["unsigned"], found["untrusted"]) == (9, 8, [])
    again = desk.mlship("ledger", "sign", "--yes")
    assert again.returncode == 5
    assert "nothing to take over" in again.stderr
    desk.write("approve", None, by="grace@example.org")
    assert desk.mlship("ledger", "verify").returncode == 7


def test_a_build_job_can_neither_approve_nor_deploy(desk: Desk) -> None:
    shared = desk.folder.parent / "shared"
    build = desk.said("keys", "new")
    signers = f"{{ci: {{key: '{build['public']}', may: [build, staging]}}}}"
    own = PROJECT.replace("ledger: {kind: directory}", f"ledger: {{uri: {shared}}}")
    (desk.folder / "mlship.yaml").write_text(f"{own}trust: {{signers: {signers}}}\n")
    key = Keys("iris", desk.environment).own()
    assert key is not None
    DirectoryLedger(shared, key).append(record(CHALLENGER, "train").evidence)
    done = desk.mlship("approve", str(CHALLENGER), "--by", "grace@example.org")
    assert done.returncode == 2
    assert "signer ci may not say approve" in done.stderr
    assert len(DirectoryLedger(shared).records()) == 1
    assert desk.said("keys", "show")["trusted"] == ["ci"]


def test_a_shared_ledger_whose_signers_are_named_takes_nothing_from_a_machine_without_a_key(
    desk: Desk,
) -> None:
    shared = desk.folder.parent / "shared"
    own = PROJECT.replace("ledger: {kind: directory}", f"ledger: {{uri: {shared}}}")
    key = Keys("iris", {"HOME": str(desk.folder)}).new()
    signers = f"{{ci: {{key: '{key.public}'}}}}"
    named = f"{own}trust: {{names: true, signers: {signers}}}\n"
    (desk.folder / "mlship.yaml").write_text(named)
    DirectoryLedger(shared, key).append(record(CHALLENGER, "train").evidence)
    done = desk.mlship("approve", str(CHALLENGER), "--by", "grace@example.org")
    assert done.returncode == 2
    assert "there is no key here" in done.stderr
    assert "MLSHIP_SIGNING_KEY" in done.stderr
    pem = Keys("iris", {"HOME": str(desk.folder)}).project.read_text()
    done = desk.mlship(
        "approve", str(CHALLENGER), "--by", "grace@example.org", MLSHIP_SIGNING_KEY=pem
    )
    assert done.returncode == 0, done.stderr
    assert desk.said("ledger", "verify")["signed"] == {"ci": 2}


def test_a_key_that_cannot_be_read_is_named(desk: Desk) -> None:
    desk.write("train", desk.here)
    done = desk.mlship("approve", str(CHALLENGER), "--by", "g", MLSHIP_SIGNING_KEY="secret")
    assert done.returncode == 2
    assert "MLSHIP_SIGNING_KEY has no private key in PEM" in done.stderr
    assert "secret" not in done.stderr.replace("MLSHIP_SIGNING_KEY", "")
    Keys("iris", desk.environment).machine.chmod(0o640)
    done = desk.mlship("approve", str(CHALLENGER), "--by", "grace@example.org")
    assert done.returncode == 2
    assert "other users of this machine may read" in done.stderr


def test_first_use_needs_no_ceremony(desk: Desk) -> None:
    """The first record makes the machine's key, and the ledger trusts it."""
    assert desk.said("status")["untrusted"] == []
    desk.write("train", desk.here)
    assert desk.said("ledger", "verify")["signed"] == {"this machine": 1}


def test_newest_records_that_were_removed_are_missed_by_the_machine_that_saw_them(
    desk: Desk,
) -> None:
    desk.duel(desk.here)
    assert desk.mlship("ledger", "verify").returncode == 0
    removed = newest(desk)
    removed.unlink()
    for command in (("status",), ("report", str(CHALLENGER)), ("promote", "challenger")):
        done = desk.mlship(*command)
        assert done.returncode == 7
        assert f"this machine has seen {removed.name[:12]}" in done.stderr
    assert desk.mlship("ledger", "verify", "--forget").returncode == 0
    assert desk.mlship("report", str(CHALLENGER)).returncode == 0


def test_a_ledger_that_goes_on_from_an_older_record_is_missed(desk: Desk) -> None:
    desk.duel(desk.here)
    assert desk.mlship("ledger", "verify").returncode == 0
    newest(desk).unlink()
    desk.write("train", desk.here)
    assert "were removed" in desk.mlship("status").stderr


def test_who_deletes_a_ledger_of_their_own_begins_anew(desk: Desk) -> None:
    desk.duel(desk.here)
    assert desk.mlship("ledger", "verify").returncode == 0
    shutil.rmtree(desk.folder / ".mlship")
    assert desk.mlship("status").returncode == 0
    desk.write("train", desk.here)
    assert desk.said("ledger", "verify")["records"] == 1


def test_a_checkpoint_tells_another_machine_what_is_gone(desk: Desk, tmp_path: Path) -> None:
    desk.duel(desk.here)
    kept = tmp_path / "checkpoint.json"
    kept.write_text(desk.mlship("ledger", "checkpoint").stdout)
    given = ("ledger", "verify", "--checkpoint", str(kept))
    assert desk.mlship(*given).returncode == 0
    newest(desk).unlink()
    elsewhere = {"XDG_STATE_HOME": str(tmp_path / "other machine")}
    assert desk.mlship("ledger", "verify", **elsewhere).returncode == 0
    done = desk.mlship(*given, **elsewhere)
    assert done.returncode == 7
    assert "were removed: a checkpoint of" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"sig":"', '"sig":"AAAA'), "is not one of signer this machine"),
        (lambda text: text.replace("checkpoint", "other"), "not a checkpoint"),
        (lambda text: text[:-9], "not a checkpoint"),
        (lambda _: "", "not a checkpoint"),
        (lambda text: text.replace("sha256:", "sha256:0", 1), "which `trust` does not name"),
    ],
    ids=["signature", "type", "cut off", "empty", "key"],
)
def test_a_checkpoint_that_was_changed_is_not_relied_on(
    desk: Desk, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    desk.duel(desk.here)
    kept = tmp_path / "checkpoint.json"
    kept.write_text(desk.mlship("ledger", "checkpoint").stdout)
    assert desk.mlship("ledger", "verify", "--checkpoint", str(kept)).returncode == 0
    kept.write_text(change(kept.read_text()))
    done = desk.mlship("ledger", "verify", "--checkpoint", str(kept))
    assert done.returncode == 7
    assert message in done.stderr


def test_a_checkpoint_of_another_project_is_refused(desk: Desk, tmp_path: Path) -> None:
    desk.duel(desk.here)
    kept = tmp_path / "checkpoint.json"
    kept.write_text(desk.mlship("ledger", "checkpoint", "--set", "home=a//b").stdout)
    done = desk.mlship("ledger", "verify", "--checkpoint", str(kept))
    assert done.returncode == 7
    assert "the checkpoint is of project" in done.stderr


def newest(desk: Desk) -> Path:
    """Return the file of the last record."""
    last = DirectoryLedger(desk.ledger).records()[-1].digest.removeprefix("sha256:")
    return desk.ledger / last[:2] / f"{last}.json"
