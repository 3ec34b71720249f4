"""Holders of a lock that are stopped and go on: what they still write.

Run by its path this file is a holder. It takes production's lock of the project in the working
directory, and changes the route and the ledger again and again until it is refused:

    holders.py fenced     as commands do
    holders.py bare       without a fence, as a control
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mlship import wire
from mlship.cli.progress import Lines
from mlship.domain.deployment import Split, slot_of
from mlship.domain.facts import Routed
from mlship.domain.records import Records
from mlship.errors import ConflictError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from tests.harness.twice import Shop, proven

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 12.0
CONFLICT = 8
Kind = Literal["fenced", "bare"]
_SECONDS = 60.0
_GOES_ON = 8.0
_IDLE = 0.5


class Outcome(NamedTuple):
    """What a holder did after it had been stopped for twice its lease, and another took over.

    Attributes:
        code: its exit code; -9 if it still wrote, or waited for its route, after 8 s.
        route: whether it changed the route.
        records: how many records it added to the ledger that count.
        void: how many it added that do not count.
        said: the last line that it told.
    """

    code: int
    route: bool
    records: int
    void: int
    said: str


def deployed(shop: Shop) -> None:
    """Run two releases in production, past the gates."""
    for name in ("one", "two"):
        release = proven(shop, name)
        pipeline = shop.pipeline()
        artifact = pipeline.artifact(release, PRODUCTION, pipeline.read())
        pipeline.target(PRODUCTION).deploy(release, artifact, slot_of(release), replicas=1)


def stopped(shop: Shop, kind: Kind, pause: float) -> Outcome:
    """Stop a holder in its work, take over, let it go on; return what it did then.

    Args:
        shop: the project.
        kind: of the holder.
        pause: seconds after its second change, when it is stopped.
    """
    with _holder(shop, kind) as holder:
        assert holder.stdout is not None
        for _ in range(2):
            assert holder.stdout.readline(), holder.communicate()
        time.sleep(pause)
        holder.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        pipeline = shop.pipeline()
        with pipeline.locks.exclusive(PRODUCTION) as fence:
            next_one = pipeline.under(PRODUCTION, fence)
            _change(next_one, 77, next_one.read())
        before = _seen(shop)
        time.sleep(max(0.0, 2 * LEASE_SECONDS - (time.monotonic() - began)))
        holder.send_signal(signal.SIGCONT)
        try:
            _, said = holder.communicate(timeout=_GOES_ON)
        except subprocess.TimeoutExpired:
            holder.kill()
            _, said = holder.communicate()
        after = _seen(shop)
    return Outcome(
        code=holder.returncode,
        route=before[0] != after[0],
        records=len(after[1]) - len(before[1]),
        void=len(after[1].void) - len(before[1].void),
        said=(said.splitlines() or [""])[-1],
    )


def _seen(shop: Shop) -> tuple[Any, Records]:
    pipeline = shop.pipeline()
    route = pipeline.target(PRODUCTION).routes()
    return (route.split, route.revision), pipeline.read()


def _change(pipeline: Pipeline, percent: int, records: Records) -> Records:
    """Change the split between the two releases, and record it."""
    target, (one, two) = pipeline.target(PRODUCTION), records.releases[:2]
    split = Split(weights={slot_of(one): 100 - percent, slot_of(two): percent})
    target.route(split, expected=target.routes().revision)
    facts = Routed(weights=split.weights)
    return records.plus(pipeline.learn(one, "traffic", "passed", facts, after=records))


@contextmanager
def _holder(shop: Shop, kind: Kind) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, __file__, kind],
        cwd=shop.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def main() -> None:
    """Hold the lock, and write until it is refused."""
    folder = Path.cwd()
    config = wire.read(folder / "mlship.yaml", {}, ()).config
    pipeline = wire.assemble(config, folder, Lines(), os.environ)
    with pipeline.locks.exclusive(PRODUCTION) as fence:
        held = pipeline.under(PRODUCTION, fence) if sys.argv[1] == "fenced" else pipeline
        records = held.read()
        ends = time.monotonic() + _SECONDS
        percent = 1
        while time.monotonic() < ends:
            percent = percent % 50 + 1
            records = _change(held, percent, records)
            print(percent, flush=True)  # noqa: T201
            time.sleep(_IDLE)


if __name__ == "__main__":
    try:
        main()
    except ConflictError as error:
        print(f"refused: {error.message}", file=sys.stderr)  # noqa: T201
        sys.exit(CONFLICT)
