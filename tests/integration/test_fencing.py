"""Stopped processes that go on: in a cluster they are fenced off, here they keep their lock."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from mlship.adapters.targets.local.locks import FileLocks
from mlship.errors import ConflictError
from tests.harness import clusters
from tests.harness.holders import CONFLICT, deployed, stopped
from tests.harness.pair import shop_of_two
from tests.harness.twice import Shop, target
from tests.integration.test_twice import CONFIG

HOLD = """
import sys
from pathlib import Path
from mlship.adapters.targets.local.locks import FileLocks
with FileLocks(Path(sys.argv[1])).exclusive("production"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Give a project whose production is a namespace of a cluster."""
    with ExitStack() as stack:
        place = stack.enter_context(clusters.cluster())
        text = yaml.safe_dump({**CONFIG, "targets": {"production": target(place)}})
        (tmp_path / "mlship.yaml").write_text(text)
        yield Shop(tmp_path, {"production": place})


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[Shop]:
    """Give a project whose production has two clusters."""
    with shop_of_two(tmp_path, CONFIG) as found:
        yield found


@pytest.mark.service("two clusters")
def test_a_holder_whose_clock_does_not_tell_changes_nothing_in_two_clusters(wide: Shop) -> None:
    deployed(wide, router=clusters.router_image())
    outcome = stopped(wide, "deaf", pause=0.1)
    assert outcome.code == CONFLICT, outcome
    assert (outcome.route, outcome.elsewhere, outcome.records) == (False, False, 0), outcome


@pytest.mark.service("cluster")
def test_a_holder_that_is_stopped_for_twice_its_lease_changes_nothing_after(shop: Shop) -> None:
    deployed(shop)
    outcome = stopped(shop, "fenced", pause=0.1)
    assert outcome.code == CONFLICT, outcome
    assert (outcome.route, outcome.records) == (False, 0), outcome


def test_a_stopped_process_keeps_its_lock_on_a_file(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGSTOP)
        with (
            pytest.raises(ConflictError, match=str(holder.pid)),
            FileLocks(tmp_path).exclusive("production"),
        ):
            pass
        os.kill(holder.pid, signal.SIGCONT)
        holder.communicate("end\n", timeout=20)
    with FileLocks(tmp_path).exclusive("production"):
        pass
