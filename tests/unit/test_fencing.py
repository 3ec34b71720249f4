"""A lock in a cluster fences: a holder that was stopped, and goes on, changes nothing.

Its clock refuses before a request is sent. Where the clock does not tell, as in a virtual machine
that was paused as a whole, the objects refuse.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from mlship.adapters.targets.kubernetes import (
    Access,
    Elsewhere,
    LeaseLocks,
    Scope,
    api,
    difference,
    fencing,
    lease,
    revisions,
)
from mlship.adapters.targets.kubernetes.api import Api, Manifest, new
from mlship.adapters.targets.kubernetes.fencing import FENCE
from mlship.adapters.targets.kubernetes.routing import Written
from mlship.domain.deployment import Revision
from mlship.domain.fence import KERNEL, Fence
from mlship.errors import ConflictError, UnavailableError
from tests.fakes.api_server import ACCESS, FakeApiServer

SCOPE = Scope(project="iris", target="production")
SLOT = SCOPE.object("rone")  # type: ignore[arg-type]
Write = Callable[[Api], object]


class Clock:
    """The clock of a lease; it stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeApiServer:
    made = FakeApiServer()
    monkeypatch.setattr(api, "reached", lambda *_: made.client())
    # Renewals of the thread would be in the way: a test takes over at once.
    monkeypatch.setattr(lease, "_RENEW_SECONDS", 3600.0)
    monkeypatch.setattr(LeaseLocks, "_is_renewed", lambda *_: False)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lease, "clock", made)
    monkeypatch.setattr("mlship.adapters.targets.kubernetes.locks.clock", made)
    return made


def locks(holder: str) -> LeaseLocks:
    return LeaseLocks("iris", "shop", lambda: ACCESS, holder)


def deployment(replicas: int = 1) -> Manifest:
    labels = {"app.kubernetes.io/instance": SCOPE.name}
    return new("Deployment", {"name": SLOT, "labels": labels}, {"replicas": replicas})


def route(weight: int = 100) -> Manifest:
    return new("HTTPRoute", {"name": SCOPE.name}, {"weight": weight})


def deployed(fence: Fence) -> None:
    with fencing.connected(lambda: ACCESS, "shop", fence) as cluster:
        cluster.apply(deployment())
        cluster.create(route())


def rerouted(cluster: Api) -> object:
    found = cluster.get("HTTPRoute", SCOPE.name)
    assert found is not None
    return cluster.replace({**found, "spec": {"weight": 50}})


WRITES: dict[str, Write] = {
    "apply": lambda cluster: cluster.apply(deployment(replicas=9)),
    "replace": rerouted,
    "delete": lambda cluster: cluster.delete("Deployment", SLOT),
    "create": lambda cluster: cluster.create(route()),
}
"""Each kind of write to an object that exists; a creation of one that does conflicts anyway."""


@pytest.fixture
def overtaken(server: FakeApiServer, clock: Clock) -> Iterator[Fence]:
    """Give the fence of a holder from whom another one took over; its own clock does not tell."""
    with suppress(ConflictError), locks("old").exclusive("production") as old:
        deployed(old)
        with locks("next").exclusive("production"):
            pass
        yield old


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_former_holder_writes_to_no_object(
    write: Write, overtaken: Fence, server: FakeApiServer
) -> None:
    before = dict(server.objects)
    with (
        pytest.raises(ConflictError),
        fencing.connected(lambda: ACCESS, "shop", overtaken) as cluster,
    ):
        write(cluster)
    assert server.objects == before


@pytest.mark.parametrize("name", [name for name in WRITES if name != "create"])
def test_without_a_fence_a_former_holder_does(
    name: str, overtaken: Fence, server: FakeApiServer
) -> None:
    del overtaken
    before = dict(server.objects)
    with fencing.connected(lambda: ACCESS, "shop", KERNEL) as cluster:
        WRITES[name](cluster)
    assert server.objects != before


@pytest.mark.parametrize("name", [name for name in WRITES if name != "create"])
def test_a_write_that_was_decided_before_the_take_over_is_refused_after_it(
    name: str, server: FakeApiServer, clock: Clock
) -> None:
    with suppress(ConflictError), locks("old").exclusive("production") as old:
        deployed(old)
        changed: list[dict[str, Any]] = []

        def take_over(request: httpx.Request) -> None:
            # The old holder has read the object, and is stopped when it sends its write.
            if request.method != "GET":
                server.before = lambda _: None
                with locks("next").exclusive("production"):
                    changed.append(dict(server.objects))

        with fencing.connected(lambda: ACCESS, "shop", old) as cluster:
            server.before = take_over
            with pytest.raises(ConflictError):
                WRITES[name](cluster)
        path = f"/apis/coordination.k8s.io/v1/namespaces/shop/leases/{SCOPE.name}"
        for state in (*changed, server.objects):
            state.pop(path)
        assert changed == [server.objects]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_holder_that_was_stopped_for_longer_than_its_lease_sends_nothing(
    write: Write, server: FakeApiServer, clock: Clock
) -> None:
    with suppress(ConflictError), locks("old").exclusive("production") as old:
        deployed(old)
        clock.now += 2 * lease.SECONDS
        written = len(server.writes)
        with (
            fencing.connected(lambda: ACCESS, "shop", old) as cluster,
            pytest.raises(ConflictError, match="lock of production was lost"),
        ):
            write(cluster)
        assert len(server.writes) == written
        with pytest.raises(ConflictError):
            old.confirm()


def test_a_pause_between_two_attempts_of_one_request_counts(
    server: FakeApiServer, clock: Clock
) -> None:
    with suppress(ConflictError), locks("old").exclusive("production") as old:
        deployed(old)

        def stop(request: httpx.Request) -> None:
            if request.method == "PATCH":
                clock.now += lease.SECONDS
                raise httpx.ConnectError("refused")

        server.before = stop
        written = len(server.writes)
        with (
            fencing.connected(lambda: ACCESS, "shop", old) as cluster,
            pytest.raises(ConflictError, match="lock of production was lost"),
        ):
            cluster.apply(deployment(replicas=9))
        assert len(server.writes) == written


def test_a_holder_in_time_writes_whatever_controllers_write_beside_it(
    server: FakeApiServer, clock: Clock
) -> None:
    with locks("ada").exclusive("production") as fence:
        deployed(fence)

        def controller(request: httpx.Request) -> None:
            if request.method == "PATCH":
                server.before = lambda _: None
                found = server.find("deployments", SLOT)
                path = f"/apis/apps/v1/namespaces/shop/deployments/{SLOT}"
                server(httpx.Request("PUT", f"https://fake{path}", json={**found, "status": {}}))

        server.before = controller
        with fencing.connected(lambda: ACCESS, "shop", fence) as cluster:
            cluster.apply(deployment(replicas=2))
    assert server.find("deployments", SLOT)["spec"] == {"replicas": 2}


def numbers(server: FakeApiServer) -> list[int]:
    found = (server.find("deployments", SLOT), server.find("httproutes", SCOPE.name))
    return [fencing.number_of(one) for one in found]


def test_each_holder_has_the_next_number_and_marks_what_it_creates(
    server: FakeApiServer, clock: Clock
) -> None:
    for number in (1, 2, 3):
        with locks("ada").exclusive("production") as fence:
            assert fence.number == number
            if number == 2:
                deployed(fence)
    assert numbers(server) == [2, 2]
    assert lease.holder_of(server.find("leases", SCOPE.name)) == ""


def test_writing_the_same_again_under_a_later_number_changes_nothing(
    server: FakeApiServer, clock: Clock
) -> None:
    with locks("ada").exclusive("production") as fence:
        deployed(fence)
    before = server.find("deployments", SLOT)
    with (
        locks("bob").exclusive("production") as fence,
        fencing.connected(lambda: ACCESS, "shop", fence) as cluster,
    ):
        cluster.apply(deployment())
    assert server.find("deployments", SLOT) == before


@pytest.mark.parametrize("damage", ["deleted", "written by a version without numbers"])
def test_numbers_go_on_where_those_of_the_objects_are(
    damage: str, server: FakeApiServer, clock: Clock
) -> None:
    for _ in range(4):
        with locks("ada").exclusive("production") as fence:
            pass
    with locks("ada").exclusive("production") as fence:
        deployed(fence)
    path = f"/apis/coordination.k8s.io/v1/namespaces/shop/leases/{SCOPE.name}"
    if damage == "deleted":
        del server.objects[path]
    else:
        del server.objects[path]["spec"]["leaseTransitions"]
    with locks("bob").exclusive("production") as fence:
        assert fence.number == 6
    assert numbers(server) == [6, 6]


def test_numbers_go_on_where_a_lock_of_another_cluster_left_them(
    server: FakeApiServer, clock: Clock
) -> None:
    with locks("ada").exclusive("production") as fence:
        assert fence.number == 1
    moved = LeaseLocks(
        "iris", "shop", lambda: ACCESS, "bob", elsewhere={"production": 7}.__getitem__
    )
    with moved.exclusive("production") as fence:
        assert fence.number == 8


def test_who_could_not_fence_off_the_holder_before_leaves_that_to_the_next(
    server: FakeApiServer, clock: Clock
) -> None:
    with suppress(ConflictError), locks("old").exclusive("production") as old:
        deployed(old)

        def fail(request: httpx.Request) -> None:
            if request.method == "PATCH":
                raise httpx.ConnectTimeout("no answer")

        server.before = fail
        with pytest.raises(UnavailableError), locks("next").exclusive("production"):
            pass
        server.before = lambda _: None
        assert lease.holder_of(server.find("leases", SCOPE.name)) == ""
        with locks("third").exclusive("production") as third:
            assert numbers(server) == [third.number] * 2
    with locks("fourth").exclusive("production"):
        assert numbers(server) == [third.number] * 2


def test_a_lock_that_was_lost_is_told_at_the_end(server: FakeApiServer, clock: Clock) -> None:
    with (
        pytest.raises(ConflictError, match="lock of production was lost"),
        locks("old").exclusive("production"),
    ):
        clock.now += lease.SECONDS


def test_a_former_holder_does_not_give_back_the_lock_of_the_next(
    server: FakeApiServer, clock: Clock
) -> None:
    with suppress(ConflictError), locks("ada").exclusive("production"):
        # A process of the same name: the number tells them apart.
        taken = {**server.find("leases", SCOPE.name)}
        taken["spec"] = lease.spec("ada", 2)
        path = f"/apis/coordination.k8s.io/v1/namespaces/shop/leases/{SCOPE.name}"
        server(httpx.Request("PUT", f"https://fake{path}", json=taken))
    assert lease.holder_of(server.find("leases", SCOPE.name)) == "ada"


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_times_in_a_lease_are_not_compared(
    hours: int, server: FakeApiServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder whose wall clock is an hour off renews: it is not taken over from."""
    monkeypatch.undo()
    monkeypatch.setattr(api, "reached", lambda *_: server.client())
    monkeypatch.setattr(lease, "_RENEW_SECONDS", 0.02)
    monkeypatch.setattr("mlship.adapters.targets.kubernetes.locks._PAUSE", 0.05)
    with locks("ada").exclusive("production"):
        found = server.find("leases", SCOPE.name)
        found["spec"]["renewTime"] = f"2026-01-01T{12 + hours}:00:00.000000Z"
        with (
            pytest.raises(ConflictError, match="is being changed by ada"),
            locks("bob").exclusive("production"),
        ):
            pass


class Both:
    """A target in two clusters: the Lease and the route are in blue, a slot is in green."""

    def __init__(self, blue: FakeApiServer) -> None:
        self.blue, self.green = blue, FakeApiServer()

    def reached(self, access: Access, seconds: float | None = None) -> httpx.Client:
        del seconds
        return (self.green if access == GREEN else self.blue).client()

    def locks(self, holder: str) -> LeaseLocks:
        others = {"green": Elsewhere("shop", lambda: GREEN)}
        return LeaseLocks("iris", "shop", lambda: ACCESS, holder, others=others)

    def deployed(self, fence: Fence) -> None:
        with self.writing(fence) as cluster:
            cluster.apply(deployment())

    @contextmanager
    def writing(self, fence: Fence) -> Iterator[Api]:
        with fencing.connected(lambda: GREEN, "shop", fence, "green") as cluster:
            yield cluster

    def vanishes(self) -> None:
        def fail(request: httpx.Request) -> None:
            raise httpx.ConnectTimeout("timed out", request=request)

        self.green.before = fail

    def returns(self) -> None:
        self.green.before = lambda _: None

    def pending(self) -> str:
        metadata = self.blue.find("leases", SCOPE.name)["metadata"]
        return str((metadata.get("annotations") or {}).get("mlship.dev/pending", ""))

    def number(self) -> int:
        return fencing.number_of(self.green.find("deployments", SLOT))


GREEN = dataclasses.replace(ACCESS, name="context green", server="https://green")


@pytest.fixture
def both(server: FakeApiServer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Both:
    del clock
    made = Both(server)
    monkeypatch.setattr(api, "reached", made.reached)
    monkeypatch.setattr("mlship.adapters.targets.kubernetes.locks._QUICK_SECONDS", 0.1)
    return made


@pytest.mark.parametrize("name", ["apply", "delete"])
def test_a_former_holder_writes_to_no_object_of_another_cluster(name: str, both: Both) -> None:
    with suppress(ConflictError), both.locks("old").exclusive("production") as old:
        both.deployed(old)
        with both.locks("next").exclusive("production") as following:
            assert both.number() == following.number
        before = dict(both.green.objects)
        with pytest.raises(ConflictError), both.writing(old) as cluster:
            WRITES[name](cluster)
        assert both.green.objects == before


def test_a_cluster_that_does_not_answer_is_fenced_before_the_first_write_there(both: Both) -> None:
    with suppress(ConflictError), both.locks("old").exclusive("production") as old:
        both.deployed(old)
        both.vanishes()
        with both.locks("next").exclusive("production") as following:
            deployed(following)
            with pytest.raises(UnavailableError), both.writing(following) as cluster:
                cluster.apply(deployment(replicas=9))
            both.returns()
            with both.writing(following) as cluster:
                cluster.apply(deployment(replicas=2))
            assert both.number() == following.number
        with pytest.raises(ConflictError), both.writing(old) as cluster:
            cluster.apply(deployment(replicas=9))
        assert both.green.find("deployments", SLOT)["spec"] == {"replicas": 2}
    assert both.pending() == ""


def test_who_could_not_fence_a_cluster_leaves_that_to_the_next(both: Both) -> None:
    with suppress(ConflictError), both.locks("old").exclusive("production") as old:
        both.deployed(old)
        both.vanishes()
        for _ in range(2):
            with both.locks("next").exclusive("production"):
                pass
            assert both.pending() == "green"
        both.returns()
        with both.locks("third").exclusive("production") as third:
            assert both.number() == third.number
        assert both.pending() == ""
        with both.locks("fourth").exclusive("production"):
            assert both.number() == third.number


def test_another_cluster_needs_no_route_and_no_right_to_read_one(both: Both) -> None:
    def forbid(request: httpx.Request) -> None:
        assert "httproutes" not in request.url.path

    both.green.before = forbid
    with suppress(ConflictError), both.locks("old").exclusive("production") as old:
        both.deployed(old)
        with both.locks("next").exclusive("production") as following:
            assert both.number() == following.number


def test_a_lost_lease_goes_on_above_the_numbers_of_all_clusters(both: Both) -> None:
    for _ in range(3):
        with both.locks("ada").exclusive("production") as fence:
            pass
    with both.locks("ada").exclusive("production") as fence:
        both.deployed(fence)
    del both.blue.objects[f"/apis/coordination.k8s.io/v1/namespaces/shop/leases/{SCOPE.name}"]
    with both.locks("bob").exclusive("production") as fence, both.writing(fence) as cluster:
        cluster.apply(deployment(replicas=2))
        assert fence.number == 5


def test_the_mark_is_no_difference_for_people() -> None:
    marked = {**route(), "metadata": {"name": SCOPE.name, "annotations": {FENCE: "3"}}}
    assert difference.of("context a", marked, route()) == []


def test_a_change_of_the_route_tells_that_the_lock_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revisions, "POLL_SECONDS", 0.0)
    written = Written(revision=Revision("3-a"))

    def lost(_: Written) -> Written:
        message = "the lock of production was lost"
        raise ConflictError(message)

    with pytest.raises(ConflictError, match="lock of production was lost"):
        revisions.compare_and_set(SCOPE, Revision("3-a"), lambda: written, lost)
