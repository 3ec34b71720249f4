"""More traffic for a challenger than configured: the gate of a promotion, or a reason."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mlship.cli.main import app
from mlship.cli.session import Session
from mlship.config.project import TargetConfig
from mlship.domain import shapes
from mlship.domain.deployment import Slot, Split, slot_of
from mlship.domain.evidence import Evidence, Record, Saw, Step
from mlship.domain.facts import Withdrawn
from mlship.domain.history import overridden
from mlship.domain.override import Overridden, Override, Weighted
from mlship.domain.policy import PromotePolicy
from mlship.domain.release import Release
from mlship.errors import ConfigError, RefusedError, UnavailableError
from mlship.reports import markdown, terminal
from mlship.reports.report import collect
from mlship.steps.approve import approve
from mlship.steps.deploy import deploy_production
from mlship.steps.promote import promote
from mlship.steps.retire import retire
from mlship.steps.rollback import rollback
from mlship.steps.status import status
from mlship.steps.traffic import traffic
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world
from tests.harness.samples import better, nothing, record
from tests.harness.samples import release as a_release

ONE = a_release("one")
WHY = "the champion is wrong for the new sensors"


@pytest.fixture
def here(tmp_path: Path) -> World:
    """Give a champion and a challenger with 10 % of the traffic, as configured."""
    gates = msgspec.structs.replace(CONFIG.gates, promote=PromotePolicy(min_labels=50))
    here = world(tmp_path, msgspec.structs.replace(CONFIG, gates=gates))
    for params in ("C=1", "C=2"):
        deploy_production(here.pipeline, proven(here, params))
    return here


def proven(here: World, params: str) -> Release:
    here.trainer.params = params
    release = train(here.pipeline).evidence.release
    steps: tuple[Step, ...] = ("test", "verify-staging-workload")
    for step in steps:
        here.pipeline.learn(release, step, "passed", nothing(step))
    return release


def won(here: World) -> Release:
    """Let the challenger win, and somebody approve of it."""
    champion, release = here.pipeline.release("champion"), here.pipeline.release("challenger")
    here.pipeline.learn(release, "evaluate", "passed", better(300), Saw(champion=champion.id))
    approve(here.pipeline, release, "grace@example.org")
    return release


def share(here: World) -> int:
    slot = slot_of(here.pipeline.release("challenger"))
    return here.targets["production"].routes().split.share(slot)


def last(here: World) -> Weighted:
    found = here.pipeline.read().latest("traffic")
    assert found is not None
    return shapes.of(found, Weighted)


def in_force(here: World) -> Overridden | None:
    """Return the override that status shows, which is that of the report."""
    found = status(here.pipeline).override
    challenger = here.pipeline.read().history.challenger
    if challenger is not None:
        assert collect(challenger, here.pipeline.read()).override == found
    return found


def test_more_than_configured_asks_for_what_a_promotion_asks_for(here: World) -> None:
    before = len(here.ledger.records())
    with pytest.raises(RefusedError) as told:
        traffic(here.pipeline, {"challenger": 11})
    with pytest.raises(RefusedError) as promoted:
        promote(here.pipeline, here.pipeline.release("challenger"))
    reasons = told.value.message.partition(": ")[2]
    assert reasons == promoted.value.message.partition(": ")[2]
    assert "evaluate: never run" in reasons
    assert "0 of 1 approvals" in reasons
    assert "`mlship evaluate` and `mlship approve`" in told.value.hint
    assert (share(here), len(here.ledger.records())) == (10, before)
    won(here)
    traffic(here.pipeline, {"challenger": 60})
    assert (share(here), last(here).override, last(here).configured) == (60, None, 10)
    assert {"evaluate", "approvals"} <= {check.name for check in last(here).checks}
    assert in_force(here) is None


@pytest.mark.parametrize("percent", [0, 9, 10])
def test_the_configured_share_asks_for_nothing(here: World, percent: int) -> None:
    for _ in range(2):
        traffic(here.pipeline, {"challenger": 0})
        traffic(here.pipeline, {"champion": 100 - percent})
    traffic(here.pipeline, {}, shadow=True)
    assert share(here) == percent
    assert (last(here).checks, last(here).override) == ((), None)


def test_an_override_is_recorded_with_who_and_why_and_lasts_until_the_share_is_back(
    here: World,
) -> None:
    release = here.pipeline.release("challenger")
    traffic(here.pipeline, {"challenger": 60}, override=WHY)
    actor = here.pipeline.actor
    assert last(here).override == Override(by=actor, why=WHY)
    found = in_force(here)
    assert found is not None
    assert (found.release, found.share, found.configured) == (str(release), 60, 10)
    assert (found.by, found.why) == (actor, WHY)
    before = len(here.ledger.records())
    for again in (WHY, None):
        traffic(here.pipeline, {"challenger": 60}, override=again)
    assert len(here.ledger.records()) == before
    traffic(here.pipeline, {"challenger": 30})
    found = in_force(here)
    assert found is not None
    assert (found.share, found.why) == (30, WHY)
    with pytest.raises(RefusedError):
        traffic(here.pipeline, {"challenger": 60})
    configured = {"production": TargetConfig(challenger_weight=30)}
    config = msgspec.structs.replace(here.pipeline.config, targets=configured)
    traffic(dataclasses.replace(here.pipeline, config=config), {"challenger": 29})
    assert in_force(here) is None, "more was configured since"
    traffic(here.pipeline, {"challenger": 60}, override=WHY)
    assert in_force(here) is not None
    traffic(here.pipeline, {"challenger": 10})
    assert in_force(here) is None


def test_an_override_is_no_permission_to_promote(here: World) -> None:
    traffic(here.pipeline, {"challenger": 100}, override=WHY)
    release = here.pipeline.release("challenger")
    assert status(here.pipeline).drift == (), "a champion without traffic was recorded"
    with pytest.raises(RefusedError, match="evaluate: never run"):
        promote(here.pipeline, release)
    assert in_force(here) is not None
    won(here)
    promote(here.pipeline, release)
    assert here.pipeline.read().history.champion == release
    assert in_force(here) is None
    assert collect(release, here.pipeline.read()).override is None


def test_a_gate_that_was_passed_before_an_override_is_asked_again(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = won(here)
    with monkeypatch.context() as patched:
        fault = UnavailableError("the cluster is away", hint="retry")
        target = here.targets["production"]
        patched.setattr(target, "deploy", lambda *_, **__: (_ for _ in ()).throw(fault))
        with pytest.raises(UnavailableError):
            promote(here.pipeline, release)
    assert here.pipeline.read().latest("promote/gate", release) is not None
    traffic(here.pipeline, {"challenger": 100}, override=WHY)
    facts = Withdrawn(by="grace@example.org")
    here.pipeline.learn(release, "withdraw-approval", "passed", facts)
    with pytest.raises(RefusedError, match="0 of 1 approvals"):
        promote(here.pipeline, release)


@pytest.mark.parametrize("act", ["rollback", "retire", "replace", "allowed"])
def test_what_else_ends_an_override(here: World, act: str) -> None:
    if act == "rollback":
        promote(here.pipeline, won(here))
        deploy_production(here.pipeline, proven(here, "C=3"))
    release = here.pipeline.release("challenger")
    traffic(here.pipeline, {"challenger": 60}, override=WHY)
    match act:
        case "rollback":
            rollback(here.pipeline)
        case "retire":
            retire(here.pipeline, release)
        case "replace":
            deploy_production(here.pipeline, proven(here, "C=3"), occupied="replace")
        case _:
            won(here)
            traffic(here.pipeline, {"challenger": 70})
    assert in_force(here) is None
    assert overridden(release, here.pipeline.read()) is None


def test_after_a_kill_between_route_and_record_the_command_asks_again(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = here.ledger.append

    def killed(evidence: Evidence, **options: Any) -> Record:
        if evidence.step == "traffic":
            raise UnavailableError("killed", hint="run it again")
        return append(evidence, **options)

    with monkeypatch.context() as patched:
        patched.setattr(here.ledger, "append", killed)
        with pytest.raises(UnavailableError):
            traffic(here.pipeline, {"challenger": 60}, override=WHY)
    assert share(here) == 60
    for shares in ({"challenger": 60}, {"challenger": 61}, {}):
        with pytest.raises(RefusedError):
            traffic(here.pipeline, shares, shadow=False)
    traffic(here.pipeline, {"challenger": 40})
    found = in_force(here)
    assert found is not None
    assert (found.share, found.why) == (40, "lowered from 60 %, which nobody had recorded")
    traffic(here.pipeline, {"challenger": 60}, override=WHY)
    found = in_force(here)
    assert found is not None
    assert (found.share, found.why) == (60, WHY)


@pytest.mark.parametrize("why", ["", "  \n", "\x1b\x07", "\u202e"])
def test_a_reason_without_a_word_is_refused(here: World, why: str) -> None:
    with pytest.raises(ConfigError, match="--override has no reason"):
        traffic(here.pipeline, {"challenger": 60}, override=why)
    assert share(here) == 10


def test_a_reason_is_one_bounded_line_without_control_characters(here: World) -> None:
    traffic(here.pipeline, {"challenger": 60}, override="\x1b[31mred\n::error::x\u202e" + "y" * 900)
    override = last(here).override
    assert override is not None
    assert override.why.startswith("[31mred ::error::x y")
    assert len(override.why) <= 500
    assert all(char.isprintable() for char in override.why)


def test_a_reason_needs_a_share(here: World) -> None:
    with pytest.raises(ConfigError, match="--override needs a share"):
        traffic(here.pipeline, {}, override=WHY)


def test_an_override_that_is_not_needed_is_told_and_not_recorded(here: World) -> None:
    traffic(here.pipeline, {"challenger": 5}, override=WHY)
    assert last(here).override is None
    assert "no override is needed for 5 % of the traffic" in here.progress.notes


def test_an_override_is_shown_in_red_and_its_reason_is_escaped(here: World) -> None:
    traffic(here.pipeline, {"challenger": 60}, override="see <b>#7</b> @ada")
    report = collect(here.pipeline.release("challenger"), here.pipeline.read())
    text = markdown.render(report)
    (line,) = [each for each in text.splitlines() if each.startswith("> override: ")]
    assert "> [!CAUTION]\n" + line in text
    assert "60 % of the traffic, and 10 % are configured" in line
    assert "<b>" not in line
    assert "@ada" not in line
    screen = io.StringIO()
    terminal.show(report, Console(file=screen, force_terminal=True, width=400, no_color=False))
    assert "\x1b[31moverride: " in screen.getvalue()


def test_the_commands_tell_of_it_as_text_and_as_json(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = dataclasses.replace(here.pipeline)
    monkeypatch.setattr(Session, "pipeline", lambda *_args, **_options: pipeline)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert json.loads(run("--json", "traffic"))["override"] is None
    told = run("--json", "traffic", "challenger=60", "--override", WHY)
    assert json.loads(told)["override"]["why"] == WHY
    for command in (("traffic",), ("status",)):
        assert "gets 60 % of the traffic, and 10 % are configured. " in run(*command)
        assert json.loads(run("--json", *command))["override"]["share"] == 60
    release = str(here.pipeline.release("challenger"))
    assert json.loads(run("--json", "report", release))["override"]["why"] == WHY
    refused = CliRunner().invoke(app, ["traffic", "challenger=80"])
    assert isinstance(refused.exception, RefusedError) or refused.exit_code == 3


def test_records_of_former_versions_are_read_as_before() -> None:
    slot = slot_of(ONE)
    old = record(ONE, "traffic", facts={"weights": {slot: 50, "r1": 50}, "shadow": None})
    facts = shapes.of(old, Weighted)
    assert facts.split == Split(weights={slot: 50, Slot("r1"): 50})
    assert (facts.override, facts.configured, facts.checks) == (None, None, ())
    assert overridden(ONE, [old]) is None
