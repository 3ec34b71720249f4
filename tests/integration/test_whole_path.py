"""The whole path: from a commit on a feature branch to the champion in production, and back.

Jobs are run by act on clean machines, with a registry, a tracking server, a database and two
clusters, all real; GitHub and its actions are stand-ins of our own.
"""

import csv
import json
import random
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.harness.act import Ran
from tests.harness.team import Team, team

JSON = {"Content-Type": "application/json"}
MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
PARAMS = "model.params.features"
DEVELOPS = (
    *("train", "test", "containerize", "test --container", "push-to-registry"),
    *("deploy-staging", "verify-staging-workload", "open-release-pr"),
)


def passed(ran: Ran) -> Ran:
    assert ran.code == 0, ran.log
    assert all(ran.steps.values())
    return ran


def released(ran: Ran) -> str:
    """Return the release that a run made."""
    return ran.log.partition("set-output:: release=")[2].split()[0]


def roles(ours: Team) -> dict[str, str]:
    """Return the role of each release, by the ledger."""
    return {one["release"]: one["role"] for one in ours.mlship("status")["releases"]}


def shares(ours: Team) -> dict[str, int]:
    """Return the percent of production's requests by release, as its cluster has them."""
    seen = ours.mlship("status")["seen"]
    return {one["release"]: one["weight"] for one in seen if one["target"] == "production"}


def comments(ours: Team, number: int) -> list[str]:
    """Return what jobs wrote on a pull request."""
    return [one["body"] for one in ours.ask("ada", "GET", f"issues/{number}/comments")]


def observed(ours: Team, count: int) -> None:
    """Send real flowers to production, and tell it later what they were."""
    files = (ours.desk / "data" / name for name in ("train.csv", "test.csv"))
    rows = [row for file in files for row in csv.DictReader(file.read_text().splitlines())]
    outcomes = ours.folder / "outcomes.csv"
    url = urlsplit(ours.mlship("status")["endpoints"]["production"])
    # A client of httpx takes twice as long for a request.
    connection = HTTPConnection(url.netloc, timeout=20)
    with outcomes.open("w", newline="") as file, closing(connection):
        writer = csv.writer(file)
        writer.writerow(("prediction_id", "outcome"))
        for row in random.Random(7).choices(rows, k=count):
            sizes = {name: float(row[name]) for name in MEASUREMENTS}
            connection.request("POST", f"{url.path}/predict", json.dumps(sizes), JSON)
            response = connection.getresponse()
            body = response.read()
            assert response.status == HTTPStatus.OK, body
            writer.writerow((json.loads(body)["predictions"][0]["id"], row["species"]))
    assert ours.mlship("feedback", str(outcomes))["new"] == count


@pytest.mark.service("two clusters")
@pytest.mark.timeout(1800)
def test_from_a_commit_to_the_champion_and_back(tmp_path: Path) -> None:
    with team(tmp_path) as ours:
        champion = released(passed(ours.pushed("main.yml", "main")))
        assert shares(ours) == {champion: 100}

        ours.commit("feature/petals", "Look at the petals too", {PARAMS: list(MEASUREMENTS)})
        passed(ours.pushed("feature.yml", "feature/petals"))
        feature = ours.ask("ada", "POST", "pulls", head="feature/petals", base="develop", title="P")
        passed(ours.offered("feature.yml", feature["number"]))
        [comment] = comments(ours, feature["number"])
        assert champion in comment
        ours.ask("grace", "PUT", f"pulls/{feature['number']}/merge")

        develop = passed(ours.pushed("develop.yml", "develop"))
        assert set(DEVELOPS) <= set(develop.steps)
        [release] = ours.ask("ada", "GET", "pulls?base=main")
        assert released(develop) in release["body"]
        passed(ours.offered("release.yml", release["number"]))
        [comment] = comments(ours, release["number"])
        assert champion in comment
        for person in ("grace", "linus"):
            ours.ask(person, "POST", f"pulls/{release['number']}/reviews", event="APPROVE")
        ours.ask("ada", "PUT", f"pulls/{release['number']}/merge")

        challenger = released(passed(ours.pushed("main.yml", "main")))
        assert shares(ours) == {champion: 90, challenger: 10}
        # A tenth is the challenger's: with half as many, about one run in fifty is undecided.
        observed(ours, 3000)
        passed(ours.started("evaluate.yml"))
        given = {"release": challenger, "pull_request": str(release["number"])}
        passed(ours.started("promote.yml", **given))
        assert shares(ours) == {champion: 0, challenger: 100}
        passed(ours.started("rollback.yml"))
        assert shares(ours) == {champion: 100, challenger: 0}
        ours.mlship("promote", challenger)
        passed(ours.started("retire.yml", early="true"))
        assert shares(ours) == {challenger: 100}
        assert roles(ours)[challenger] == "champion"
        assert roles(ours)[champion] == "retired"
        assert ours.mlship("status")["drift"] == []
