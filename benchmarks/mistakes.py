"""Every mistake of the table, met by the real command line: exit code, error and next action.

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
from tests.mistakes.starts import Met, Starts, meet
from tests.mistakes.table import MISTAKES


def main() -> int:
    """Meet the mistakes whose names contain the words given, two at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="of the names of mistakes; all by default")
    given = parser.parse_args()
    mountable = can_mount()
    chosen = [
        mistake
        for mistake in MISTAKES
        if not given.words or any(word in mistake.name for word in given.words)
    ]
    skipped = [mistake for mistake in chosen if mistake.is_root and not mountable]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        starts = Starts(folder / "starts")
        try:
            met = _met(starts, [one for one in chosen if one not in skipped], folder)
        finally:
            starts.end()
    for mistake in skipped:
        print(f"{mistake.name}\n  skipped: needs root and mount, to make a small disk")
    wrong = [one for one in met if one.wrong]
    print(f"\n{len(met) - len(wrong)} of {len(met)} answered well, {len(skipped)} skipped")
    return 1 if wrong else 0


def _met(starts: Starts, chosen: list[Mistake], folder: Path) -> list[Met]:
    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(meet, starts, mistake, folder / str(number))
            for number, mistake in enumerate(chosen)
        ]
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
