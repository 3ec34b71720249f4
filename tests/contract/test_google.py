"""What mlship sends to the Compute Engine API is what Google's own client would send.

The stand-in reads a recording of the client's definitions. Here it is compared with the client, and
each request of a whole story is read by the client's own types.
"""

import json

import httpx
import pytest

from mlship.domain.deployment import slot_of
from tests.fakes.cluster import SCOPE
from tests.fakes.google import GoogleWorld, without_pauses
from tests.stand_ins.compute_definitions import of_client, recorded
from tests.stand_ins.google_compute import GoogleCompute, RefusedError, check, link, method_of
from tests.unit.test_clusters import ONE, THREE, TWO, story


@pytest.fixture(scope="module")
def world() -> GoogleWorld:
    """Give what is left of a whole story, with all requests."""
    made = GoogleWorld(sticky_header="x-bucket")
    made.compute.polls = 1
    with without_pauses(made):
        for act in story(made):
            act()
        made.target.reached()
        made.parent(made.config()).look(SCOPE)
        made.route((TWO, 100), shadow=slot_of(THREE))
        made.compute.objects["healthChecks", SCOPE.name]["timeoutSec"] = 1
        made.deploy(ONE)
        made.route((TWO, 90), (ONE, 10))
        made.route()
        for each in (ONE, TWO, THREE):
            made.target.remove(slot_of(each))
    return made


def test_the_recording_is_that_of_the_client() -> None:
    assert recorded() == of_client()


def test_every_method_is_used(world: GoogleWorld) -> None:
    used = {method_of(request)[0] for request in world.compute.requests}
    assert used == set(recorded()["methods"])


def test_each_request_is_read_by_the_types_of_the_client(world: GoogleWorld) -> None:
    from google.cloud import compute_v1
    from google.protobuf import json_format

    bodies = 0
    for request in world.compute.requests:
        name, method, _ = method_of(request)
        if method["body"]:
            kind = getattr(compute_v1, method["body"]).pb()
            message = json_format.Parse(request.content, kind(), ignore_unknown_fields=False)
            _check_enums(message)
            bodies += 1
        assert request.url.path.startswith("/compute/v1/projects/iris-4711/global/"), name
    assert bodies > 30


def _check_enums(message: object) -> None:
    """The client keeps enums as texts; the recording says which are meant."""
    from google.protobuf import json_format

    check(
        message.DESCRIPTOR.name,  # type: ignore[attr-defined]
        json_format.MessageToDict(message),
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("wheight", 10),
        ("loadBalancingScheme", "EXTERNAL_MANGED"),
        ("timeoutSec", "60"),
        ("backends", {"group": "g"}),
        ("outlierDetection", {"interval": {"seconds": "soon"}}),
    ],
)
def test_what_the_client_does_not_know_is_refused(field: str, value: object) -> None:
    with pytest.raises(RefusedError):
        check("BackendService", {"name": "iris", field: value})


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"fingerprint": "old="}, 412),
        ({"defaultService": link("backendServices", "missing")}, 404),
        ({"hostRules": [{"hosts": ["*"], "pathMatcher": "missing"}]}, 400),
    ],
)
def test_the_stand_in_refuses_as_google_does(change: dict[str, object], status: int) -> None:
    compute = GoogleCompute()
    compute.shell()
    body = {**compute.objects["urlMaps", "iris"], **change}
    url = "https://compute/compute/v1/projects/iris-4711/global/urlMaps/iris"
    answer = compute(httpx.Request("PUT", url, content=json.dumps(body)))
    assert answer.status_code == status
