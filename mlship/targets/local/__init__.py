"""The target `local`: replicas of the runtime as processes of this machine, behind Envoy.

target.py       LocalTarget, what commands call: writes what is wanted, waits, observes
supervision.py  starts, finds and stops the supervisor
supervisor.py   a process of its own that outlives commands; makes the wanted come true
replicas.py     its part for replicas; router.py its part for Envoy
state.py        the files between the two, and who writes which
routing.py      the route's file: the one source of truth for traffic
envoy.py        the other files that Envoy reads; admin.py asks it what it sees
processes.py    start, recognise and stop processes; launch.py their first instruction
loopback.py     ports and readiness probes
locks.py        exclusive locks that the kernel releases
"""

from mlship.targets.local.locks import FileLocks
from mlship.targets.local.state import Safeguards
from mlship.targets.local.target import LocalTarget

__all__ = ["FileLocks", "LocalTarget", "Safeguards"]
