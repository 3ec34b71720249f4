"""Every mistake of the table, met by the real command line: exit code, error and next action.

With --remotes: the mistakes with registries, clusters, GitHub and databases, each with the command
run again after the mistake was taken back, which must leave what it leaves without the mistake.
The last line counts those that were answered well; the exit code is 1 where one was not.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.mistakes.mistake import Mistake
from tests.mistakes.project import can_mount
from tests.mistakes.remote import RemoteMistake, Unharmed, meet_remote
from tests.mistakes.remotes import REMOTES, missing
from tests.mistakes.starts import Met, Starts, meet
from tests.mistakes.table import MISTAKES


def main() -> int:
    """Meet the mistakes whose names contain the words given, two at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="of the names of mistakes; all by default")
    parser.add_argument("--remotes", action="store_true", help="those with what is elsewhere")
    given = parser.parse_args()
    table: tuple[Mistake, ...] = REMOTES if given.remotes else MISTAKES
    chosen = [
        mistake
        for mistake in table
        if not given.words or any(word in mistake.name for word in given.words)
    ]
    skipped = _skipped(chosen)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        starts = Starts(folder / "starts")
        try:
            met = _met(starts, [one for one in chosen if one.name not in skipped], folder)
        finally:
            starts.end()
    for mistake, reason in skipped.items():
        print(f"{mistake}\n  skipped: {reason}")
    wrong = [one for one in met if one.wrong]
    print(f"\n{len(met) - len(wrong)} of {len(met)} answered well, {len(skipped)} skipped")
    return 1 if wrong else 0


def _skipped(chosen: list[Mistake]) -> dict[str, str]:
    """Return the names of mistakes that this machine cannot make, each with what is missing."""
    lacks, mountable = missing(), can_mount()
    found = {
        one.name: "needs root and mount, to make a small disk"
        for one in chosen
        if one.is_root and not mountable
    }
    for one in chosen:
        needs = one.needs if isinstance(one, RemoteMistake) else ()
        lacking = [f"needs {need}: {lacks[need]}" for need in needs if need in lacks]
        if lacking:
            found[one.name] = lacking[0]
    return found


def _met(starts: Starts, chosen: list[Mistake], folder: Path) -> list[Met]:
    unharmed = Unharmed(starts, folder / "unharmed")

    def made(number: int, mistake: Mistake) -> Met:
        place = folder / str(number)
        if isinstance(mistake, RemoteMistake):
            return meet_remote(starts, unharmed, mistake, place, mends=True)
        return meet(starts, mistake, place)

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(made, number, one) for number, one in enumerate(chosen)]
        return [_shown(one.result(), folder) for one in waiting]


def _shown(met: Met, folder: Path) -> Met:
    print(f"{met.mistake.name}  [exit {met.answer.code}, {met.seconds:.1f} s]")
    for line in (*met.answer.errors[:1], *(f"-> {hint}" for hint in met.answer.hints[:1])):
        print(f"  {line.replace(str(folder), '...')}")
    for fault in met.wrong:
        print(f"  WRONG: {fault}")
    sys.stdout.flush()
    return met


if __name__ == "__main__":
    sys.exit(main())
