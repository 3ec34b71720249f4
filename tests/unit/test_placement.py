"""The clusters of a target: their settings, and which of them are refused."""

import pytest

from mlship.config.project import TargetConfig
from mlship.errors import ConfigError
from tests.unit.test_settings import LEAST, complaint, read

TWO = "blue: {context: a}, green: {context: b}"
GKE = "gke: {project: p, location: europe-west1, cluster: "
LOAD_BALANCER = 'load_balancer: {url_map: iris, address: "https://iris.example.com"}'


def settings(clusters: str, *more: str, kind: str = "kubernetes") -> str:
    own = ", ".join([f"kind: {kind}", f"clusters: {{{clusters}}}", *more])
    return f"{LEAST}targets: {{production: {{{own}}}}}"


def production(text: str) -> TargetConfig:
    return read(text).targets["production"]


def test_one_cluster_needs_no_new_words() -> None:
    target = production(f"{LEAST}targets: {{production: {{kind: kubernetes}}}}")
    assert (target.clusters, target.parent_cluster, target.homes) == ({}, "", ())


def test_the_parent_is_in_the_first_cluster_and_the_challenger_in_another() -> None:
    target = production(settings(TWO))
    assert (target.parent_cluster, target.homes) == ("blue", ("blue", "green"))
    assert target.challenger == "other"


def test_a_gateway_is_that_of_the_parents_cluster() -> None:
    target = production(settings(TWO, "kubernetes: {gateway: gateway/gateway}, parent: green"))
    gateways = {name: target.in_cluster(name).kubernetes.gateway for name in target.clusters}
    assert gateways == {"blue": None, "green": "gateway/gateway"}


def test_a_third_cluster_may_have_the_parent_only() -> None:
    target = production(settings(f"{TWO}, edge: {{context: c, releases: false}}", "parent: edge"))
    assert (target.parent_cluster, target.homes) == ("edge", ("blue", "green"))


def test_a_cluster_has_its_own_access_and_the_targets_other_settings() -> None:
    own = "kubernetes: {namespace: iris, kubeconfig: k, cpu: 100m}"
    text = settings("blue: {context: a}, green: {context: b, namespace: n, kubeconfig: l}", own)
    blue, green = (production(text).in_cluster(name) for name in ("blue", "green"))
    places = [
        (each.kubernetes.context, each.kubernetes.namespace, each.kubernetes.kubeconfig)
        for each in (blue, green)
    ]
    assert places == [("a", "iris", "k"), ("b", "n", "l")]
    assert {each.kubernetes.cpu for each in (blue, green)} == {"100m"}
    assert not blue.clusters


def test_clusters_of_google_are_named_by_project_location_and_name() -> None:
    text = settings(f"blue: {{{GKE}x}}}}, green: {{{GKE}y}}}}", kind="gke")
    found = production(text).in_cluster("green").gke
    assert found is not None
    assert found.cluster == "y"


@pytest.mark.parametrize(
    ("text", "says", "next_step"),
    [
        (settings(TWO + ", blue: {context: c}"), "duplicate key 'blue'", "correct the file"),
        (settings("blue: {context: a}"), "releases run in blue only", "name a second one"),
        (
            settings("blue: {context: a}, green: {context: a}"),
            "clusters.green: it is the same cluster as blue",
            "name another cluster",
        ),
        (
            settings(f"blue: {{{GKE}x}}}}, green: {{{GKE}x}}}}", kind="gke"),
            "clusters.green: it is the same cluster as blue",
            "name another cluster",
        ),
        (settings(TWO, "challenger: teal"), "no cluster teal", "set it to other, or to one of"),
        (
            settings(
                f"{TWO}, edge: {{context: c, releases: false}}", "parent: edge, challenger: edge"
            ),
            "no release runs in cluster edge",
            "one of: blue, green",
        ),
        (settings(TWO, "parent: teal"), "parent: there is no cluster teal", "one of: blue, green"),
        (
            settings(f"{TWO}, edge: {{context: c, releases: false}}"),
            "clusters.edge.releases: no release runs there",
            "set `parent` to it",
        ),
        (
            settings("other: {context: a}, green: {context: b}"),
            "`other` is the rule",
            "another name",
        ),
        (settings("blue: {context: a}, green: {}"), "needs `context`", "green: {context: NAME}"),
        (
            settings(f"blue: {{context: a}}, green: {{{GKE}x}}}}"),
            "needs `context`",
            "context: NAME",
        ),
        (settings(TWO, kind="gke"), "needs `gke`", "gke: {project: ...,"),
        (settings(TWO, kind="local"), "a local target has no clusters", "kind to kubernetes"),
        (
            settings(TWO, "kubernetes: {gateway: gateway/gateway}, sticky_header: x-user"),
            "sticky_header: a Gateway does not support it",
            "remove it, or targets.production.kubernetes.gateway",
        ),
        (
            settings(TWO, "kubernetes: {context: c}"),
            "kubernetes.context: it is that of one cluster",
            "clusters.NAME",
        ),
        (
            f"{LEAST}targets: {{production: {{kind: kubernetes, parent: blue}}}}",
            "parent is one of `clusters`, and there are none",
            "set targets.production.clusters",
        ),
        (
            settings(TWO, LOAD_BALANCER),
            "load_balancer: Google's load balancer reaches pods of GKE only",
            "set kind: gke",
        ),
        (
            settings(
                f"blue: {{{GKE}x}}}}, green: {{{GKE.replace('p,', 'q,')}x}}}}",
                LOAD_BALANCER,
                kind="gke",
            ),
            "load_balancer: its backends are of one project, not of p, q",
            "name clusters of one project",
        ),
        (
            settings(
                f"blue: {{{GKE}x}}}}, green: {{{GKE}y}}}}",
                LOAD_BALANCER,
                "kubernetes: {gateway: gateway/gateway}",
                kind="gke",
            ),
            "load_balancer: it takes the requests of a target, and so does kubernetes.gateway",
            "remove it, or kubernetes.gateway",
        ),
        (
            f"{LEAST}targets: {{production: {{kind: gke, {LOAD_BALANCER}}}}}",
            "load_balancer stands above `clusters`, and there are none",
            "set targets.production.clusters",
        ),
        (
            f"{LEAST}targets: {{production: {{kind: kubernetes, challenger: blue}}}}",
            "challenger is one of `clusters`, and there are none",
            "remove it",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(text: str, says: str, next_step: str) -> None:
    message, hint = complaint(text)
    assert says in message
    assert next_step in hint


def test_a_settings_error_has_exit_code_2() -> None:
    with pytest.raises(ConfigError) as caught:
        read(settings("blue: {context: a}"))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["Blue", "a.b", "7", f"a{'b' * 40}"])
def test_a_cluster_with_another_name_is_told_with_the_form_of_names(name: str) -> None:
    more = f'"{name}": {{context: c}}'
    message, hint = complaint(settings(f"{TWO}, {more}"))
    assert message == f"mlship.yaml: targets.production.clusters: invalid name {name!r}"
    assert "lower-case letters" in hint


def test_a_target_with_another_name_is_told_with_the_form_of_names() -> None:
    message, hint = complaint(f"{LEAST}targets: {{Production: {{kind: local}}}}")
    assert message == "mlship.yaml: targets: invalid name 'Production'"
    assert "lower-case letters" in hint
