"""A stand-in of the Compute Engine API: global objects of one project, changed by operations.

It is made from the definitions of Google's own client, see `compute_definitions`: another method,
an unknown field, a value of another type or of another enum is refused as by Google. Beside these,
it keeps what Google's documentation says of the objects that mlship writes: fingerprints,
references, priorities, weights, and limits. It shows that requests are well-formed and answers
understood, not that Google accepts them.
"""

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import httpx

from tests.stand_ins.compute_definitions import recorded

PROJECT = "iris-4711"
FULL = "https://www.googleapis.com/compute/v1"
_GLOBAL = f"projects/{PROJECT}/global"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
Resource = dict[str, Any]


class RefusedError(Exception):
    """Google refuses a request: a status, a reason and a message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class GoogleCompute:
    """The API of one project.

    Attributes:
        objects: by kind and name.
        groups: the endpoints of network endpoint groups, by full name; each is healthy or not.
        writes: the verb, kind and name of each request that changed something.
        polls: how often an operation is asked for before it is done.
        quota: the largest number of backend services.
        denied: permissions that the account does not have.
        failing: kind, code and message for the next operations, which are started and fail.
        before: called with each request; may return a response of its own.
        limit: called for each write and once more after it; it may kill the process.
        applied: called after each change of the URL map.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Resource] = {}
        self.groups: dict[str, list[bool]] = {}
        self.writes: list[str] = []
        self.requests: list[httpx.Request] = []
        self.polls = 0
        self.quota = 50
        self.denied: set[str] = set()
        self.failing: list[tuple[int, str, str]] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.limit: Callable[[], None] = lambda: None
        self.applied: Callable[[], None] = lambda: None
        self._count = 0
        self._operations: dict[str, tuple[int, Resource]] = {}
        self._known: dict[str, Resource] = {}

    def shell(self, name: str = "iris") -> None:
        """Make what the commands of the guide make: a URL map that leads to no release."""
        nobody = {"name": "nobody", "loadBalancingScheme": "EXTERNAL_MANAGED"}
        self._keep("backendServices", nobody)
        self._keep("urlMaps", {"name": name, "defaultService": link("backendServices", "nobody")})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.requests.append(request)
        own = self.before(request)
        if own is not None:
            return own
        try:
            return httpx.Response(200, json=self._answer(request))
        except RefusedError as refused:
            error = {"reason": refused.reason, "message": str(refused), "domain": "global"}
            body = {"code": refused.status, "message": str(refused), "errors": [error]}
            return httpx.Response(refused.status, json={"error": body})

    def _answer(self, request: httpx.Request) -> Resource:
        name, method, values = method_of(request)
        body: Any = json.loads(request.content) if request.content else None
        if (body is None) == bool(method["body"]):
            raise RefusedError(400, "required", f"{name} has the wrong body")
        if body is not None:
            check(method["body"], body)
        service, _, verb = name.partition(".")
        kind = service[0].lower() + service[1:]
        if kind == "globalOperations":
            return self._operation(values[-1])
        self._permit(kind, verb)
        match verb:
            case "Get":
                return self._find(kind, values[-1])
            case "TestIamPermissions":
                self._find(kind, values[-1])
                granted = [each for each in body["permissions"] if each not in self.denied]
                return {"permissions": granted}
            case "GetHealth":
                return self._health(values[-1], body["group"])
        return self._write(request, kind, verb, values[-1], body)

    def _write(
        self, request: httpx.Request, kind: str, verb: str, name: str, body: Resource | None
    ) -> Resource:
        asked = request.url.params.get("requestId", "")
        if asked in self._known:
            return self._known[asked]
        name = body["name"] if body and verb == "Insert" else name
        if self.failing:
            code, what, message = self.failing.pop(0)
            return self._started({"errors": [{"code": what, "message": message}]}, code)
        self._check_write(kind, verb, name, body)
        self.limit()
        self.writes.append(f"{verb} {kind}/{name}")
        if body is None:
            del self.objects[kind, name]
        else:
            self._keep(kind, {**body, "name": name})
        if kind == "urlMaps":
            self.applied()
        self.limit()
        self._known[asked] = self._started()
        return self._known[asked]

    def _check_write(self, kind: str, verb: str, name: str, body: Resource | None) -> None:
        if verb == "Insert":
            self._check_new(kind, name)
        before = self._find(kind, name) if verb != "Insert" else {}
        if verb == "Update" and kind != "healthChecks":
            given = (body or {}).get("fingerprint")
            if given != before["fingerprint"]:
                raise RefusedError(412, "conditionNotMet", "Invalid fingerprint.")
        if body is None:
            self._check_unused(kind, name)
        elif kind == "urlMaps":
            self._check_url_map(body)
        elif kind == "backendServices":
            self._check_service(body)

    def _check_new(self, kind: str, name: str) -> None:
        if (kind, name) in self.objects:
            raise RefusedError(409, "alreadyExists", f"{_what(kind, name)} already exists")
        if not _NAME.fullmatch(name):
            raise RefusedError(400, "invalid", f"Invalid value for field 'resource.name': '{name}'")
        services = sum(each == "backendServices" for each, _ in self.objects)
        if kind == "backendServices" and services >= self.quota:
            text = f"Quota 'BACKEND_SERVICES' exceeded. Limit: {self.quota}.0 globally."
            raise RefusedError(403, "quotaExceeded", text)

    def _check_unused(self, kind: str, name: str) -> None:
        for (user, _), found in self.objects.items():
            if user != kind and link(kind, name) in json.dumps(found):
                text = f"{_what(kind, name)} is already being used by '{found['selfLink']}'"
                raise RefusedError(400, "resourceInUseByAnotherResource", text)

    def _check_url_map(self, body: Resource) -> None:
        matchers = {matcher["name"]: matcher for matcher in body.get("pathMatchers") or ()}
        hosts = [host for rule in body.get("hostRules") or () for host in rule["hosts"]]
        leading = {rule["pathMatcher"] for rule in body.get("hostRules") or ()}
        _require(len(hosts) == len(set(hosts)), "a host is in two host rules")
        _require(leading == set(matchers), "a path matcher without a host rule, or the opposite")
        for service in _services_of(body):
            name = service.rpartition("/")[2]
            found = self._find("backendServices", name)
            managed = found.get("loadBalancingScheme") == "EXTERNAL_MANAGED"
            _require(managed, f"{name} is of another load balancing scheme")
        for matcher in matchers.values():
            _require("defaultService" in matcher, "a path matcher without a default service")
            priorities = [rule["priority"] for rule in matcher.get("routeRules") or ()]
            _require(len(priorities) == len(set(priorities)), "two rules of one priority")
            for rule in matcher.get("routeRules") or ():
                _check_rule(rule)

    def _check_service(self, body: Resource) -> None:
        for check_link in body.get("healthChecks") or ():
            self._find("healthChecks", check_link.rpartition("/")[2])
        groups = [backend["group"] for backend in body.get("backends") or ()]
        _require(not groups or bool(body.get("healthChecks")), "NEGs need a health check")
        _require(len(groups) == len(set(groups)), "a group twice in one backend service")
        for group in groups:
            _require(group.startswith(FULL), f"{group} is not a full URL")
            if group not in self.groups:
                text = f"The resource '{group.removeprefix(FULL + '/')}' was not found"
                raise RefusedError(404, "notFound", text)

    def _health(self, name: str, group: str) -> Resource:
        service = self._find("backendServices", name)
        groups = [backend["group"] for backend in service.get("backends") or ()]
        _require(group in groups, f"{group} is no backend of {name}")
        used = any(
            link("backendServices", name) in json.dumps(found)
            for (kind, _), found in self.objects.items()
            if kind == "urlMaps"
        )
        # Google checks the health of what a URL map leads to, and of nothing else.
        states = self.groups.get(group, []) if used else []
        return {
            "kind": "compute#backendServiceGroupHealth",
            "healthStatus": [
                {"healthState": "HEALTHY" if is_healthy else "UNHEALTHY"} for is_healthy in states
            ],
        }

    def _permit(self, kind: str, verb: str) -> None:
        needs = {"GetHealth": "get", "Insert": "create"}.get(verb, verb.lower())
        permission = f"compute.{kind}.{needs}"
        if permission in self.denied:
            text = f"Required '{permission}' permission for '{_GLOBAL}/{kind}'"
            raise RefusedError(403, "forbidden", text)

    def _find(self, kind: str, name: str) -> Resource:
        if (kind, name) not in self.objects:
            raise RefusedError(404, "notFound", f"{_what(kind, name)} was not found")
        return self.objects[kind, name]

    def _keep(self, kind: str, body: Resource) -> None:
        """Keep an object as Google completes it: large numbers are text, lists are never empty."""
        self._count += 1
        before = self.objects.get((kind, body["name"]), {"id": str(1000 + self._count)})
        filled = {name: value for name, value in body.items() if value != []}
        message = kind[0].upper() + kind[1:].removesuffix("s")
        kept = {
            **filled,
            "id": before["id"],
            "selfLink": link(kind, body["name"]),
            "kind": f"compute#{kind.removesuffix('s')}",
        }
        if "fingerprint" in _definitions()["messages"][message]:
            kept["fingerprint"] = f"{self._count:08x}="
        check(message, kept)
        self.objects[kind, body["name"]] = kept

    def _started(self, error: Resource | None = None, code: int = 0) -> Resource:
        self._count += 1
        name = f"operation-{self._count}"
        done: Resource = {"name": name, "status": "DONE", "progress": 100}
        if error is not None:
            done |= {"error": error, "httpErrorStatusCode": code, "httpErrorMessage": "FAILED"}
        self._operations[name] = (self.polls, done)
        return done if not self.polls else {"name": name, "status": "RUNNING", "progress": 0}

    def _operation(self, name: str) -> Resource:
        if name not in self._operations:
            raise RefusedError(404, "notFound", f"operation {name} was not found")
        left, done = self._operations[name]
        self._operations[name] = (left - 1, done)
        return done if left <= 1 else {"name": name, "status": "RUNNING", "progress": 50}


def link(kind: str, name: str) -> str:
    """Return the full name of a global object."""
    return f"{FULL}/{_GLOBAL}/{kind}/{name}"


def method_of(request: httpx.Request) -> tuple[str, Resource, list[str]]:
    """Return the method of a request: its name, its definition, and the values in its path.

    Raises:
        RefusedError: the definitions know no such method, or a parameter that it does not have.
    """
    for name, method in _definitions()["methods"].items():
        pattern = re.sub(r"{\w+}", "([^/]+)", method["path"])
        match = re.fullmatch(pattern, request.url.path)
        if match and method["verb"] == request.method:
            unknown = set(request.url.params) - set(method["parameters"])
            if unknown or match[1] != PROJECT:
                raise RefusedError(400, "invalidParameter", f"{name}: {unknown or match[1]}")
            return name, method, [*match.groups()]
    raise RefusedError(404, "notFound", f"{request.method} {request.url.path} is no method")


def check(message: str, value: Any, where: str = "resource") -> None:
    """Check a value by the definition of a message, as Google does.

    Raises:
        RefusedError: a field is unknown, or has another type, or a value that its enum lacks.
    """
    fields = _definitions()["messages"][message]
    _require(isinstance(value, dict), f"{where} is no object")
    for name, each in value.items():
        _require(name in fields, f"Unknown name \"{name}\" at '{where}'")
        field = fields[name]
        if field.get("repeated"):
            _require(isinstance(each, list), f"{where}.{name} is no list")
        for part in each if field.get("repeated") else [each]:
            _check_value(field, part, f"{where}.{name}")


def _check_value(field: Resource, value: Any, where: str) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "bool": (bool,),
        "integer": (int,),
        "int64": (str, int),
        "number": (int, float),
        "map": (dict,),
    }
    if field["type"] not in kinds:
        check(field["type"], value, where)
        return
    is_kind = isinstance(value, kinds[field["type"]])
    _require(is_kind and (type(value) is not bool or field["type"] == "bool"), f"{where}: {value}")
    if field["type"] == "int64":
        _require(str(value).lstrip("-").isdecimal(), f"{where}: {value} is no number")
    _require("enum" not in field or value in field["enum"], f"{where}: {value} is not in the enum")


def _check_rule(rule: Resource) -> None:
    _require(len(rule.get("description", "")) <= 1024, "a description of more than 1024 characters")
    action = rule.get("routeAction", {})
    weighted = action.get("weightedBackendServices")
    _require(("service" in rule) != (weighted is not None), "a rule leads to one thing")
    for entry in weighted or ():
        _require(0 <= entry["weight"] <= 1000, "a weight is from 0 to 1000")
    _require(weighted is None or any(entry["weight"] for entry in weighted), "all weights are 0")
    conditions = action.get("retryPolicy", {}).get("retryConditions", [])
    known = {"5xx", "gateway-error", "connect-failure", "retriable-4xx", "refused-stream"}
    _require(set(conditions) <= known, f"retry conditions {conditions}")
    for match in rule["matchRules"]:
        for header in match.get("headerMatches") or ():
            ways = set(header) & {"exactMatch", "prefixMatch", "suffixMatch", "rangeMatch"}
            _require(len(ways) == 1, "a header is matched in one way, and not by regexMatch")


def _services_of(value: Any) -> list[str]:
    """Return the backend services that a URL map names."""
    if isinstance(value, dict):
        named = {"service", "defaultService", "backendService"}
        own = [each for name, each in value.items() if name in named]
        return own + [each for part in value.values() for each in _services_of(part)]
    return (
        [each for part in value for each in _services_of(part)] if isinstance(value, list) else []
    )


def _require(is_so: bool, text: str) -> None:
    if not is_so:
        raise RefusedError(400, "invalid", f"Invalid value: {text}")


def _what(kind: str, name: str) -> str:
    return f"The resource '{_GLOBAL}/{kind}/{name}'"


@functools.cache
def _definitions() -> dict[str, Any]:
    return recorded()
