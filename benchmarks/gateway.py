"""The number of failed requests through a cluster's load balancer while releases and pods change.

    TEST_KUBECONFIG=... python benchmarks/gateway.py [REQUESTS [plain]]

The load balancer is the cluster's Gateway; with `plain` it is mlship's own, whose pods are deleted,
evicted and replaced too.

Two comparisons, each with both sides in one run, at a constant rate:

- deploy, promote, rollback, promote, retire, a rolling update and evictions at 100 requests/s, with
  draining, and with a control whose pods terminate immediately;
- 40 switches of all traffic at 200 requests/s, with slots parked in the route, and with a control
  that writes each route in one step.
"""

import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlship.adapters.targets.kubernetes.gateway import Traffic
from mlship.domain.deployment import Revision, Slot, Split, slot_of
from tests.harness import clusters
from tests.harness.clusters import Cluster
from tests.harness.load import Load, load
from tests.integration.test_kubernetes_load import BEHAVIOUR, ONE, TWO, change, replace_router

_SWITCHES = 40


def main(requests: int, *, is_plain: bool) -> None:
    """Print a line for each side."""
    print(f"drained      {drained(requests, is_plain=is_plain)}", flush=True)
    hasty = drained(0, is_plain=is_plain, drain_seconds=0, kubernetes_prestop_seconds=0)
    print(f"not drained  {hasty}", flush=True)
    print(f"parked       {switched(is_plain=is_plain)}")
    if not is_plain:
        with mock.patch.object(Traffic, "change", at_once):
            print(f"at once      {switched(is_plain=False)}")


def drained(requests: int, *, is_plain: bool, **settings: float) -> str:
    """Repeat all changes until this number of requests was sent."""
    with clusters.cluster(is_plain=is_plain) as place:
        place.target = place.again(**settings)
        place.route({place.deploy(ONE, replicas=2, **BEHAVIOUR): 100})
        with load(place.target.routes().endpoint + "/predict", 100) as sent:
            while True:
                change(place)
                if is_plain:
                    replace_router(place)
                if sum(sent.answers.values()) >= requests:
                    break
                place.target.remove(slot_of(TWO))
                place.deploy(ONE, replicas=2, **BEHAVIOUR)
    return said(sent)


def switched(*, is_plain: bool) -> str:
    """Move all traffic from one release to another and back; also return the slowest move."""
    with clusters.cluster(is_plain=is_plain) as place:
        one, two = place.deploy(ONE), place.deploy(TWO)
        place.route({one: 100})
        took = []
        with load(place.target.routes().endpoint + "/predict", 200) as sent:
            for turn in range(_SWITCHES):
                took.append(timed(place, (two, one)[turn % 2]))
                time.sleep(0.3)
    middle = sorted(took)[len(took) // 2]
    return f"{said(sent)}; a switch takes {middle:.2f} s, {max(took):.2f} s at most"


def timed(place: Cluster, slot: Slot) -> float:
    """Route all traffic to a slot; return the duration."""
    started = time.monotonic()
    place.route({slot: 100})
    return time.monotonic() - started


def at_once(self: Traffic, split: Split, expected: Revision, *, running: frozenset[Slot]) -> object:
    """Write a route without parking any slot that runs."""
    assert running
    before = self.read()
    written = self._write(expected, split, frozenset())
    self._accept(written, before)
    return written.revision


def said(sent: Load) -> str:
    """Return the number of requests and of failures, with their reasons."""
    total = sum(sent.answers.values())
    return f"{sum(sent.failed.values())} of {total} failed {sent.failed or ''}".rstrip()


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 2000, is_plain="plain" in sys.argv)
