"""Every mistake of the table on the real command line: exit code, error and hint.

With --remotes: the mistakes with registries, clusters, GitHub and databases. After each mistake is
fixed, the command runs again, and must give the same result as without the mistake. The last line
counts the mistakes that were handled correctly; the exit code is 1 if one was not.
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
    """Run the mistakes whose names contain the given words, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="of the names of mistakes; all by default")
    parser.add_argument("--remotes", action="store_true", help="those with what is elsewhere")
    options = parser.parse_args()
    table: tuple[Mistake, ...] = REMOTES if options.remotes else MISTAKES
    chosen = [
        mistake
        for mistake in table
        if not options.words or any(word in mistake.name for word in options.words)
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
    print(f"\n{len(met) - len(wrong)} of {len(met)} handled correctly, {len(skipped)} skipped")
    return 1 if wrong else 0


def _skipped(chosen: list[Mistake]) -> dict[str, str]:
    """Return the names of mistakes that cannot run on this machine, with the reasons."""
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
