"""The target `local`: replicas of the runtime as processes of this machine, behind Envoy.

target.py       LocalTarget, what commands call: writes what is wanted, waits, observes
waiting.py      waits until a slot is ready, and says why it is not
observation.py  asks each replica what it is
supervision.py  starts, finds and stops the supervisor
supervisor.py   a process of its own that outlives commands; makes the wanted come true
replicas.py     its part for replicas; router.py its part for Envoy
shutdown.py     stops all in the order in which no request is lost
state.py        the files between commands and supervisor, and who writes which
routing.py      the route's file: the one source of truth for traffic
envoy.py        the other files that Envoy reads; admin.py asks it what it sees
processes.py    start, recognise and stop processes; launch.py their first instruction
loopback.py     ports; probe.py readiness
locks.py        exclusive locks that the kernel releases
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlship.adapters.targets.local.state import Safeguards
    from mlship.adapters.targets.local.target import LocalTarget

__all__ = ["LocalTarget", "Safeguards"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: who only takes a lock pays for no target."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from mlship.adapters.targets.local import state, target

    return {"LocalTarget": target.LocalTarget, "Safeguards": state.Safeguards}[name]
