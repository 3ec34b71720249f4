"""The route of a target in a cluster, which a worker in a pod reads from the cluster's API.

The object is the source of truth that also decides about requests. A worker may read this one
object and nothing else. It asks again and again: a mounted ConfigMap arrives up to a minute later.
"""

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship import files
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.stream import Plan, Side
from mlship.domain.stream_cluster import Place
from mlship.errors import MlshipError, TimedOutError, UnavailableError

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LOOK_SECONDS: Final = 0.5
_FIRST_SECONDS: Final = 180.0
_REQUEST_SECONDS: Final = 5.0
_READY: Final = "/v2/health/ready"
PORT: Final = 80


class Shares(msgspec.Struct, frozen=True):
    """The weights of slots with traffic in percent, by name, and the slot that gets copies."""

    weights: dict[str, int]
    shadow: str = ""


def shares(place: Place, manifest: Mapping[str, Any]) -> Shares:
    """Return who gets traffic by the object with a route.

    Raises:
        UnavailableError: it is not as mlship writes it.
    """
    try:
        weights, shadow = _of_kind(place, manifest)
    except (LookupError, TypeError, ValueError, msgspec.DecodeError) as error:
        message = f"{place.kind} {place.name} cannot be read as a route: {error!r}"
        raise UnavailableError(message, hint="see `mlship status`") from error
    # In the order of the load balancer: a key stays on its side.
    kept = {slot: weight for slot, weight in sorted(weights.items()) if weight or slot == shadow}
    if shadow:
        kept.setdefault(shadow, 0)
    return Shares(dict(sorted(kept.items())), shadow)


def _of_kind(place: Place, manifest: Mapping[str, Any]) -> tuple[dict[str, int], str]:
    if place.kind == "ConfigMap":
        table = msgspec.json.decode(manifest["data"]["routes.json"])["resources"][0]
        action = table["virtual_hosts"][0]["routes"][-1].get("route", {})
        clusters = action.get("weighted_clusters", {}).get("clusters", [])
        mirrors = [each["cluster"] for each in action.get("request_mirror_policies", ())]
        weights = {each["name"]: int(each["weight"]) for each in clusters}
        # A copy goes to the slot's own cluster, whose name has something after the slot.
        return weights, mirrors[0].partition(".")[0] if mirrors else ""
    rule, start = manifest["spec"]["rules"][-1], f"{place.prefix}-"
    mirrors = [
        each["requestMirror"]["backendRef"]["name"].removeprefix(start)
        for each in rule.get("filters", ())
        if each["type"] == "RequestMirror"
    ]
    references = {each["name"]: int(each.get("weight", 1)) for each in rule["backendRefs"]}
    weights = {name.removeprefix(start): weight for name, weight in references.items()}
    return weights, mirrors[0] if mirrors else ""


class ClusterApi:
    """Reads the object with the route, as the service account of the pod.

    Args:
        place: of the object.
        environment: has the address of the API, in every pod.
    """

    def __init__(self, place: Place, environment: Mapping[str, str]) -> None:
        self._place = place
        self._host = environment.get("KUBERNETES_SERVICE_HOST", "")
        self._port = int(environment.get("KUBERNETES_SERVICE_PORT", "443"))

    def read(self) -> dict[str, Any]:
        """Return the object.

        Raises:
            UnavailableError: the API does not answer, or refuses.
        """
        try:
            # Read each time: the kubelet replaces the token.
            token = (_ACCOUNT / "token").read_text()
            context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=_REQUEST_SECONDS, context=context
            )
            try:
                headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
                connection.request("GET", self._place.path, headers=headers)
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            message = f"the API of the cluster does not answer: {error}"
            raise UnavailableError(message, hint="check the network of the pod") from error
        if answer.status != http.client.OK:
            message = f"the API of the cluster answered {answer.status} for {self._place.path}"
            hint = "apply the Role that `mlship stream render` wrote, and deploy a release"
            raise UnavailableError(message, hint=hint)
        found: dict[str, Any] = json.loads(data)
        return found


class SlotIdentities:
    """Which release runs in a slot, as its pods say. A slot never gets another one.

    Args:
        place: of the Services.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._known: dict[str, tuple[Digest, Digest]] = {}

    def of(self, slot: str) -> tuple[Digest, Digest]:
        """Return the id of the release of a slot, and the digest of its bundle.

        Raises:
            UnavailableError: no pod of it is ready.
        """
        if slot not in self._known:
            host = self._place.service(slot)
            try:
                connection = http.client.HTTPConnection(host, PORT, timeout=_REQUEST_SECONDS)
                try:
                    connection.request("GET", _READY)
                    answer = connection.getresponse()
                    body = json.loads(answer.read())
                finally:
                    connection.close()
                if answer.status != http.client.OK:
                    message = f"slot {slot} is not ready: {body.get('state', answer.status)}"
                    raise UnavailableError(message, hint="see `mlship status`")
                self._known[slot] = Digest(body["release"]), Digest(body["bundle"])
            except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                message = f"slot {slot} does not answer at {host}: {error}"
                raise UnavailableError(message, hint="see `mlship status`") from error
        return self._known[slot]


def plan(place: Place, found: Shares, identity: Callable[[str], tuple[Digest, Digest]]) -> Plan:
    """Return the plan for a route.

    Raises:
        UnavailableError: no slot gets traffic, or one does not answer.
    """
    if not any(found.weights.values()):
        message = f"{place.kind} {place.name} gives no release traffic"
        raise UnavailableError(message, hint="run `mlship deploy-production`")
    sides = []
    for slot, weight in found.weights.items():
        release, bundle = identity(slot)
        name = f"{place.project}@{digests.short(release)}"
        sides.append(
            Side(slot=slot, release=release, name=name, bundle="", digest=bundle, weight=weight)
        )
    revision = digests.short(digests.of_value(found))
    return Plan(revision=revision, sides=tuple(sides), shadow=found.shadow)


class Follower:
    """Keeps the plan of a worker as the route of the cluster is.

    Args:
        place: of the route.
        file: the plan, which the worker looks at before each batch.
        read: returns the object with the route.
        identity: says which release a slot has.
        note: shows a line to the operator.
    """

    def __init__(
        self,
        place: Place,
        file: Path,
        read: Callable[[], Mapping[str, Any]],
        identity: Callable[[str], tuple[Digest, Digest]],
        note: Callable[[str], None],
    ) -> None:
        self._place = place
        self._file = file
        self._read = read
        self._identity = identity
        self._note = note
        self._shares: Shares | None = None
        self._failure = ""

    def begin(self, seconds: float = _FIRST_SECONDS) -> None:
        """Write the first plan, then follow the route in a thread.

        Raises:
            TimedOutError: there is no plan in time, with the reason.
        """
        deadline = time.monotonic() + seconds
        while not self.look():
            if time.monotonic() > deadline:
                message = f"there was no route within {seconds:g} s: {self._failure}"
                raise TimedOutError(message, hint="see `mlship status`")
            time.sleep(_LOOK_SECONDS)
        threading.Thread(target=self._follow, daemon=True).start()

    def look(self) -> bool:
        """Write the plan if the route has changed; return whether it is the route's.

        A route that cannot be read or followed changes nothing.
        """
        try:
            found = shares(self._place, self._read())
            if found != self._shares:
                encoded = msgspec.json.encode(plan(self._place, found, self._identity))
                files.write_atomically(self._file, msgspec.json.format(encoded))
                self._shares = found
        except MlshipError as error:
            if error.message != self._failure:
                self._note(f"the route stays as it was: {error.message}")
            self._failure = error.message
            return False
        self._failure = ""
        return True

    def _follow(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            self.look()


def of_environment(
    place: Place, file: Path, note: Callable[[str], None], environment: Mapping[str, str]
) -> Follower:
    """Return a follower for a pod."""
    return Follower(
        place, file, ClusterApi(place, environment).read, SlotIdentities(place).of, note
    )
