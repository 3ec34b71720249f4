"""Holders of a lock that are stopped and go on: what they still write.

Run by its path this file is a holder. It takes production's lock of the project in the working
directory, and changes the route and the ledger again and again until it is refused:

    holders.py fenced     as commands do
    holders.py deaf       with a fence whose clock and Lease do not tell, as in a virtual machine
                          that was paused as a whole: only objects and the ledger refuse it
    holders.py bare       without a fence, as a control

Where production has several clusters, it also writes to an object in each of the others.
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
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.cli.progress import Lines
from mlship.domain.deployment import Slot, Split, slot_of
from mlship.domain.fence import KERNEL, Fence
from mlship.domain.override import Weighted
from mlship.domain.records import Records
from mlship.errors import ConflictError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.wire import backends
from tests.harness.twice import Shop, proven

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 12.0
CONFLICT = 8
Kind = Literal["fenced", "deaf", "bare"]
_SECONDS = 60.0
_GOES_ON = 8.0
_IDLE = 0.5
_MARK = "mlship.dev/tried"
_SCOPE = Scope(project="iris", target=PRODUCTION)


class Outcome(NamedTuple):
    """What a holder did after it had been stopped for twice its lease, and another took over.

    Attributes:
        code: its exit code; -9 if it still wrote, or waited for its route, after 8 s.
        route: whether it changed the route.
        elsewhere: whether it changed an object in another cluster.
        records: how many records it added to the ledger that count.
        void: how many it added that do not count.
        said: the last line that it told.
    """

    code: int
    route: bool
    elsewhere: bool
    records: int
    void: int
    said: str


class _Deaf:
    """A fence that carries its number, and notices nothing by itself."""

    def __init__(self, fence: Fence) -> None:
        self.number = fence.number

    def check(self) -> None:
        pass

    def confirm(self) -> None:
        pass

    def enter(self, cluster: str) -> None:
        pass


def deployed(shop: Shop, *, router: str = "") -> None:
    """Run two releases in production, past the gates; all traffic goes to the first."""
    for name in ("one", "two"):
        release = proven(shop, name, router=router)
        pipeline = shop.pipeline()
        target = pipeline.target(PRODUCTION)
        artifact = pipeline.artifact(release, PRODUCTION, pipeline.read())
        target.deploy(release, artifact, slot_of(release), replicas=1)
        if not target.routes().split.weights:
            # In several clusters, the next release goes to where this one is not.
            split = Split(weights={slot_of(release): 100})
            target.route(split, expected=target.routes().revision)


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
            _change(next_one, 77, next_one.read(), fence)
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
        elsewhere=before[1] != after[1],
        records=len(after[2]) - len(before[2]),
        void=len(after[2].void) - len(before[2].void),
        said=(said.splitlines() or [""])[-1],
    )


def _seen(shop: Shop) -> tuple[Any, Any, Records]:
    pipeline = shop.pipeline()
    route, records = pipeline.target(PRODUCTION).routes(), pipeline.read()
    written = _elsewhere(pipeline, None, slot_of(records.releases[1]), KERNEL)
    return (route.split, route.revision), written, records


def _change(pipeline: Pipeline, percent: int, records: Records, fence: Fence) -> Records:
    """Change the split between the two releases, an object in other clusters, and record it.

    What is refused does not keep from the rest, so that each is tried.
    """
    target, (one, two) = pipeline.target(PRODUCTION), records.releases[:2]
    split = Split(weights={slot_of(one): 100 - percent, slot_of(two): percent})
    facts = Weighted(weights=split.weights)
    found: list[Records] = []
    refusals: list[ConflictError] = []
    for act in (
        lambda: target.route(split, expected=target.routes().revision),
        lambda: _elsewhere(pipeline, percent, slot_of(two), fence),
        lambda: found.append(
            records.plus(pipeline.learn(one, "traffic", "passed", facts, after=records))
        ),
    ):
        try:
            act()
        except ConflictError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    return found[0]


def _elsewhere(
    pipeline: Pipeline, value: int | None, slot: Slot, fence: Fence
) -> list[dict[str, Any]]:
    """Write to a slot's Service in each cluster without the parent; return these Services."""
    settings = pipeline.target_config(PRODUCTION)
    found = []
    for member in backends.members(settings, os.environ, fence):
        if member.name == settings.parent_cluster:
            continue
        with member.connected() as api:
            service = api.get("Service", _SCOPE.object(slot))
            if service is not None and value is not None:
                annotations = {**service["metadata"]["annotations"], _MARK: str(value)}
                metadata = {**service["metadata"], "annotations": annotations}
                service = api.replace({**service, "metadata": metadata})
            found += [service] if service is not None else []
    return found


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
        kinds: dict[str, Fence] = {"fenced": fence, "deaf": _Deaf(fence), "bare": KERNEL}
        carried = kinds[sys.argv[1]]
        held = pipeline if carried is KERNEL else pipeline.under(PRODUCTION, carried)
        records = held.read()
        ends = time.monotonic() + _SECONDS
        percent = 1
        while time.monotonic() < ends:
            percent = percent % 50 + 1
            records = _change(held, percent, records, carried)
            print(percent, flush=True)  # noqa: T201
            time.sleep(_IDLE)


if __name__ == "__main__":
    try:
        main()
    except ConflictError as error:
        print(f"refused: {error.message}", file=sys.stderr)  # noqa: T201
        sys.exit(CONFLICT)
