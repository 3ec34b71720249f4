"""Stop all processes of a target in the order in which no request is lost."""

import time

from mlship.adapters.targets.local import admin, processes
from mlship.adapters.targets.local.state import Running, Wanted

_PAUSE = 0.05
_GRACE_SECONDS = 2.0


def patience(wanted: Wanted) -> float:
    """Return the time limit for open requests in seconds; 0 kills immediately."""
    return wanted.drain_seconds if wanted.safeguards.draining else 0.0


def stop(running: Running, *, seconds: float) -> None:
    """Stop Envoy after its active requests have finished, then the replicas; wait for all."""
    router = running.router
    if router and router.process and processes.is_alive(router.process):
        deadline = time.monotonic() + seconds
        if seconds:
            admin.stop_listening(router.admin)
        while admin.active_requests(router.admin) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        processes.stop([router.process], seconds=_GRACE_SECONDS if seconds else 0.0)
        admin.remove(router.admin)
    grace = seconds + _GRACE_SECONDS if seconds else 0.0
    processes.stop([replica.process for replica in running.replicas], seconds=grace)
