"""Locks in a cluster that fence: holders that are stopped and go on, and two promotions at once.

    TEST_KUBECONFIG=... python benchmarks/fencing.py stops --rounds 20
    TEST_KUBECONFIG=... python benchmarks/fencing.py stops --rounds 5 --kind bare
    TEST_KUBECONFIG=... python benchmarks/fencing.py promotes --rounds 50

`stops`: a process holds production's lock, and changes the route and the ledger without a pause. It
gets SIGSTOP somewhere in that, and SIGCONT after twice the time of its lease, when another process
has taken over and written. Counted is what it changes then. With `--kind bare` it writes without
the fence: then stale writes must happen, or the benchmark proves nothing. With `--kind deaf`,
neither its clock nor the Lease tell it, as in a paused virtual machine: the objects refuse it.

With `--clusters`, production has two clusters (TEST_KUBECONFIG_PRODUCTION is the other one), and
the holder also writes in the one without the lock and the route.

`promotes`: two machines, which share a ledger and a store, promote a challenger at the same moment.
Exactly one succeeds, the other gets a conflict, and the ledger has one promotion more.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.harness import clusters  # noqa: E402 (the root must be on the path first)
from tests.harness.holders import CONFLICT, Kind, Outcome, deployed, stopped  # noqa: E402
from tests.harness.kills import Project, race  # noqa: E402
from tests.harness.pair import pair, target_of_two  # noqa: E402
from tests.harness.twice import Shop, proven, target, won  # noqa: E402
from tests.integration.test_twice import CONFIG  # noqa: E402


def main() -> None:
    """Run the rounds and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["stops", "promotes"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--beside", type=int, default=2, help="namespaces at once, for stops")
    parser.add_argument("--kind", choices=["fenced", "deaf", "bare"], default="fenced")
    parser.add_argument("--clusters", action="store_true", help="two clusters of one target")
    options = parser.parse_args()
    started = time.monotonic()
    if options.what == "promotes":
        is_right = promotes(options.rounds, wide=options.clusters)
    else:
        is_right = stops(options.rounds, options.beside, options.kind, wide=options.clusters)
    print(f"{options.rounds} rounds in {time.monotonic() - started:.0f} s")
    sys.exit(not is_right)


def stops(rounds: int, beside: int, kind: Kind, *, wide: bool) -> bool:
    """Stop holders, and return whether nothing (or in the control, something) was written."""
    shares = [rounds // beside + (number < rounds % beside) for number in range(beside)]
    with ThreadPoolExecutor(beside) as pool:
        results = pool.map(
            lambda seed: stops_in_one(seed, shares[seed], kind, wide=wide), range(beside)
        )
        outcomes = [outcome for result in results for outcome in result]
    for outcome in outcomes:
        print(outcome)
    stale = sum(each.route or each.elsewhere or each.records > 0 for each in outcomes)
    parts = {
        "route": sum(each.route for each in outcomes),
        "in the other cluster": sum(each.elsewhere for each in outcomes),
        "ledger": sum(each.records > 0 for each in outcomes),
    }
    codes = dict(Counter(outcome.code for outcome in outcomes))
    void = sum(outcome.void for outcome in outcomes)
    print(f"rounds with stale writes: {stale} {parts}, void records: {void}, exit codes: {codes}")
    return stale > 0 if kind == "bare" else stale == 0


def stops_in_one(seed: int, rounds: int, kind: Kind, *, wide: bool) -> list[Outcome]:
    """Stop holders in a namespace of its own."""
    chance = random.Random(seed)
    with shop({}, wide=wide) as (one, _):
        deployed(one, router=clusters.router_image() if wide else "")
        return [stopped(one, kind, chance.random() * 2) for _ in range(rounds)]


def promotes(rounds: int, *, wide: bool) -> bool:
    """Promote from two machines at once, and return whether each round had one winner."""
    ended: Counter[str] = Counter()
    router = clusters.router_image() if wide else ""
    with shop({"gates": {"promote": {"min_labels": 50}}}, wide=wide) as (one, other):
        champion, challenger = (proven(one, name, router=router) for name in ("one", "two"))
        for release in (champion, challenger):
            one.done("deploy-production", str(release))
        won(one, champion, challenger)
        machines = [Project(one.folder), Project(other.folder)]
        for number in range(rounds):
            before = promotions(one)
            results = race(machines[0], "promote", "challenger", other=machines[1])
            codes = Counter(code for code, _ in results)
            fair = codes == {0: 1, CONFLICT: 1} and promotions(one) == before + 1
            ended["one winner, one conflict, one record" if fair else "other"] += 1
            if not fair:
                print(f"round {number + 1}: {dict(codes)}, {results}")
            one.done("rollback")
    print(dict(ended))
    return not ended["other"]


def promotions(one: Shop) -> int:
    """Count the promotions in the ledger."""
    return sum(record.evidence.step == "promote" for record in one.pipeline().read())


@contextmanager
def shop(settings: dict[str, Any], *, wide: bool) -> Iterator[tuple[Shop, Shop]]:
    """Give two machines with one production in a cluster or two, one ledger and one store."""
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places, production = placed(stack, wide=wide)
        shared: dict[str, Any] = {
            "ledger": {"kind": "directory", "uri": str(top / "ledger")},
            "store": {"kind": "directory", "uri": str(top / "store")},
            "targets": {"production": production},
        }
        shops = []
        for name in ("one", "other"):
            folder = top / name
            folder.mkdir()
            text = yaml.safe_dump({**CONFIG, **settings, **shared})
            (folder / "mlship.yaml").write_text(text)
            shops.append(Shop(folder, places))
        yield shops[0], shops[1]


def placed(stack: ExitStack, *, wide: bool) -> tuple[dict[str, clusters.Cluster], dict[str, Any]]:
    """Return new namespaces, and the section of mlship.yaml for production there."""
    if not wide:
        place = stack.enter_context(clusters.cluster())
        return {"production": place}, target(place)
    blue = clusters.kubeconfig(is_plain=True)
    green = clusters.kubeconfig("TEST_KUBECONFIG_PRODUCTION", is_plain=True)
    both = stack.enter_context(pair(blue, green))
    return {"blue": both.blue, "green": both.green}, target_of_two(both.blue, both.green)


if __name__ == "__main__":
    main()
