"""Pictures of comments on a branch: what GitHub's API for git objects allows and refuses."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from mlship.adapters.forges.github import pictures as adapter
from mlship.adapters.forges.github.connection import Connection
from mlship.adapters.forges.github.pictures import BRANCH, File, GitHubPictures, blob_digest, prune
from mlship.adapters.http.retries import Timing
from mlship.domain.publishing import Pictures
from mlship.errors import ConfigError, ConflictError, NotFoundError
from tests.harness.pictures import jpeg, png
from tests.stand_ins import github_git as objects
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

REPOSITORY = "ada/iris"
HERE = "/ada/iris/blob/mlship-reports/"
CONFUSION = {"plots/confusion.png": png()}
STARTED = 1_795_248_000.0
"""The time of the stand-in's first commits, 2026-11-21 08:00 UTC."""


class Place:
    """A GitHub, and what jobs with its tokens keep there."""

    def __init__(self, state: State, url: str) -> None:
        self.state, self.url = state, url
        self.now = STARTED + 1_000
        self.wait: Callable[[float], None] = self._pass

    def pictures(self, project: str = "iris", token: str = "job") -> Pictures:  # noqa: S107 (of the stand-in)
        environment = {
            "GITHUB_API_URL": self.url,
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_TOKEN": token,
        }
        timing = Timing(pause=self.wait, clock=lambda: self.now, chance=lambda: 0.0)
        return GitHubPictures(Connection(environment, timing=timing), project)

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def files(self) -> dict[str, bytes]:
        found = objects.files(self.state, REPOSITORY, BRANCH)
        assert b"mlship" in found.pop("README.md")
        return found

    def writes(self) -> int:
        return sum(call["method"] != "GET" for call in self.state.data["calls"])

    def commits(self) -> int:
        last = objects.head(self.state, REPOSITORY, BRANCH)
        return len(objects.history(self.state, REPOSITORY, last))


@pytest.fixture
def place() -> Iterator[Place]:
    state = State()
    state.add_account("ada")
    state.add_repository(REPOSITORY)
    state.commit(REPOSITORY, "main", "b" * 40, "ada@example.org")
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="write")
    state.add_token("reader", "github-actions[bot]", pull_requests="write", contents="read")
    with serving(state) as url:
        yield Place(state, url)


def shown(place: Place, url: str) -> bytes:
    """Return what a browser of somebody who may read the repository gets."""
    split = urlsplit(url)
    assert (split.netloc, split.query) == ("github.example", "raw=true")
    assert split.path.startswith(HERE)
    return place.files()[split.path.removeprefix(HERE)]


def test_a_picture_is_where_a_reader_of_the_repository_can_open_it(place: Place) -> None:
    pictures = {"plots/confusion.png": png(), "attachments/plots/a b.PNG": png(grey=1)}
    urls = place.pictures().keep(7, pictures)
    assert set(urls) == set(pictures)
    assert {name: shown(place, url) for name, url in urls.items()} == pictures
    assert urls["attachments/plots/a b.PNG"].endswith("/iris/7/1/a-b.png?raw=true")


def test_the_same_pictures_again_write_nothing(place: Place) -> None:
    urls = place.pictures().keep(7, CONFUSION)
    before = place.writes()
    assert place.pictures().keep(7, CONFUSION) == urls
    assert place.writes() == before


def test_a_url_keeps_its_picture_when_the_next_report_has_another(place: Place) -> None:
    first = place.pictures().keep(7, CONFUSION)["plots/confusion.png"]
    second = place.pictures().keep(7, {"plots/confusion.png": png(grey=2)})["plots/confusion.png"]
    assert first != second
    assert (shown(place, first), shown(place, second)) == (png(), png(grey=2))
    place.pictures().keep(7, {"plots/confusion.png": png(grey=3)})
    assert {path.split("/")[2] for path in place.files()} == {"2", "3"}


def test_names_that_would_be_the_same_file_are_told_apart(place: Place) -> None:
    pictures = {"attachments/a/x.png": png(grey=1), "attachments/b/x.png": png(grey=2)}
    urls = place.pictures().keep(7, pictures)
    assert {name: shown(place, url) for name, url in urls.items()} == pictures


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("attachments/../../../.github/workflows/x.png", "x.png"),
        ("attachments/x](javascript:alert(1)).png", "x-javascript-alert-1.png"),
        ("attachments/...png", "picture.png"),
        (f"attachments/{'é' * 300}.png", "picture.png"),
        ("attachments/-rf.png", "rf.png"),
    ],
)
def test_a_name_is_no_path_and_no_markup(place: Place, path: str, name: str) -> None:
    [url] = place.pictures().keep(7, {path: png()}).values()
    assert url.endswith(f"/iris/7/1/{name}?raw=true")


def test_the_end_of_a_name_is_that_of_the_contents(place: Place) -> None:
    [url] = place.pictures().keep(7, {"plots/x.png": jpeg()}).values()
    assert url.endswith("/x.jpg?raw=true")


def test_projects_and_pull_requests_have_their_own_folders(place: Place) -> None:
    place.pictures().keep(7, CONFUSION)
    place.pictures("wine").keep(7, CONFUSION)
    place.pictures().keep(8, CONFUSION)
    assert {path.rpartition("/")[0] for path in place.files()} == {
        "iris/7/1",
        "wine/7/1",
        "iris/8/1",
    }


def test_jobs_at_once_lose_nothing_of_each_other(place: Place) -> None:
    def job(number: int) -> dict[str, bytes]:
        own = {"plots/confusion.png": png(grey=number)}
        urls = place.pictures().keep(number, own)
        return {url: own[name] for name, url in urls.items()}

    place.wait = lambda seconds: time.sleep(seconds / 50)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(job, range(1, 31)))
    refused = [call for call in place.state.data["calls"] if call["status"] == 422]
    assert refused, "no two jobs wrote at once"
    for urls in found:
        for url, content in urls.items():
            assert shown(place, url) == content


def test_a_job_that_would_write_over_another_is_seen_by_this_test(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with force on each write, files are lost."""
    other = place.pictures()
    move = GitHubPictures._move

    def careless(self: GitHubPictures, commit: str, *, force: bool = False) -> bool:
        monkeypatch.setattr(GitHubPictures, "_move", move)
        other.keep(8, {"plots/confusion.png": png(grey=8)})
        return move(self, commit, force=True)

    place.pictures().keep(1, CONFUSION)
    monkeypatch.setattr(GitHubPictures, "_move", careless)
    place.pictures().keep(7, CONFUSION)
    assert not [path for path in place.files() if path.startswith("iris/8/")]


def test_a_write_that_was_overtaken_begins_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = place.pictures()
    move = GitHubPictures._move

    def overtaken(self: GitHubPictures, commit: str, *, force: bool = False) -> bool:
        monkeypatch.setattr(GitHubPictures, "_move", move)
        other.keep(8, {"plots/confusion.png": png(grey=8)})
        return move(self, commit, force=force)

    place.pictures().keep(1, CONFUSION)
    monkeypatch.setattr(GitHubPictures, "_move", overtaken)
    place.pictures().keep(7, CONFUSION)
    assert {path.split("/")[1] for path in place.files()} == {"1", "7", "8"}


def test_the_history_stays_short_and_no_file_is_lost(place: Place) -> None:
    lengths = []
    for number in range(1, 46):
        place.pictures().keep(number, {"plots/confusion.png": png(grey=number)})
        lengths.append(place.commits())
    assert max(lengths) == 20
    assert lengths.count(1) == 3
    assert len(place.files()) == 45


def test_a_branch_that_another_job_shortens_is_waited_for(place: Place) -> None:
    for number in range(1, 21):
        place.pictures().keep(number, CONFUSION)
    last = objects.commit_of(place.state, REPOSITORY, objects.head(place.state, REPOSITORY, BRANCH))
    claim = {"message": adapter._CLAIM, "tree": last["tree"], "parents": [last["sha"]]}
    sha = objects.commit(place.state, REPOSITORY, claim)
    objects.move(place.state, REPOSITORY, BRANCH, sha, force=False)
    made = objects.commit_of(place.state, REPOSITORY, sha)["date"]
    minute, second = int(made[14:16]), int(made[17:19])
    place.now = started = STARTED + 60 * minute + second
    place.pictures().keep(30, CONFUSION)
    assert place.now - started >= 60, "the other job may still be at it"
    assert place.commits() == 1
    assert len(place.files()) == 21


def test_a_branch_that_is_always_taken_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.pictures().keep(1, CONFUSION)
    monkeypatch.setattr(GitHubPictures, "_move", lambda *_, **__: False)
    with pytest.raises(ConflictError):
        place.pictures().keep(7, CONFUSION)


def test_a_token_that_may_not_write_is_told_what_it_lacks(place: Place) -> None:
    with pytest.raises(ConfigError) as told:
        place.pictures(token="reader").keep(7, CONFUSION)
    assert "contents: write" in told.value.hint
    place.state.repository(REPOSITORY)["is_public"] = False
    place.state.add_token("stranger", "mallory", contents="write")
    with pytest.raises(NotFoundError):
        place.pictures(token="stranger").keep(7, CONFUSION)


def test_a_branch_of_that_name_with_commits_of_people_is_left_alone(place: Place) -> None:
    content = objects.blob(place.state, REPOSITORY, {"content": "mine"})
    entry = {"path": "mine.txt", "mode": "100644", "type": "blob", "sha": content}
    tree = objects.tree(place.state, REPOSITORY, {"tree": [entry]})
    body = {"message": "My reports", "tree": tree, "parents": []}
    sha = objects.commit(place.state, REPOSITORY, body)
    objects.create(place.state, REPOSITORY, BRANCH, sha)
    with pytest.raises(ConfigError, match="My reports"):
        place.pictures().keep(7, CONFUSION)
    assert objects.files(place.state, REPOSITORY, BRANCH) == {"mine.txt": b"mine"}


def test_an_empty_repository_gets_the_branch(place: Place) -> None:
    place.state.repository(REPOSITORY)["branches"].clear()
    [url] = place.pictures().keep(7, CONFUSION).values()
    assert shown(place, url) == png()


def test_no_pictures_are_no_request(place: Place) -> None:
    assert place.pictures().keep(7, {}) == {}
    assert place.state.data["calls"] == []


def test_digests_are_gits() -> None:
    # $ git hash-object -t blob /dev/null
    assert blob_digest(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def file(pull: int, number: int = 1, *, project: str = "iris", size: int = 1_000) -> File:
    path = f"{project}/{pull}/{number}/x.png"
    return File(project=project, pull=pull, number=number, path=path, sha=str(pull), size=size)


def test_old_pull_requests_make_room_for_new_ones() -> None:
    files = [file(pull) for pull in range(1, 101)]
    kept = prune(files, (3, "iris"))
    assert sorted(one.pull for one in kept) == [3, *range(52, 101)]


def test_the_branch_is_never_larger_than_its_limit() -> None:
    files = [file(pull, size=1_500_000) for pull in range(1, 31)]
    kept = prune(files, (1, "iris"))
    assert sum(one.size for one in kept) <= adapter.BYTES_KEPT
    assert sorted(one.pull for one in kept) == [1, *range(19, 31)]
