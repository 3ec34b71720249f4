"""Health checks of pods: the kubelet's probes, and those of Google's load balancers."""

import math

from mlship.adapters.targets.kubernetes.api import Manifest

_LIVE = "/v2/health/live"
_READY = "/v2/health/ready"


def probes(ready_seconds: float) -> Manifest:
    """Return the probes of a container that gets ready within a number of seconds."""

    def probe(path: str, every: int, failures: int) -> Manifest:
        return {
            "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
            "periodSeconds": every,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe(_LIVE, 1, max(1, math.ceil(ready_seconds))),
        "readinessProbe": probe(_READY, 2, 2),
        "livenessProbe": probe(_LIVE, 10, 3),
    }


def policy(service: str) -> Manifest:
    """Return the spec of the HealthCheckPolicy of a Service.

    Google's load balancers ask each pod by themselves, and for `/` by default, where a pod of ours
    redirects to its page. They know no names of ports: the serving port is the pod's own.
    Source: https://cloud.google.com/kubernetes-engine/docs/how-to/configure-gateway-resources
    """
    check = {"portSpecification": "USE_SERVING_PORT", "requestPath": _READY}
    return {
        "default": {"config": {"type": "HTTP", "httpHealthCheck": check}},
        "targetRef": {"group": "", "kind": "Service", "name": service},
    }
