"""The target `kubernetes`: replicas of an image as pods of a cluster, behind a load balancer.

target.py         KubernetesTarget, what commands call: applies what is wanted, waits, observes
slots.py          the slots of a target in one cluster: deployed, observed, removed
clusters.py       ClustersTarget: slots in several clusters, behind the parent in one of them
directory.py      which of these clusters has which slot, or gets a new one
members.py        how each of these clusters is reached; parents.py what stands above them
manifests.py      the objects of a slot; difference.py what would change of them
health.py         the probes that the kubelet and Google's load balancers use
waiting.py        waits until a slot is rolled out
pod_status.py     when a pod and a Deployment count as ready, and why they are not
observation.py    what is observed to run: each pod is looked at
gateway.py        the route at a Gateway: compare-and-set, and waiting until proxies apply it
routing.py        the HTTPRoute object: the source of truth for traffic
router.py         the same without a Gateway: mlship's own Envoy, and the route that it reads
router_*.py       its objects, its ConfigMap, its certificate, and the hook that drains it
entries.py        what leads from a Gateway to slots in other clusters
reach.py          whether the load balancer of several clusters reaches a slot
revisions.py      compare-and-set of a route, at a Gateway or not
applied.py        waits until answers name a route
access_review.py  whether a cluster has what a target needs, and which rights are missing
locks.py          exclusive locks as Leases; lease.py one that is held, which is the lock's fence
reference.py      what mlship wrote last into an object; by_hand.py what others changed since
fencing.py        writes that a former holder of the lock cannot make
api.py            the one door to the API server, and the paths of each kind of object
access.py         how a cluster is reached and as whom: a kubeconfig, or the pod's own account
kubeconfig.py     reads and merges kubeconfigs; credentials.py, credential_plugin.py who we are
faults.py         the server's answers as errors
"""

from mlship.adapters.targets.kubernetes.access import Access, find
from mlship.adapters.targets.kubernetes.access_review import review, review_all
from mlship.adapters.targets.kubernetes.clusters import ClustersTarget
from mlship.adapters.targets.kubernetes.locks import Elsewhere, LeaseLocks
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.members import Member
from mlship.adapters.targets.kubernetes.target import KubernetesTarget

__all__ = [
    "Access",
    "ClustersTarget",
    "Elsewhere",
    "KubernetesTarget",
    "LeaseLocks",
    "Member",
    "Scope",
    "find",
    "review",
    "review_all",
]
