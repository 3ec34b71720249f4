"""Sections of a target in mlship.yaml: the cluster in which releases run."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlship.config.amounts import Memory


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class AutoscaleConfig(_Section, frozen=True):
    """The measure of a HorizontalPodAutoscaler: CPU, or requests in flight."""

    cpu_percent: Annotated[
        Annotated[int, Meta(ge=1, le=100)],
        Meta(description="mean CPU of the pods, in percent of their CPU request"),
    ] = 70
    metric: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^[A-Za-z_:][A-Za-z0-9_:.-]*(?!\n)$",
                extra={"form": "the name of a metric, such as requests_in_flight"},
            ),
        ]
        | None,
        Meta(
            description="a metric of pods in the API custom.metrics.k8s.io that counts requests in "
            "flight, to scale by instead of CPU"
        ),
    ] = None
    in_flight: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="mean of `metric` for each pod; `mlship loadtest --find-rate` says it"),
    ] = None


class KubernetesConfig(_Section, frozen=True):
    """The namespace, the load balancer, and the resources of a pod."""

    kubeconfig: Annotated[
        str | None, Meta(description="path; default: KUBECONFIG, then ~/.kube/config")
    ] = None
    context: Annotated[
        str | None,
        Meta(description="context of the kubeconfig; required if it has several contexts"),
    ] = None
    namespace: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            description="an existing namespace",
            extra={"form": "lower-case letters, digits and -: iris"},
        ),
    ] = "default"
    gateway: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*$",
                extra={"form": "namespace/name, such as gateway/gateway"},
            ),
        ]
        | None,
        Meta(
            description="the Gateway that receives requests, in the cluster of the parent where "
            "there are `clusters`; default: mlship runs its own load balancer in the namespace, "
            "two replicas of Envoy"
        ),
    ] = None
    service: Annotated[
        Literal["LoadBalancer", "ClusterIP"],
        Meta(
            description="the Service of mlship's own load balancer: ClusterIP has no address "
            "outside of the cluster; not with `gateway`"
        ),
    ] = "LoadBalancer"
    network_policy: Annotated[
        bool,
        Meta(
            description="a NetworkPolicy by which only mlship's own load balancer reaches the pods "
            "of releases, if the network of the cluster enforces it; not with `gateway`"
        ),
    ] = False
    host: Annotated[
        str | None,
        Meta(description="host name of the route; default: any host, also the Gateway's address"),
    ] = None
    path: Annotated[
        str,
        Meta(
            pattern=r"^/[A-Za-z0-9._~/-]*$",
            description="path prefix of the route; removed before a request reaches a pod",
            extra={"form": "starts with /, such as /iris"},
        ),
    ] = "/"
    cpu: Annotated[
        Annotated[
            str,
            Meta(pattern=r"^[0-9]+(\.[0-9]+)?m?$", extra={"form": "such as 250m, or quoted '2'"}),
        ]
        | None,
        Meta(description="CPU request of a pod; null sets no request"),
    ] = "250m"
    memory: Annotated[
        Memory | None,
        Meta(description="memory request and limit of a pod; null sets neither"),
    ] = "512Mi"
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="autoscale a slot up to this; default: no autoscaling"),
    ] = None
    autoscale: Annotated[
        AutoscaleConfig,
        Meta(description="what a slot is scaled by, between its replicas and `max_replicas`"),
    ] = AutoscaleConfig()
    env: Annotated[dict[str, str], Meta(description="environment variables of a pod")] = {}
    env_from_secret: Annotated[
        str | None,
        Meta(
            description="Secret whose keys become environment variables of a pod, such as "
            "PGPASSWORD; `env` wins"
        ),
    ] = None
    api_keys_secret: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(?!\n)$",
                extra={"form": "the name of a Secret, such as iris-api-keys"},
            ),
        ]
        | None,
        Meta(
            description="Secret with the file of API keys as api-keys.json: only requests with "
            "one of them are answered; default: all are"
        ),
    ] = None
    tls_secret: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(?!\n)$",
                extra={"form": "the name of a Secret, such as iris-tls"},
            ),
        ]
        | None,
        Meta(
            description="Secret of type kubernetes.io/tls: mlship's own load balancer takes "
            "requests by https only (TLS 1.2 or later), on port 443; not with `gateway`; default: "
            "HTTP on port 80"
        ),
    ] = None
    spool_claim: Annotated[
        str | None,
        Meta(
            description="PersistentVolumeClaim for `observations.when_away: spool`, which all pods "
            "of the target mount; default: an emptyDir, which is lost with its pod"
        ),
    ] = None
    image_pull_secret: Annotated[
        str | None, Meta(description="Secret with the credentials of a private registry")
    ] = None
    prestop_seconds: Annotated[
        Annotated[int, Meta(ge=0)],
        Meta(
            description="a terminating pod keeps serving this long, until the load balancer has "
            "dropped it"
        ),
    ] = 5


class LoadBalancerConfig(_Section, frozen=True):
    """Google's global external Application Load Balancer, above the clusters of a target."""

    url_map: Annotated[
        str,
        Meta(
            pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?(?!\n)$",
            description="name of its URL map, which has the route",
        ),
    ]
    address: Annotated[
        str,
        Meta(
            pattern=r"^https?://[A-Za-z0-9.-]+(?!\n)$",
            description="address of requests, such as https://iris.example.com",
            extra={"form": "http:// or https:// and a host name"},
        ),
    ]


class GkeConfig(_Section, frozen=True):
    """A GKE cluster, reached with Application Default Credentials."""

    project: Annotated[str, Meta(description="ID of the Google Cloud project")]
    location: Annotated[str, Meta(description="region or zone, such as europe-west1")]
    cluster: Annotated[str, Meta(description="name of the cluster")]
    health_check_policy: Annotated[
        bool,
        Meta(
            description="create a HealthCheckPolicy, which Google's Gateway classes need; false "
            "for other classes"
        ),
    ] = True
