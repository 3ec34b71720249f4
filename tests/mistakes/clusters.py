"""Mistakes with a cluster: how it is reached, what it allows and what it lacks."""

import json
import time
from collections.abc import Callable
from typing import Any

from tests.harness.sockets import self_signed, silent
from tests.mistakes.namespace import OURS, Cluster
from tests.mistakes.remote import Remote, RemoteMistake
from tests.stand_ins.faulty import Fault, before

_GATEWAY_API = "/apis/gateway.networking.k8s.io/"


def _sets(**variables: str) -> Callable[[Remote], None]:
    named = {f"{OURS}{name}": value for name, value in variables.items()}
    return lambda remote: remote.project.variables.update(named)


def _garbage(cluster: Cluster) -> None:
    cluster.kubeconfig.write_text("{apiVersion: v1\n\t")


def _two_contexts(cluster: Cluster) -> None:
    changed = json.loads(json.dumps(cluster.document))
    changed["contexts"].append({**changed["contexts"][0], "name": "other"})
    cluster.kubeconfig.write_text(json.dumps(changed))


def _silent(cluster: Cluster) -> None:
    port = cluster.project.held.enter_context(silent())
    cluster.reach(f"https://127.0.0.1:{port}")


def _another_authority(cluster: Cluster) -> None:
    path = self_signed(cluster.kubeconfig.with_name("identity"), "127.0.0.2")
    other = before(cluster.access.server, cluster.access.trust, address="127.0.0.2", identity=path)
    cluster.reach(f"https://{cluster.project.held.enter_context(other).host}")


def _expired(cluster: Cluster) -> None:
    path = self_signed(cluster.kubeconfig.with_name("identity"), "127.0.0.1", days=-1)
    cluster.user(**{"client-certificate": str(path), "client-key": str(path)})


def _no_rights(cluster: Cluster) -> None:
    accounts = cluster.within("v1/{}/serviceaccounts")
    cluster.ask("POST", accounts, json={"metadata": {"name": "nobody"}})
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    made = cluster.ask("POST", f"{accounts}/nobody/token", json=asked)
    cluster.user(token=made["status"]["token"])


def _no_gateway_api(cluster: Cluster) -> None:
    """Hide it as an API server does that never heard of it."""
    cluster.through(Fault(status=404, body="404 page not found\n", at=_GATEWAY_API))


def _no_quota(cluster: Cluster) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    place = cluster.within("v1/{}/resourcequotas")
    cluster.ask("POST", place, json=quota)
    cluster.broken.callback(cluster.ask, "DELETE", f"{place}/none")
    while not cluster.ask("GET", f"{place}/none").get("status"):
        time.sleep(0.1)


def _denied(status: int, message: str) -> Callable[[Cluster], None]:
    """Answer a write of a Deployment as an API server does whose webhook does."""
    told = {"kind": "Status", "status": "Failure", "message": message, "code": status}
    fault = Fault(status=status, body=json.dumps(told), at="^PATCH .*/deployments/")
    return lambda cluster: cluster.through(fault)


def _broken_midway(cluster: Cluster) -> None:
    cluster.through(Fault(status=503, at="^(POST|PUT) .*/httproutes"))


def _deploys(name: str, breaks: Callable[[Any], object], **more: Any) -> RemoteMistake:
    values: dict[str, Any] = {
        "on": "pushed",
        "at": Cluster,
        "command": ("deploy-staging",),
        "code": 4,
        "needs": ("registry", "cluster"),
        "is_slow": True,
    }
    return RemoteMistake(name=name, breaks=breaks, **{**values, **more})


REACHING = (
    _deploys(
        "no kubeconfig",
        lambda cluster: cluster.kubeconfig.unlink(),
        code=2,
        says="no kubeconfig: ",
        hints="KUBECONFIG",
    ),
    _deploys(
        "a kubeconfig that is none",
        _garbage,
        code=2,
        says="is not valid YAML",
        hints="correct the kubeconfig",
    ),
    _deploys(
        "no such context",
        _sets(CONTEXT="stagging"),
        code=2,
        says="has no context stagging",
        hints="correct kubernetes.context",
    ),
    _deploys(
        "several contexts and none named",
        _two_contexts,
        code=2,
        says="several contexts",
        hints="set kubernetes.context",
    ),
    _deploys(
        "the API server is down",
        lambda cluster: cluster.reach("https://127.0.0.1:1"),
        says="https://127.0.0.1:1 does not answer",
        hints="check that the cluster runs",
    ),
    _deploys(
        "the API server is silent",
        _silent,
        says="timed out",
        hints="check that the cluster runs",
    ),
    _deploys(
        "no API server but a page",
        lambda cluster: cluster.through(Fault(status=200, body="<html>")),
        says="is not a Kubernetes API server",
        hints="kubeconfig",
    ),
    _deploys(
        "an API server of another authority",
        _another_authority,
        says="no trusted connection to https://127.0.0.2",
        hints="fetch the kubeconfig again",
    ),
    _deploys(
        "a token that is no more",
        lambda cluster: cluster.user(token="old"),
        says="does not accept the credentials",
        hints="log in again",
    ),
    _deploys(
        "a client's certificate that is no more",
        _expired,
        says="does not accept the credentials",
        hints="log in again",
    ),
)
ALLOWING = (
    _deploys(
        "no rights in the cluster",
        _no_rights,
        says="forbids system:serviceaccount:mistakes-",
        hints="ask for a Role with the verb",
    ),
    _deploys(
        "no such namespace",
        _sets(NAMESPACE="no-such-namespace"),
        code=5,
        says="has no namespace no-such-namespace",
        hints="kubectl create namespace no-such-namespace",
    ),
    _deploys("no Gateway API", _no_gateway_api, says="has no Gateway API", hints="install it"),
    _deploys(
        "no such Gateway",
        _sets(GATEWAY="gateway/gatway"),
        code=5,
        says="has no Gateway gateway/gatway",
        hints="kubectl get gateway -A",
    ),
    _deploys(
        "no quota for a pod",
        _no_quota,
        is_slow=False,
        says="exceeded quota: none",
        hints="more quota",
    ),
    _deploys(
        "a webhook refuses",
        _denied(
            403, 'admission webhook "policy.example.org" denied the request: images must be signed'
        ),
        says="forbids Deployment iris-staging-",
        hints="administrator",
    ),
    _deploys(
        "a webhook is down",
        _denied(
            500,
            'failed calling webhook "policy.example.org": connection refused',
        ),
        says='failed calling webhook "policy.example.org"',
        hints="look at the cluster's state",
    ),
    _deploys(
        "the API server breaks off midway",
        _broken_midway,
        says="HTTPRoute iris-staging: answered 503",
        hints="run the command again",
        # The slot without traffic: the next run goes on with it.
        leaves=("cluster",),
    ),
)
