"""Two projects of one name are told apart by their homes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.domain import evidence, home
from mlship.domain.evidence import Evidence, Record
from mlship.domain.records import Records
from mlship.errors import ConflictError
from mlship.steps.status import status
from mlship.steps.train import train
from tests.fakes.ports import World, world
from tests.fakes.store import tiny_evidence

HOME = "github.com/ada/homework//models/churn"


@pytest.mark.parametrize(
    ("remote", "folder", "expected"),
    [
        ("https://github.com/ada/homework.git", "models/churn/", HOME),
        ("git@github.com:Ada/Homework.git", "models/churn", HOME),
        ("ssh://git@github.com:22/ada/homework", "models/churn", HOME),
        ("https://ada:secret@github.com/ada/homework/", "models/churn", HOME),
        ("https://gitlab.example/a/b/c.git", "", "gitlab.example/a/b/c"),
        ("git@gitlab.example:a/b/c.git", "", "gitlab.example/a/b/c"),
        ("", "models/churn", "//models/churn"),
        ("", "", "//"),
        ("/srv/git/homework.git", "", "//"),
        ("../homework.git", "a", "//a"),
        ("file:///srv/git/homework.git", "", "//"),
        ("C:/git/homework", "", "//"),
    ],
)
def test_a_home_is_the_repository_and_the_folder(remote: str, folder: str, expected: str) -> None:
    assert home.of(remote, folder) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (HOME, HOME, True),
        (HOME, HOME.replace("ada", "Ada"), True),
        ("", HOME, True),
        ("//models/churn", HOME, True),
        ("//", "github.com/ada/iris", True),
        ("//models/fraud", HOME, False),
        ("//", HOME, False),
        ("github.com/ada/iris", "github.com/bob/iris", False),
        ("github.com/ada/homework//models/fraud", HOME, False),
    ],
)
def test_what_is_not_known_of_a_home_is_not_compared(one: str, other: str, same: bool) -> None:
    assert home.is_same(one, other) is same
    assert home.is_same(other, one) is same


def test_the_more_exact_home_is_kept() -> None:
    assert home.settled("", "//") == "//"
    assert home.settled("//models/churn", HOME) == HOME
    assert home.settled(HOME, "//models/churn") == HOME
    assert home.settled(HOME, "") == HOME


def recorded(place: World, *known: Evidence) -> list[Record]:
    return [place.ledger.append(each) for each in known]


def of(name: str, place: str, minutes: int = 0) -> Evidence:
    made = tiny_evidence()
    release = msgspec.structs.replace(made.release, name=name)
    time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    return msgspec.structs.replace(made, release=release, home=place, time=time)


def shared(tmp_path: Path, place: str = HOME) -> World:
    made = world(tmp_path)
    settings: dict[str, Any] = {"home": place, "shares_ledger": True}
    for key, value in settings.items():
        object.__setattr__(made.pipeline, key, value)
    return made


def test_a_record_keeps_the_home_and_one_without_it_is_read() -> None:
    made = of("iris", HOME)
    assert evidence.decode(evidence.encode(made)).evidence.home == HOME
    former = evidence.encode(of("iris", ""))
    assert b"home" not in former
    assert evidence.decode(former).evidence.home == ""


def test_records_of_other_projects_are_parents_and_nothing_else(tmp_path: Path) -> None:
    made = shared(tmp_path)
    foreign, own = recorded(made, of("fraud", HOME), of("iris", HOME, 1))
    records = made.pipeline.read()
    assert [record.digest for record in records] == [own.digest]
    assert [release.name for release in records.releases] == ["iris"]
    assert records.heads == (own.digest,)
    assert own.evidence.parents == (foreign.digest,)
    assert records.plus(foreign).others == records.others
    alone = Records.of([foreign], "iris", HOME)
    assert not list(alone)
    assert alone.heads == (foreign.digest,)


def test_another_project_of_the_same_name_is_refused_with_both_homes(tmp_path: Path) -> None:
    made = shared(tmp_path)
    recorded(made, of("iris", "github.com/bob/iris"), of("iris", "github.com/bob/iris", 1))
    with pytest.raises(ConflictError) as caught:
        train(made.pipeline)
    assert "2 records" in caught.value.message
    assert "at the top of github.com/bob/iris" in caught.value.message
    assert "in folder models/churn of github.com/ada/homework" in caught.value.message
    assert "`name`" in caught.value.hint
    assert 'home: "github.com/bob/iris"' in caught.value.hint
    assert not made.store.runs
    assert len(made.ledger.records()) == 2


def test_status_names_other_projects_and_takes_nothing_of_them(tmp_path: Path) -> None:
    made = shared(tmp_path)
    recorded(made, of("iris", "github.com/bob/iris"), of("fraud", "", 1))
    found = status(made.pipeline)
    assert found.releases == ()
    assert found.others == (
        "fraud, of an unknown repository: 1 record",
        "iris, at the top of github.com/bob/iris: 1 record",
    )


def test_a_ledger_in_the_projects_own_folder_is_its_own_after_a_move(tmp_path: Path) -> None:
    made = shared(tmp_path)
    object.__setattr__(made.pipeline, "shares_ledger", False)
    recorded(made, of("iris", "//before"))
    assert len(made.pipeline.read()) == 1
