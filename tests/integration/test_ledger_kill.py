"""A ledger's writer killed at any moment: what it had acknowledged is there, and it is readable."""

import random
import subprocess
import sys
import time
from pathlib import Path

from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain.evidence import heads

ROUNDS = 30
WRITER = """
import sys
from pathlib import Path
from mlship.adapters.ledgers.directory import DirectoryLedger
from tests.fakes.store import tiny_evidence

ledger = DirectoryLedger(Path(sys.argv[1]))
number = 0
while True:
    record = ledger.append(tiny_evidence(actor=f"round {sys.argv[2]}, record {number}"))
    print(record.digest, flush=True)
    number += 1
"""


def _acknowledged_before_kill(folder: Path, turn: int, after: float) -> list[str]:
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", WRITER, str(folder), str(turn)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=root) as writer:
        assert writer.stdout
        first = writer.stdout.readline()
        time.sleep(after)
        writer.kill()
        rest = writer.stdout.read()
    return [line for line in (first + rest).split("\n") if len(line) == len("sha256:") + 64]


def test_a_writer_killed_thirty_times_loses_no_acknowledged_record(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: set[str] = set()
    for turn in range(ROUNDS):
        acknowledged.update(_acknowledged_before_kill(tmp_path, turn, chance.uniform(0, 0.03)))
        records = DirectoryLedger(tmp_path).records()
        assert acknowledged <= {record.digest for record in records}
        assert len(records) <= len(acknowledged) + turn + 1
    assert len(heads(records)) == 1
    assert len(acknowledged) > ROUNDS
