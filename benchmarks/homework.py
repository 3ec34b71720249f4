"""A student's homework on GitHub with no server but a registry and two clusters: how long it takes.

    TEST_KUBECONFIG=... TEST_KUBECONFIG_PRODUCTION=... python benchmarks/homework.py

act runs the jobs, each on a clean machine that has what they install. A first release becomes
champion; then a feature branch gets a comment with a picture, is merged to develop, goes to
staging, is offered to main, runs as challenger, and is promoted by a teacher's review. The time of
each workflow is printed; what each must have left is checked.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.harness.act import Ran
from tests.harness.team import Team, student
from tests.integration.test_whole_path import (
    DEVELOPS,
    MEASUREMENTS,
    PARAMS,
    comments,
    passed,
    released,
    roles,
    shares,
)


def main() -> int:
    """Do the homework."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="homework-") as folder, student(Path(folder)) as ours:
        homework(ours)
    print(f"{'all':28} {time.monotonic() - started:6.1f} s")
    return 0


def homework(ours: Team) -> None:
    """Carry two releases, one after the other, from a push to the champion."""
    champion = released(told("main.yml", ours.pushed("main.yml", "main")))
    assert shares(ours) == {champion: 100}

    ours.commit("feature/petals", "Look at the petals too", {PARAMS: list(MEASUREMENTS)})
    told("feature.yml, push", ours.pushed("feature.yml", "feature/petals"))
    feature = ours.ask("ada", "POST", "pulls", head="feature/petals", base="develop", title="P")
    told("feature.yml, pull request", ours.offered("feature.yml", feature["number"]))
    [comment] = comments(ours, feature["number"])
    assert champion in comment, "it was compared with the champion"
    ours.ask("grace", "PUT", f"pulls/{feature['number']}/merge")

    develop = told("develop.yml", ours.pushed("develop.yml", "develop"))
    assert set(DEVELOPS) <= set(develop.steps)
    [release] = ours.ask("ada", "GET", "pulls?base=main")
    assert released(develop) in release["body"]
    told("release.yml", ours.offered("release.yml", release["number"]))
    ours.ask("grace", "POST", f"pulls/{release['number']}/reviews", event="APPROVE")
    ours.ask("ada", "PUT", f"pulls/{release['number']}/merge")

    challenger = released(told("main.yml", ours.pushed("main.yml", "main")))
    assert shares(ours) == {champion: 90, challenger: 10}
    given = {"release": challenger, "pull_request": str(release["number"])}
    told("promote.yml", ours.started("promote.yml", **given))
    assert shares(ours) == {champion: 0, challenger: 100}
    assert roles(ours)[challenger] == "champion"
    assert ours.mlship("status")["drift"] == []


def told(name: str, ran: Ran) -> Ran:
    """Print how long a workflow took, which must have passed."""
    passed(ran)
    print(f"{name:28} {sum(took.seconds for took in ran.times):6.1f} s")
    return ran


if __name__ == "__main__":
    sys.exit(main())
