"""Google's external Application Load Balancer as the parent of a target with several clusters.

parent.py    GoogleParent: what stands above the clusters, instead of mlship's own router
traffic.py   the route of a target: compare-and-set, health, fallback, waiting until it is applied
url_map.py   the part of a URL map that is a target's route: the one source of truth
services.py  the backend service of each slot, and the health check of all
compute.py   the one door to the Compute Engine API, and its operations; faults.py its errors
"""

from mlship.adapters.targets.google.parent import GoogleParent, parent

__all__ = ["GoogleParent", "parent"]
