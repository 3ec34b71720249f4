"""A stand-in of the proxies of Google's load balancer: it routes by a URL map in `GoogleCompute`.

Rules are looked at by priority, a backend service is chosen by weight, and within it the PREFERRED
backends get the request unless fewer than 70 % of their pods are healthy. It knows only what mlship
uses.
"""

import copy
import random
from typing import Any, NamedTuple

import httpx

from tests.stand_ins.google_compute import GoogleCompute, Resource

_THRESHOLD = 0.7
"""The default for global load balancers:
https://docs.cloud.google.com/load-balancing/docs/service-lb-policy"""


class Answer(NamedTuple):
    """Who answers a request, and what answers say.

    Attributes:
        group: the network endpoint group of the pod that answers; empty if none does.
        path: that the pod sees.
        headers: of the response.
        copied: the backend service that gets a copy; empty if none does.
    """

    group: str
    path: str
    headers: dict[str, str]
    copied: str


class Proxies:
    """The proxies that a client reaches. Some lag behind: they use a URL map of before."""

    def __init__(self, compute: GoogleCompute, name: str = "iris") -> None:
        self._compute, self._name = compute, name
        self._chance = random.Random(7)
        self.lag = 0
        self._old: tuple[Resource, int] = ({}, 0)
        self._current: Resource = copy.deepcopy(self._url_map())
        compute.applied = self._applied

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer over HTTP: 200 with the group as the body, 503 without any."""
        found = self.ask(request.url.host, request.url.path, dict(request.headers))
        return httpx.Response(200 if found.group else 503, headers=found.headers, text=found.group)

    def ask(self, host: str, path: str, headers: dict[str, str] | None = None) -> Answer:
        """Route a request."""
        old, left = self._old
        if left and self._chance.random() < 0.5:
            self._old = (old, left - 1)
            return self._routed(old, host, path, headers or {})
        return self._routed(self._current, host, path, headers or {})

    def _applied(self) -> None:
        self._old = (self._current, self.lag)
        self._current = copy.deepcopy(self._url_map())

    def _url_map(self) -> Resource:
        return self._compute.objects["urlMaps", self._name]

    def _routed(self, url_map: Resource, host: str, path: str, headers: dict[str, str]) -> Answer:
        matcher = _matcher(url_map, host)
        rules = sorted((matcher or {}).get("routeRules") or (), key=lambda rule: rule["priority"])
        rule = next((rule for rule in rules if _matches(rule["matchRules"], path, headers)), None)
        if matcher is None or rule is None:
            return Answer("", path, {}, "")
        action = rule.get("routeAction", {})
        rewrite = action.get("urlRewrite", {}).get("pathPrefixRewrite")
        prefix = rule["matchRules"][0]["prefixMatch"]
        added = matcher["headerAction"]["responseHeadersToAdd"]
        return Answer(
            group=self._pod(rule.get("service") or self._weighted(action)),
            path=rewrite + path.removeprefix(prefix) if rewrite else path,
            headers={header["headerName"]: header["headerValue"] for header in added},
            copied=action.get("requestMirrorPolicy", {}).get("backendService", ""),
        )

    def _weighted(self, action: Resource) -> str:
        entries = action["weightedBackendServices"]
        weights = [entry["weight"] for entry in entries]
        (chosen,) = self._chance.choices(entries, weights=weights)
        return str(chosen["backendService"])

    def _pod(self, service: str) -> str:
        """Return the group of the pod: of the preferred ones while enough of them are healthy."""
        found = self._compute.objects["backendServices", service.rpartition("/")[2]]
        backends = found.get("backends") or []
        preferred = [each["group"] for each in backends if each["preference"] == "PREFERRED"]
        rest = [each["group"] for each in backends if each["preference"] == "DEFAULT"]
        pods = [state for group in preferred for state in self._compute.groups[group]]
        share = sum(pods) / len(pods) if pods else 0.0
        tiers = [preferred, rest] if share >= _THRESHOLD else [rest, preferred]
        for tier in tiers:
            healthy = [group for group in tier if any(self._compute.groups[group])]
            if healthy:
                return str(self._chance.choice(healthy))
        return ""


def _matcher(url_map: Resource, host: str) -> Resource | None:
    rules = url_map.get("hostRules") or []
    exact = [rule for rule in rules if host in rule["hosts"]]
    every = [rule for rule in rules if "*" in rule["hosts"]]
    rule = next(iter([*exact, *every]), None)
    matchers: list[Resource] = url_map.get("pathMatchers") or []
    name = rule["pathMatcher"] if rule else ""
    return next((each for each in matchers if each["name"] == name), None)


def _matches(matches: list[Resource], path: str, headers: dict[str, str]) -> bool:
    known = {name.lower(): value for name, value in headers.items()}
    return any(
        path.startswith(match["prefixMatch"])
        and all(_has(header, known) for header in match.get("headerMatches") or ())
        for match in matches
    )


def _has(match: Resource, headers: dict[str, str]) -> bool:
    value: Any = headers.get(match["headerName"].lower())
    if "exactMatch" in match:
        return bool(value == match["exactMatch"])
    bounds = match["rangeMatch"]
    if value is None or not value.lstrip("-").isdecimal():
        return False
    return int(bounds["rangeStart"]) <= int(value) < int(bounds["rangeEnd"])
