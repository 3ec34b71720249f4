"""The NetworkPolicy of a target: only mlship's own load balancer reaches the pods of releases."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from mlship.adapters.targets.kubernetes.api import Api, Kind, Manifest
from mlship.adapters.targets.kubernetes.manifests import INSTANCE, METRICS, Scope
from mlship.config.project import TargetConfig
from mlship.errors import UnavailableError

KIND: Final[Kind] = "NetworkPolicy"
RIGHTS: Final[dict[Kind, tuple[str, ...]]] = {KIND: ("get", "create", "patch", "delete")}
"""The additional rights for `network_policy`."""


def spec(scope: Scope, router: Mapping[str, str]) -> Manifest:
    """Return the spec of the policy; `router` has the labels of the load balancer's pods.

    Metrics have no predictions: all pods of the cluster may read them, wherever Prometheus runs.
    Probes of the kubelet come from the pod's own node, which no policy keeps out.
    """
    return {
        "podSelector": {"matchLabels": {INSTANCE: scope.name}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": dict(router)}}],
                "ports": [{"port": "http", "protocol": "TCP"}],
            },
            {
                "from": [{"namespaceSelector": {}}],
                "ports": [{"port": METRICS, "protocol": "TCP"}],
            },
        ],
    }


def retract(api: Api, config: TargetConfig, name: str) -> None:
    """Remove the policy of a target that wants none any more."""
    if config.kubernetes.network_policy:
        return
    # Without the right to read it, mlship did not create it either.
    with suppress(UnavailableError):
        if api.get(KIND, name) is not None:
            api.delete(KIND, name)
