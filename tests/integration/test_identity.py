"""A job without a secret, on the command line: its key, its bundle, and who counts its records."""

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.keys import Keys
from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Record
from tests.harness import commands
from tests.harness.samples import record, release
from tests.harness.sigstore import CLAIMS, Authority, statement

PROJECT = """
name: iris
home: github.com/ada/iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
ledger: {kind: directory, uri: FOLDER}
store: {kind: directory}
trust:
  root: roots.jsonl
  signers:
    ops: {key: "KEY"}
    main:
      workflow: ada/iris/.github/workflows/main.yml
      ref: refs/heads/main
      environment: production
"""
SIGN = ("ledger", "sign", "--yes")
NOW = datetime.now(UTC).replace(microsecond=0)


class Place:
    """A project, a job of its workflow and the laptop of somebody, who share a ledger."""

    def __init__(self, folder: Path) -> None:
        self.root, self.temporary = folder / "iris", folder / "temp"
        self.ledger = folder / "ledger"
        for each in (self.root, self.temporary, folder / "job", folder / "laptop"):
            each.mkdir()
        usual = {**os.environ, "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""}
        self.job = {**usual, "HOME": str(folder / "job"), "RUNNER_TEMP": str(self.temporary)}
        self.laptop = {**usual, "HOME": str(folder / "laptop")}
        self.laptop.pop("RUNNER_TEMP", None)
        self.sigstore = Authority(until=NOW + timedelta(days=1))
        (self.root / "roots.jsonl").write_bytes(self.sigstore.root())
        ops = Keys("other", self.laptop).new()
        (self.root / "mlship.yaml").write_text(
            PROJECT.replace("KEY", ops.public).replace("FOLDER", str(self.ledger))
        )
        self.write(ops)
        self.write()

    def write(self, by: Signing | None = None) -> None:
        """Append a record, signed by somebody or by nobody."""
        made = record(release(), "train").evidence
        home = msgspec.structs.replace(made, home="github.com/ada/iris")
        DirectoryLedger(self.ledger, by).append(home)

    def run(self, where: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        return commands.run(*words, folder=self.root, environment=where)

    def records(self) -> list[Record]:
        return list(DirectoryLedger(self.ledger).records())

    def attested(self, outputs: Path, **more: str) -> Path:
        """Return the bundle that a step with `actions/attest` writes in this job."""
        text = outputs.read_text().splitlines()
        values = {text[place].split("<<")[0]: text[place + 1] for place in range(0, len(text), 3)}
        said = statement(Path(values["predicate"]).read_bytes(), values["digest"])
        claims = {**CLAIMS, **{int(number[1:]): value for number, value in more.items()}}
        path = self.temporary / "attestation.json"
        path.write_text(json.dumps(self.sigstore.bundle(said, claims, time=NOW)))
        return path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_a_job_records_without_a_secret_counts_elsewhere(place: Place, tmp_path: Path) -> None:
    refused = place.run(place.job, *SIGN)
    assert refused.returncode == 2
    assert "this machine has no key" in refused.stderr

    outputs = tmp_path / "outputs"
    done = place.run({**place.job, "GITHUB_OUTPUT": str(outputs)}, "keys", "session")
    assert done.returncode == 0, done.stderr
    assert place.run(place.job, *SIGN).returncode == 2, "it signs before it is attested"
    bundle = place.attested(outputs)
    done = place.run(place.job, "keys", "session", "--bundle", str(bundle))
    assert done.returncode == 0, done.stderr
    assert "records of this job are signed as main" in done.stdout
    for _ in range(2):
        done = place.run(place.job, *SIGN)
        assert done.returncode == 0, done.stderr
        place.write()

    # The last record came after the job took over those before it.
    assert len(place.records()) == 6
    done = place.run(place.laptop, "ledger", "verify")
    assert "5 records count" in done.stdout
    assert "2 signed by main" in done.stdout
    carried = [each for each in place.records() if each.evidence.identity]
    assert len(carried) == 1

    checkpoint = tmp_path / "checkpoint.json"
    checkpoint.write_text(place.run(place.job, "ledger", "checkpoint").stdout)
    place.run(place.job, *SIGN)
    done = place.run(place.laptop, "ledger", "verify", "--checkpoint", str(checkpoint))
    assert done.returncode == 0, done.stderr


def test_without_the_roots_nobody_is_believed(place: Place, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    place.run({**place.job, "GITHUB_OUTPUT": str(outputs)}, "keys", "session")
    bundle = place.attested(outputs)
    place.run(place.job, "keys", "session", "--bundle", str(bundle))
    assert place.run(place.job, *SIGN).returncode == 0
    (place.root / "roots.jsonl").write_bytes(Authority().root())
    done = place.run(place.laptop, "ledger", "verify")
    assert done.returncode == 7
    assert "the bundle of its key is refused" in done.stdout
    (place.root / "roots.jsonl").unlink()
    done = place.run(place.laptop, "ledger", "verify")
    assert done.returncode == 2
    assert "gh attestation trusted-root" in done.stderr


def test_a_job_of_another_environment_is_refused_at_once(place: Place, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    place.run({**place.job, "GITHUB_OUTPUT": str(outputs)}, "keys", "session")
    bundle = place.attested(outputs, _23="build")
    done = place.run(place.job, "keys", "session", "--bundle", str(bundle))
    assert done.returncode == 7
    assert "the environment of the job is build, not production (signer main)" in done.stderr
