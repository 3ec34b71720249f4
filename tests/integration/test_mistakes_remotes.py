"""Every mistake with a registry, a cluster, GitHub or a database gets a clear error, and is mended.

The table is in `tests/mistakes/remotes.py`. After each mistake the same command is run again, and
must leave what it leaves where no mistake was made; the rows marked as slow are run again by
`benchmarks/mistakes.py --remotes` only.
"""

from pathlib import Path

import pytest

from tests.harness.services import require
from tests.mistakes.forges import GitHub
from tests.mistakes.remote import RemoteMistake, Unharmed, meet_remote
from tests.mistakes.remotes import REMOTES, missing
from tests.mistakes.starts import Starts

COMMON = [mistake for mistake in REMOTES if not mistake.is_rare]
# Commands at one kind of remote are compared with what they leave there without a mistake.
ROWS = [
    pytest.param(
        mistake,
        id=mistake.name,
        marks=[
            *(pytest.mark.service(one) for one in mistake.needs),
            # What uses the engine runs beside no other test of it.
            pytest.mark.xdist_group(
                "docker" if mistake.at.__module__.endswith("engines") else mistake.at.__module__
            ),
        ],
    )
    for mistake in COMMON
]
MISSING = missing()


@pytest.fixture(scope="module")
def unharmed(starts: Starts, tmp_path_factory: pytest.TempPathFactory) -> Unharmed:
    """Give what the commands leave without a mistake."""
    return Unharmed(starts, tmp_path_factory.mktemp("unharmed"))


@pytest.mark.parametrize("mistake", ROWS)
def test_a_mistake_is_answered_and_mended(
    mistake: RemoteMistake, starts: Starts, unharmed: Unharmed, tmp_path: Path
) -> None:
    for need in mistake.needs:
        require(need, need not in MISSING, MISSING.get(need, ""))
    folder = tmp_path / "project"
    found = meet_remote(starts, unharmed, mistake, folder, mends=not mistake.is_slow)
    assert not found.wrong, "\n".join([*found.wrong, found.answer.stderr])


def test_every_mistake_has_a_name_of_its_own() -> None:
    assert len({mistake.name for mistake in REMOTES}) == len(REMOTES)


class Tampered(GitHub):
    """A GitHub where taking the mistake back leaves something else behind."""

    def mend(self) -> None:
        super().mend()
        self.state.data["pulls"][0]["title"] = "Another"


def test_what_is_half_written_or_left_otherwise_is_seen(starts: Starts, tmp_path: Path) -> None:
    """The control: a command that writes, and one that does not end as without the mistake."""
    mistake = RemoteMistake(
        name="control",
        on="trained",
        at=Tampered,
        breaks=lambda _: None,
        command=("open-release-pr",),
        code=2,
        says="nothing of the kind",
        hints="",
    )
    unharmed = Unharmed(starts, tmp_path / "unharmed")
    found = meet_remote(starts, unharmed, mistake, tmp_path / "project", mends=True).wrong
    assert "exit code 0, not 2" in found
    assert "new: pull 1" in found
    assert any(fault.startswith("new: ledger/") for fault in found)
    assert any(fault.startswith("without the mistake pull 1 is") for fault in found)
