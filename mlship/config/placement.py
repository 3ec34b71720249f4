"""Where a target runs releases: in one cluster, or in clusters for champion and challenger."""

from typing import Annotated, Any, Final, Literal, Self

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from mlship.config import access
from mlship.config.access import Access
from mlship.config.targets import GkeConfig, KubernetesConfig, LoadBalancerConfig
from mlship.config.texts import Name
from mlship.errors import ConfigError

OTHER: Final = "other"


class ClusterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several clusters of a target. What it does not set, the target's sections say."""

    context: Annotated[str | None, Meta(description="context of the kubeconfig")] = None
    kubeconfig: Annotated[
        str | None, Meta(description="path; default: that of the target's section kubernetes")
    ] = None
    namespace: Annotated[
        str | None, Meta(description="an existing namespace; default: that of the target")
    ] = None
    gke: Annotated[GkeConfig | None, Meta(description="instead of `context`, for kind gke")] = None
    releases: Annotated[
        bool, Meta(description="whether releases run here; false for one that has the parent only")
    ] = True
    service_annotations: Annotated[
        dict[str, str] | None,
        Meta(
            description="annotations of the Service by which the parent reaches a release here; "
            "default: none, on GKE those of an internal address"
        ),
    ] = None


class Placement(Access, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The place of a target: this machine, one cluster, or several."""

    kind: Annotated[
        Literal["local", "kubernetes", "gke"],
        Meta(description="processes on this machine, a Kubernetes cluster, or a GKE cluster"),
    ] = "local"
    kubernetes: KubernetesConfig = KubernetesConfig()
    gke: Annotated[GkeConfig | None, Meta(description="for kind gke")] = None
    clusters: Annotated[
        dict[Name, ClusterConfig],
        Meta(
            description="clusters for champion and challenger, by name, instead of one; see "
            "`mlship guide clusters`"
        ),
    ] = {}
    challenger: Annotated[
        str,
        Meta(
            description="which of `clusters` a new release goes to: other than that of the "
            "champion, or a name"
        ),
    ] = OTHER
    parent: Annotated[
        str | None,
        Meta(
            description="which of `clusters` has the load balancer above them, and the lock of the "
            "target; default: the first"
        ),
    ] = None
    load_balancer: Annotated[
        LoadBalancerConfig | None,
        Meta(
            description="Google's load balancer above `clusters`, for kind gke; default: mlship's "
            "own in `parent`"
        ),
    ] = None

    @property
    def parent_cluster(self) -> str:
        """The name of the cluster with the load balancer; empty for a target of one cluster."""
        return self.parent or next(iter(self.clusters), "")

    @property
    def homes(self) -> tuple[str, ...]:
        """The names of the clusters in which releases run."""
        return tuple(name for name, cluster in self.clusters.items() if cluster.releases)

    def in_cluster(self, name: str) -> Self:
        """Return the target as if it were one of its clusters alone."""
        cluster, is_parent = self.clusters[name], name == self.parent_cluster
        own = replace(
            self.kubernetes,
            context=cluster.context,
            kubeconfig=cluster.kubeconfig or self.kubernetes.kubeconfig,
            namespace=cluster.namespace or self.kubernetes.namespace,
            # Above all clusters is one Gateway or router, in the parent's.
            gateway=self.kubernetes.gateway if is_parent else None,
            tls_secret=self.kubernetes.tls_secret if is_parent else None,
        )
        alone: dict[str, Any] = {"clusters": {}, "parent": None, "load_balancer": None}
        return replace(self, kubernetes=own, gke=cluster.gke, **alone)


def check(key: str, target: Placement) -> None:
    """Check the clusters of a target.

    Args:
        key: of the target, `targets.production`.
        target: its settings.

    Raises:
        ConfigError: clusters, challenger and parent do not fit together.
    """
    if not target.clusters:
        for name, is_set, what in (
            ("challenger", target.challenger != OTHER, "is one of"),
            ("parent", target.parent is not None, "is one of"),
            ("load_balancer", target.load_balancer is not None, "stands above"),
        ):
            if is_set:
                text = f"{name} {what} `clusters`, and there are none"
                raise _wrong(f"{key}.{name}", text, f"remove it, or set {key}.clusters")
        return
    _check_target(key, target)
    for name, cluster in target.clusters.items():
        _check_cluster(f"{key}.clusters.{name}", target, name, cluster)
    _check_places(key, target)
    _check_different(key, target)
    if target.load_balancer is not None:
        _check_load_balancer(f"{key}.load_balancer", target)


def check_access(key: str, target: Placement) -> None:
    """Check who may ask a target in a cluster.

    Raises:
        ConfigError: see `access.check`.
    """
    above = None
    if target.load_balancer is not None:
        above = "the target HTTPS proxy of the load balancer"
    elif target.kubernetes.gateway is not None:
        above = f"the listener of Gateway {target.kubernetes.gateway}"
    own = target.kubernetes
    access.check(
        key, target, secret=own.api_keys_secret, tls_secret=own.tls_secret, tls_is_at=above
    )


def _check_target(key: str, target: Placement) -> None:
    own = target.kubernetes
    if target.kind == "local":
        hint = f"set {key}.kind to kubernetes or gke, or remove clusters"
        raise _wrong(f"{key}.clusters", "a local target has no clusters", hint)
    if own.context is not None or target.gke is not None:
        field = "gke" if target.gke is not None else "kubernetes.context"
        hint = f"move it into a cluster: {key}.clusters.NAME"
        raise _wrong(f"{key}.{field}", "it is that of one cluster, and there are several", hint)


def _check_cluster(key: str, target: Placement, name: str, cluster: ClusterConfig) -> None:
    if name == OTHER:
        text = f"`{OTHER}` is the rule that a challenger goes where the champion is not"
        raise _wrong(key, text, "give the cluster another name")
    is_google = target.kind == "gke"
    if (cluster.gke is not None) != is_google or (cluster.context is not None) == is_google:
        field, example = ("gke", "{project: ..., location: ..., cluster: ...}")
        if not is_google:
            field, example = ("context", "NAME")
        text = f"a cluster of a target of kind {target.kind} needs `{field}`, and no other kind"
        raise _wrong(key, text, f"set {key}: {{{field}: {example}}}")
    if not cluster.releases and target.parent_cluster != name:
        text = "no release runs there, and it is not the parent's"
        raise _wrong(f"{key}.releases", text, "remove the cluster, or set `parent` to it")


def _check_load_balancer(key: str, target: Placement) -> None:
    projects = {cluster.gke.project for cluster in target.clusters.values() if cluster.gke}
    if target.kind != "gke":
        text = "Google's load balancer reaches pods of GKE only"
        raise _wrong(key, text, "set kind: gke, or remove it")
    if len(projects) > 1:
        text = f"its backends are of one project, not of {', '.join(sorted(projects))}"
        raise _wrong(key, text, "name clusters of one project, or remove it")
    for field in ("host", "gateway"):
        if getattr(target.kubernetes, field) is not None:
            text = f"it takes the requests of a target, and so does kubernetes.{field}"
            raise _wrong(key, text, f"remove it, or kubernetes.{field}")


def _check_places(key: str, target: Placement) -> None:
    names, homes = ", ".join(target.clusters), target.homes
    if target.parent_cluster not in target.clusters:
        text = f"there is no cluster {target.parent}"
        raise _wrong(f"{key}.parent", text, f"set it to one of: {names}")
    if len(homes) < 2:
        text = "champion and challenger need two clusters, and releases run in "
        text += f"{homes[0]} only" if homes else "none"
        hint = f"name a second one; or, for one cluster, set {key}.kubernetes.context instead"
        raise _wrong(f"{key}.clusters", text, hint)
    if target.challenger != OTHER and target.challenger not in homes:
        known = target.challenger in target.clusters
        text = f"no release runs in cluster {target.challenger}"
        text = text if known else f"there is no cluster {target.challenger}"
        hint = f"set it to {OTHER}, or to one of: {', '.join(homes)}"
        raise _wrong(f"{key}.challenger", text, hint)


def _check_different(key: str, target: Placement) -> None:
    known: dict[object, str] = {}
    for name in target.clusters:
        one = target.in_cluster(name)
        google = one.gke and (one.gke.project, one.gke.location, one.gke.cluster)
        place = google or (one.kubernetes.kubeconfig, one.kubernetes.context)
        if place in known:
            text = f"it is the same cluster as {known[place]}"
            hint = "name another cluster; or, for one cluster, remove `clusters`"
            raise _wrong(f"{key}.clusters.{name}", text, hint)
        known[place] = name


def _wrong(key: str, text: str, hint: str) -> ConfigError:
    return ConfigError(f"mlship.yaml: {key}: {text}", hint=hint)
