"""Envoy's configuration, as the parent load balancers of all targets have it. Pure functions.

limits.py     deadlines, sizes, connections and memory
resources.py  files, listeners and clusters
routes.py     the route: weights, stickiness, shadow, retries
"""
