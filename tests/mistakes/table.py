"""All mistakes, in the order in which a student might make them."""

from tests.mistakes import kept, loads, machine, settings, shipping, training
from tests.mistakes.mistake import Mistake

MISTAKES: tuple[Mistake, ...] = (
    *settings.CONFIG,
    *settings.REPOSITORY,
    *training.DATA,
    *training.CODE,
    *shipping.TESTS,
    *shipping.RELEASES,
    *kept.OUTCOMES,
    *kept.KEPT,
    *loads.LOADS,
    *machine.DISKS,
    *machine.BACKENDS,
)
