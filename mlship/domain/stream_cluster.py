"""Where the workers of a stream in a cluster find the route and the releases."""

from typing import Final, Literal

import msgspec

READY: Final = "/tmp/ready"  # noqa: S108 (in the pod, a volume of its own)
"""A file that a worker makes when it answers messages."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The object with the route of a target, and the Services of its slots.

    Attributes:
        kind: of the object: of a target behind a Gateway, or of mlship's own load balancer.
        name: of the object.
        namespace: of the object and the Services.
        prefix: of the names of the Services, before the slot.
        project: the name of the project, for the names of releases.
    """

    kind: Literal["HTTPRoute", "ConfigMap"]
    name: str
    namespace: str
    prefix: str
    project: str

    @property
    def path(self) -> str:
        """The path of the object in the API of the cluster."""
        if self.kind == "ConfigMap":
            return f"/api/v1/namespaces/{self.namespace}/configmaps/{self.name}"
        group = "gateway.networking.k8s.io/v1"
        return f"/apis/{group}/namespaces/{self.namespace}/httproutes/{self.name}"

    def service(self, slot: str) -> str:
        """Return the host name of a slot's Service in the cluster."""
        return f"{self.prefix}-{slot}.{self.namespace}.svc"
