"""Production on two real clusters, changed by hand: how soon commands tell it, and what helps.

    TEST_KUBECONFIG=... TEST_KUBECONFIG_PRODUCTION=... python benchmarks/drift.py

A champion is in blue and a challenger in green, behind mlship's own load balancer. For each kind of
change: the seconds from the change to the end of `mlship status` that tells it and of the `promote`
that is refused because of it; then `promote champion --reconcile` and, after the same change again,
`promote champion --adopt`: their exit codes and what `status` tells afterwards. What was never
tested cannot be adopted (exit code 3). The time to start Python is part of all figures.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mlship.adapters.targets.kubernetes.api import Kind, path  # noqa: E402 (see above)
from mlship.adapters.targets.kubernetes.manifests import Scope  # noqa: E402
from mlship.domain.deployment import slot_of  # noqa: E402
from mlship.domain.release import Release  # noqa: E402
from tests.harness import clusters  # noqa: E402
from tests.harness.pair import shop_of_two  # noqa: E402
from tests.harness.twice import Shop, proven, won  # noqa: E402
from tests.integration.test_twice import CONFIG  # noqa: E402

REFUSED, DAMAGED = 3, 7
_NOTHING = "nothing"
SCOPE = Scope(project="iris", target="production")


class Place(NamedTuple):
    """A production that is changed by hand."""

    shop: Shop
    champion: Release
    challenger: Release

    def name(self, release: Release) -> str:
        """Return the name of a release's objects."""
        return SCOPE.object(slot_of(release))

    @property
    def router(self) -> str:
        """The name of the load balancer's objects."""
        return f"{SCOPE.name}-router"

    def patch(self, cluster: str, kind: Kind, name: str, body: Any) -> None:
        """Change an object as `kubectl patch` does."""
        place = self.shop.places[cluster]
        where = path(kind, place.namespace, name)
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        content = json.dumps(body)
        asked = f"{where}?fieldManager=kubectl-patch"
        place.kubectl("PATCH", asked, content=content, headers=headers)

    def delete(self, cluster: str, *kinds: Kind) -> None:
        """Delete objects of the challenger, and wait until they are gone."""
        place = self.shop.places[cluster]
        name = self.name(self.challenger)
        with place.api() as api:
            for kind in kinds:
                api.delete(kind, name)
            clusters.until(lambda: not any(api.get(kind, name) for kind in kinds), seconds=60)


def image(place: Place) -> None:
    """Run another image."""
    other = clusters.image("other")
    container = {"name": "server", "image": other}
    spec = {"template": {"spec": {"containers": [container]}}}
    place.patch("green", "Deployment", place.name(place.challenger), {"spec": spec})


def replicas(place: Place) -> None:
    """Let the autoscaler keep two replicas."""
    name = place.name(place.challenger)
    bounds = {"minReplicas": 2, "maxReplicas": 2}
    place.patch("green", "HorizontalPodAutoscaler", name, {"spec": bounds})
    place.patch("green", "Deployment", name, {"spec": {"replicas": 2}})


def weights(place: Place) -> None:
    """Give the challenger another share, in the file that Envoy reads."""
    with place.shop.places["blue"].api() as api:
        found = api.get("ConfigMap", place.router)
        assert found is not None
    document = json.loads(found["data"]["routes.json"])
    action = document["resources"][0]["virtual_hosts"][0]["routes"][-1]["route"]
    for each in action["weighted_clusters"]["clusters"]:
        each["weight"] = 40 if each["name"] == slot_of(place.challenger) else 60
    data = {"routes.json": json.dumps(document)}
    place.patch("blue", "ConfigMap", place.router, {"data": data})


def selector(place: Place) -> None:
    """Let the champion's pods answer for the challenger."""
    chosen = {"selector": {"mlship.dev/slot": slot_of(place.champion)}}
    place.patch("green", "Service", place.name(place.challenger), {"spec": chosen})


def label(place: Place) -> None:
    """Remove a label."""
    body = {"metadata": {"labels": {"mlship.dev/target": None}}}
    place.patch("green", "Service", place.name(place.challenger), body)


def alias(place: Place) -> None:
    """Point the alias of the champion to the challenger."""
    place.shop.pipeline().store.point("champion", place.challenger)


def alias_between(place: Place) -> None:
    """Move an alias after one command and before the next."""
    place.shop.done("traffic", "challenger=10")
    place.shop.pipeline().store.point("challenger", place.champion)


def address(place: Place) -> None:
    """Make the Service anew: its address may be another, and it has no reference."""
    name = place.name(place.challenger)
    with place.shop.places["green"].api() as api:
        found = api.get("Service", name)
        assert found is not None
        api.delete("Service", name)
        clusters.until(lambda: api.get("Service", name) is None)
        kept = {key: found["metadata"][key] for key in ("name", "labels", "annotations")}
        spec = {"type": "ClusterIP", "selector": found["spec"]["selector"]}
        spec["ports"] = [{"name": "http", "port": 80, "targetPort": "http"}]
        api.create({"apiVersion": "v1", "kind": "Service", "metadata": kept, "spec": spec})


def slot(place: Place) -> None:
    """Delete all objects of the challenger."""
    kinds: tuple[Kind, ...] = (
        "Deployment",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "Service",
    )
    place.delete("green", *kinds)


def route(place: Place) -> None:
    """Put other contents into the route's ConfigMap."""
    with place.shop.places["blue"].api() as api:
        found = api.get("ConfigMap", place.router)
        assert found is not None
        api.replace({**found, "data": {"routes.json": "{}", "clusters.json": "{}"}})


def load_balancer(place: Place) -> None:
    """Take away one of the two pods of the parent."""
    place.patch("blue", "Deployment", place.router, {"spec": {"replicas": 1}})


class Drift(NamedTuple):
    """One kind of drift: the change, what is told of it, and whether it may be adopted."""

    name: str
    change: Callable[[Place], None]
    told: str
    is_adoptable: bool = True


KINDS = (
    Drift("image", image, "containers.server.image is", is_adoptable=False),
    Drift("replicas", replicas, "spec.replicas is 2, not 1"),
    Drift("weights at the parent", weights, "the route sends 40 % to challenger"),
    Drift(
        "who answers in a cluster", selector, "spec.selector.mlship.dev/slot is", is_adoptable=False
    ),
    Drift("a label", label, "label mlship.dev/target is missing"),
    Drift("an alias", alias, "alias champion points to"),
    Drift("an alias between two commands", alias_between, "alias challenger points to"),
    Drift("a Service made anew", address, "spec.type is ClusterIP", is_adoptable=False),
    Drift("a slot deleted", slot, "in green: is missing", is_adoptable=False),
    Drift("the route's ConfigMap made by hand", route, "mlship cannot read it", is_adoptable=False),
    Drift("the load balancer", load_balancer, "spec.replicas is 1, not 2"),
)


def main() -> None:
    """Print a line for each kind of change."""
    wanted = set(sys.argv[1:])
    is_right = True
    print("change | status s | promote s | refused | reconcile s | left | adopt s | code | left")
    with place() as ours:
        for kind in KINDS:
            if not wanted or kind.name in wanted:
                line, fine = play(ours, kind)
                is_right &= fine
                print(line, flush=True)
    sys.exit(not is_right)


def play(ours: Place, kind: Drift) -> tuple[str, bool]:
    """Make a change twice: it is told and undone, then told and adopted."""
    kind.change(ours)
    changed = time.monotonic()
    told = drift(ours)
    seen = time.monotonic() - changed
    is_told = any(kind.told in line for line in told)
    refusal = ours.shop.mlship("promote", "challenger")
    refused = time.monotonic() - changed
    reconciled, took = timed(ours, "--reconcile")
    left = drift(ours)
    kind.change(ours)
    adopted, adopting = timed(ours, "--adopt")
    after = drift(ours)
    is_own = kind.told.startswith("alias ")
    fine = is_told and refusal.code in (REFUSED, DAMAGED) and not reconciled and not left
    if kind.is_adoptable:
        # An alias is accepted until the promotion, which sets it.
        fine &= adopted == 0 and (is_own or not after)
    else:
        fine &= adopted in (REFUSED, DAMAGED)
    ours.shop.done("promote", "champion", "--reconcile")
    clean = drift(ours)
    fine &= not clean
    cells = (
        kind.name,
        f"{seen:.1f}" if is_told else f"not told: {told}",
        f"{refused:.1f}",
        refusal.code,
        f"{took:.1f}",
        "; ".join(left) or _NOTHING,
        f"{adopting:.1f}",
        adopted,
        "; ".join(after) or _NOTHING,
        "" if fine else f"WRONG {clean} {refusal.stderr[-600:]}",
    )
    return " | ".join(map(str, cells)), fine


def drift(ours: Place) -> list[str]:
    """Return what `status` tells; replicas that start or end are none."""
    found: list[str] = json.loads(ours.shop.done("--json", "status"))["drift"]
    return [line for line in found if "replicas ready" not in line]


def timed(ours: Place, option: str) -> tuple[int, float]:
    """Run `promote champion` with an option; return its exit code and its seconds."""
    started = time.monotonic()
    ran = ours.shop.mlship("promote", "champion", option)
    if ran.code not in (0, REFUSED):
        print(ran.stderr, file=sys.stderr)
    return ran.code, time.monotonic() - started


@contextmanager
def place() -> Iterator[Place]:
    """Give a champion in blue, and in green a challenger that is fit to be promoted."""
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shop = stack.enter_context(shop_of_two(top, CONFIG))
        router = clusters.router_image()
        champion, challenger = (proven(shop, name, router=router) for name in ("one", "two"))
        for release in (champion, challenger):
            shop.done("deploy-production", str(release))
        won(shop, champion, challenger)
        yield Place(shop, champion, challenger)


if __name__ == "__main__":
    main()
