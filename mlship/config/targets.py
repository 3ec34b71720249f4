"""Where in clusters releases run, as sections of a target in mlship.yaml."""

from typing import Annotated

import msgspec
from msgspec import Meta


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class KubernetesConfig(_Section, frozen=True):
    """Where in a cluster releases run, behind which Gateway, and what a pod gets."""

    kubeconfig: Annotated[
        str | None, Meta(description="path; without it KUBECONFIG, then ~/.kube/config")
    ] = None
    context: Annotated[
        str | None,
        Meta(description="of the kubeconfig; needless for one context, or in the cluster itself"),
    ] = None
    namespace: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            description="must exist",
            extra={"form": "lower-case letters, digits and -, as in iris"},
        ),
    ] = "default"
    gateway: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*$",
            description="the Gateway that takes requests in",
            extra={"form": "namespace/name, as in gateway/gateway"},
        ),
    ] = "gateway/gateway"
    host: Annotated[
        str | None, Meta(description="host name of the route; without it any, and the address")
    ] = None
    path: Annotated[
        str,
        Meta(
            pattern=r"^/[A-Za-z0-9._~/-]*$",
            description="prefix of the route, taken off before a pod sees the request",
            extra={"form": "starts with /, as in /iris"},
        ),
    ] = "/"
    cpu: Annotated[
        Annotated[
            str,
            Meta(pattern=r"^[0-9]+(\.[0-9]+)?m?$", extra={"form": "as 250m, or as '2' in quotes"}),
        ]
        | None,
        Meta(description="requested for a pod; null asks for none"),
    ] = "250m"
    memory: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9]+(\.[0-9]+)?([KMGT]i|[kMGT])?$",
                extra={"form": "as 512Mi or 2Gi"},
            ),
        ]
        | None,
        Meta(description="requested for a pod, and its limit; null asks for none"),
    ] = "512Mi"
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="a slot may grow to, at 70 % of its cpu; by default not"),
    ] = None
    env: Annotated[dict[str, str], Meta(description="environment variables of a pod")] = {}
    env_from_secret: Annotated[
        str | None,
        Meta(
            description="a Secret whose keys become variables of a pod, as PGPASSWORD; `env` wins"
        ),
    ] = None
    image_pull_secret: Annotated[
        str | None, Meta(description="a Secret for a registry that asks who pulls")
    ] = None
    prestop_seconds: Annotated[
        Annotated[int, Meta(ge=0)],
        Meta(description="a pod that ends answers so long, until the gateway has noticed"),
    ] = 5


class GkeConfig(_Section, frozen=True):
    """A cluster of Google's; who we are comes from Application Default Credentials."""

    project: Annotated[str, Meta(description="id of the Google Cloud project")]
    location: Annotated[str, Meta(description="region or zone, as in europe-west1")]
    cluster: Annotated[str, Meta(description="name of the cluster")]
    health_check_policy: Annotated[
        bool,
        Meta(description="tell Google's Gateway classes what to ask pods; false with another"),
    ] = True
