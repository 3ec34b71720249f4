"""Retiring a release whose pods have predictions that the database does not have yet."""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.config.backends import ObservationsConfig
from mlship.domain.deployment import slot_of
from mlship.domain.prediction import Spool
from mlship.errors import MlshipError, RefusedError, UnavailableError
from mlship.steps import spooled
from mlship.steps.deploy import deploy_production
from mlship.steps.pipeline import Pipeline
from mlship.steps.retire import retire
from mlship.steps.spooled import check_delivered
from tests.harness.samples import release
from tests.unit.test_drift import ONE, TWO, Shop, filled, prove, shop

__all__ = ["filled", "shop"]

ROWS = Spool(name="r2-ab", slot="r2", release=TWO.id, rows=7, since=None, silent_seconds=1)
SILENT = msgspec.structs.replace(ROWS, rows=0, silent_seconds=300)
OTHERS = msgspec.structs.replace(ROWS, release=ONE.id)


def spooling(shop: Shop, claim: str | None = None) -> Pipeline:
    """Return the pipeline of a project whose pods spool, to a claim or to their own volumes."""
    here = shop.here.pipeline
    settings = ObservationsConfig(kind="postgres", url="postgresql://db/iris", when_away="spool")
    target = here.config.targets["production"]
    pods = msgspec.structs.replace(target.kubernetes, spool_claim=claim)
    targets = {"production": msgspec.structs.replace(target, kubernetes=pods)}
    config = msgspec.structs.replace(here.config, observations=settings, targets=targets)
    return dataclasses.replace(here, config=config)


@pytest.mark.parametrize(
    ("spool", "told"),
    [
        (ROWS, r"7 predictions are still on their way to the database \(r2\)"),
        (SILENT, "a replica of r2 has not reported for 300 s"),
    ],
)
def test_a_release_with_predictions_in_its_pods_is_not_retired(
    shop: Shop, spool: Spool, told: str
) -> None:
    shop.here.observations.spooled = [spool]
    before, records = shop.writes(), len(shop.here.ledger.records())
    with pytest.raises(RefusedError, match=told) as caught:
        retire(spooling(shop), TWO)
    assert f"mlship retire {TWO} --lose-spooled" in caught.value.hint
    assert (shop.writes(), len(shop.here.ledger.records())) == (before, records)
    retire(spooling(shop), TWO, lose_spooled=True)
    assert slot_of(TWO) not in shop.world.target.inspect()


@pytest.mark.parametrize("spool", [None, OTHERS])
def test_a_release_whose_predictions_are_in_the_database_is_retired(
    shop: Shop, spool: Spool | None
) -> None:
    shop.here.observations.spooled = [spool] if spool else []
    retire(spooling(shop), TWO)
    assert slot_of(TWO) not in shop.world.target.inspect()


def test_a_spool_outside_of_pods_is_not_lost_with_them(shop: Shop) -> None:
    shop.here.observations.spooled = [ROWS]
    retire(spooling(shop, claim="spools"), TWO)
    assert slot_of(TWO) not in shop.world.target.inspect()


def test_a_database_that_is_away_keeps_a_release_from_being_retired(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Any) -> Any:
        raise UnavailableError("PostgreSQL does not answer", hint="start it")

    monkeypatch.setattr(shop.here.observations, "spools", away)
    with pytest.raises(UnavailableError, match="may have predictions") as caught:
        retire(spooling(shop), TWO)
    assert "--lose-spooled" in caught.value.hint
    assert slot_of(TWO) in shop.world.target.inspect()


def test_the_last_predictions_before_the_route_has_moved_are_waited_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    left = iter([[ROWS], [ROWS], []])
    monkeypatch.setattr(shop.here.observations, "spools", lambda _: next(left))
    check_delivered(spooling(shop), TWO, 10, waited.append)
    assert len(waited) == 2


def test_predictions_that_do_not_arrive_stop_a_retirement_before_its_pods_are_removed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled, "_PAUSE", 0.01)
    monkeypatch.setattr("mlship.steps.retire.WAIT_SECONDS", 0.02)
    left = iter([[], *[[ROWS]] * 3])
    monkeypatch.setattr(shop.here.observations, "spools", lambda _: next(left, [ROWS]))
    pipeline = spooling(shop)
    with pytest.raises(RefusedError, match="would lose predictions"):
        retire(pipeline, TWO)
    found = shop.world.target
    assert slot_of(TWO) in found.inspect()
    assert found.routes().split.weights == {slot_of(ONE): 100}
    monkeypatch.setattr(shop.here.observations, "spools", lambda _: [])
    retire(pipeline, TWO)
    assert slot_of(TWO) not in found.inspect()


def test_a_challenger_with_predictions_in_its_pods_is_not_replaced(shop: Shop) -> None:
    three = release("three")
    prove(shop.here, three)
    shop.here.observations.spooled = [ROWS]
    with pytest.raises(MlshipError, match="would lose predictions"):
        deploy_production(spooling(shop), three, occupied="replace")
    assert slot_of(three) not in shop.world.target.inspect()


def test_on_one_machine_a_spool_stays_on_the_disk(shop: Shop, tmp_path: Path) -> None:
    pipeline = shop.here.pipeline
    assert not spooled.goes_with_pods(pipeline)
    config = msgspec.structs.replace(spooling(shop).config, targets={})
    assert not spooled.goes_with_pods(dataclasses.replace(pipeline, config=config, root=tmp_path))
