"""Time that does not pass: pauses are written down."""

from mlship.adapters.http.retries import Timing


def patient(waits: list[float]) -> Timing:
    """Return a timing whose pauses go to a list, each as long as chance may make it."""
    return Timing(pause=waits.append, chance=lambda: 1.0)


def passing(waits: list[float]) -> Timing:
    """Return such a timing whose clock shows the pauses as time that has passed."""
    return Timing(pause=waits.append, chance=lambda: 1.0, monotonic=lambda: sum(waits))
