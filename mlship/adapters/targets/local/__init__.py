"""The target `local`: replicas of the runtime as processes on this machine, behind Envoy.

target.py       LocalTarget: writes the desired state, waits for it, and observes
readiness.py    waits until a slot is ready, or raises the reason why it is not
observation.py  queries each replica for its state
supervision.py  starts, finds and stops the supervisor
supervisor.py   a separate process that outlives commands and reaches the desired state
replicas.py     the supervisor's code for replicas; router.py its code for Envoy
shutdown.py     stops everything in the order in which no request is lost
state.py        the files shared by commands and supervisor, and their writers
routing.py      the route's file: the source of truth for traffic
envoy.py        the other files that Envoy reads; admin.py queries Envoy's state
processes.py    starts, identifies and stops processes; launch.py is their entry point
loopback.py     ports; probe.py the readiness probe
locks.py        exclusive locks that the kernel releases
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlship.adapters.targets.local.state import Safeguards
    from mlship.adapters.targets.local.target import LocalTarget

__all__ = ["LocalTarget", "Safeguards"]


def __getattr__(name: str) -> Any:
    """Import a class on first use, so that a command that only needs a lock starts fast."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from mlship.adapters.targets.local import state, target

    return {"LocalTarget": target.LocalTarget, "Safeguards": state.Safeguards}[name]
