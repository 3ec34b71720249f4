"""The target `kubernetes`: replicas of an image as pods of a cluster, behind a Gateway.

target.py       KubernetesTarget, what commands call: applies what is wanted, waits, observes
manifests.py    the objects of a slot; difference.py what would change of them
checks.py       what asks pods whether they live and are ready
waiting.py      waits until a slot is rolled out; reasons.py says why it is not
readiness.py    when a pod and a Deployment count as ready
observation.py  looks at each pod
gateway.py      the route: compare-and-set, and the gateway's word on it; routing.py its object
holding.py      whether the gateway's proxies apply it
access_review.py  whether a cluster has what a target needs, and lets us
locks.py        exclusive locks as Leases
api.py          the one door to the API server; kinds.py where it keeps what
access.py       kubeconfig, or the pod's own account; faults.py the server's answers as errors
"""

from mlship.targets.kubernetes.access import Access, find
from mlship.targets.kubernetes.access_review import review
from mlship.targets.kubernetes.locks import LeaseLocks
from mlship.targets.kubernetes.manifests import Scope
from mlship.targets.kubernetes.target import KubernetesTarget

__all__ = ["Access", "KubernetesTarget", "LeaseLocks", "Scope", "find", "review"]
