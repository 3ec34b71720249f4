"""Two concurrent promotions, many times: exactly one succeeds, the other gets a conflict.

Both processes have imported everything and composed the pipeline when a barrier releases them. The
winner exits with 0, the loser with 8, and the ledger has one more promotion. A rollback resets it.

    python benchmarks/race.py --rounds 50
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import resume

from tests.harness.kills import race

CONFLICT = 8


def main() -> None:
    """Race, and count how the rounds ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mlship-race")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--store", choices=[*resume.STORES], default="directory")
    options = parser.parse_args()
    project = resume.prepared(options.folder, options.store)
    ended: Counter[str] = Counter()
    told: Counter[str] = Counter()
    started = time.monotonic()
    try:
        for release in resume.releases(project):
            project.plain("deploy-production", release)
        resume.win(project)
        for number in range(options.rounds):
            before = project.steps()["promote"]
            results = race(project, "promote", "challenger")
            codes = Counter(code for code, _ in results)
            records = project.steps()["promote"] - before
            fair = codes == {0: 1, CONFLICT: 1} and records == 1
            ended["one winner, one conflict, one record" if fair else "other"] += 1
            told.update(reason(said) for code, said in results if code)
            if not fair:
                print(f"round {number + 1}: {dict(codes)}, {records} records, {results}")
            project.plain("rollback")
    finally:
        project.plain("down")
    for reason_given, count in told.most_common():
        print(f"{count:4} losers got: {reason_given}")
    print(f"{options.rounds} rounds in {time.monotonic() - started:.0f} s: {dict(ended)}")
    sys.exit(ended["other"] > 0)


def reason(said: str) -> str:
    """Return the kind of the error, without names."""
    line = next((line for line in said.splitlines() if line.startswith("error: ")), said)
    kinds = ("production is being changed by process", "was completed in the meantime")
    return next((kind for kind in kinds if kind in line), line)


if __name__ == "__main__":
    main()
