"""What every forge promises, on the fake and on GitHub's API; then what only an API can suffer."""

import time
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from mlship.adapters.forges.github.forge import GitHubForge
from mlship.adapters.http.retries import Timing
from mlship.domain.ports import Forge
from mlship.domain.pullrequest import Review
from mlship.errors import ConfigError, NotFoundError, RefusedError, UnavailableError
from tests.fakes.forge import FakeForge
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

REPOSITORY = "ada/iris"
MAIN, DEVELOP, LATER, MERGE = "b" * 40, "a" * 40, "c" * 40, "d" * 40
BRANCH = 'x";touch /tmp/pwn;#'


class Place(Protocol):
    """A forge, and the hands of other people on it."""

    forge: Forge

    def pull(self, head: str = "develop", *, fork: bool = False) -> int: ...
    def branch(self, name: str, commit: str) -> None: ...
    def review(self, number: int, by: str, state: str, commit: str = "") -> None: ...
    def deny(self) -> None: ...
    def text(self, number: int) -> str: ...
    def writes(self) -> int: ...


class FakePlace:
    def __init__(self) -> None:
        self.fake = FakeForge()
        self.forge: Forge = self.fake

    def pull(self, head: str = "develop", *, fork: bool = False) -> int:
        return self.fake.add(head, "main", from_fork=fork).number

    def branch(self, name: str, commit: str) -> None:
        self.fake.branches[name] = commit

    def review(self, number: int, by: str, state: str, commit: str = "") -> None:
        decisions: dict[str, Any] = {
            "APPROVED": "approved",
            "CHANGES_REQUESTED": "changes requested",
            "DISMISSED": "dismissed",
        }
        before = {one.by: one for one in self.fake.latest.get(number, ())}
        if state in decisions:
            before[by] = Review(
                by=by,
                decision=decisions[state],
                commit=commit or self.fake.pulls[number].commit,
                text="",
                url="",
                time=None,
                is_person=not by.endswith("[bot]"),
                may_write=by == "grace" and state == "APPROVED",
            )
        self.fake.latest[number] = tuple(before.values())

    def deny(self) -> None:
        self.fake.may_write = False

    def text(self, number: int) -> str:
        return self.fake.comments[number]

    def writes(self) -> int:
        return len(self.fake.writes)


class GitHubPlace:
    def __init__(self, state: State, url: str) -> None:
        self.state, self.url = state, url
        self.waited: list[float] = []
        self.forge: Forge = self.opened("job")

    def opened(self, token: str, **changes: str) -> GitHubForge:
        environment = {
            "GITHUB_API_URL": self.url,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_TOKEN": token,
        }
        timing = Timing(pause=self.waited.append, clock=lambda: 1_000.0, chance=lambda: 0.0)
        return GitHubForge(environment | changes, "iris", timing=timing)

    def pull(self, head: str = "develop", *, fork: bool = False) -> int:
        source = "mallory/iris" if fork else REPOSITORY
        made = self.state.open_pull(
            REPOSITORY,
            "ada",
            head=head,
            base="main",
            title="Release",
            head_repository=source,
            head_sha="f" * 40 if fork else None,
        )
        return int(made["number"])

    def branch(self, name: str, commit: str) -> None:
        self.state.commit(REPOSITORY, name, commit, "ada@example.org")

    def merged(self, by: str) -> str:
        """Merge a feature of Mallory's into develop, as GitHub does; return the merge."""
        self.state.commit(REPOSITORY, "feature", DEVELOP, "linus@example.org")
        self.state.commit(REPOSITORY, "feature", LATER, "mallory@example.org")
        return self.state.merge(REPOSITORY, LATER, "develop", by)

    def review(self, number: int, by: str, state: str, commit: str = "") -> None:
        self.state.add_review(REPOSITORY, number, by, state, commit)

    def deny(self) -> None:
        self.state.data["tokens"]["job"]["permissions"] = {"contents": "read"}

    def text(self, number: int) -> str:
        found = [one for one in self.state.data["comments"] if one["issue"] == number]
        return str(found[-1]["body"]).partition("\n")[2]

    def writes(self) -> int:
        calls = self.state.data["calls"]
        return sum(call["method"] != "GET" and call["status"] < 300 for call in calls)


@pytest.fixture
def github() -> Iterator[GitHubPlace]:
    state = State()
    for login in ("ada", "grace", "mallory", "linus"):
        state.add_account(login)
    state.add_repository(REPOSITORY, grace="write")
    state.commit(REPOSITORY, "main", MAIN, "ada@example.org")
    state.commit(REPOSITORY, "develop", MAIN, "ada@example.org")
    state.commit(REPOSITORY, "develop", DEVELOP, "linus@example.org")
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="read")
    state.add_token("fork", "github-actions[bot]", pull_requests="read", contents="read")
    state.add_token("of-grace", "grace", pull_requests="write", contents="write")
    with serving(state) as url:
        yield GitHubPlace(state, url)


@pytest.fixture(params=["fake", "github"])
def place(request: pytest.FixtureRequest) -> Place:
    return FakePlace() if request.param == "fake" else request.getfixturevalue("github")


def test_a_pull_request_is_found_by_its_branch_or_by_its_commit(place: Place) -> None:
    assert place.forge.find(branch="develop", commit=DEVELOP) is None
    number = place.pull()
    found = place.forge.find(branch="develop")
    assert found is not None
    assert (found.number, found.head, found.base, found.commit, found.state, found.from_fork) == (
        *(number, "develop", "main", DEVELOP, "open", False),
    )
    assert place.forge.find(branch="no-such", commit=DEVELOP) == found
    assert place.forge.find(branch="develop", base="main") == found
    assert place.forge.find(branch="develop", base="other") is None
    assert place.forge.get(number) == found


def test_pull_requests_are_found_by_any_commit_in_them(place: Place) -> None:
    assert place.forge.is_set_up
    assert list(place.forge.containing(DEVELOP)) == []
    number = place.pull()
    assert list(place.forge.containing(DEVELOP)) == [number]
    assert list(place.forge.containing("9" * 40)) == [], "it was never pushed"


def test_a_branchs_name_is_data(place: Place) -> None:
    place.branch(BRANCH, LATER)
    number = place.pull(BRANCH)
    found = place.forge.find(branch=BRANCH)
    assert found is not None
    assert (found.number, found.head) == (number, BRANCH)


def test_a_number_that_does_not_exist_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError):
        place.forge.get(404)
    with pytest.raises(NotFoundError):
        place.forge.comment(404, "text")


def test_there_is_one_comment_and_its_text_is_replaced(place: Place) -> None:
    number = place.pull()
    first = place.forge.comment(number, "first")
    assert (first.change, place.text(number)) == ("created", "first")
    again = place.forge.comment(number, "second")
    assert (again.change, again.url, place.text(number)) == ("updated", first.url, "second")
    before = place.writes()
    assert place.forge.comment(number, "second").change == "unchanged"
    assert place.writes() == before


def test_a_forks_job_that_may_not_comment_is_no_error(place: Place) -> None:
    number = place.pull("main", fork=True)
    place.deny()
    posted = place.forge.comment(number, "text")
    assert (posted.url, posted.change) == ("", None)


def test_a_token_of_the_repository_that_may_not_write_is_one(place: Place) -> None:
    number = place.pull()
    place.deny()
    with pytest.raises(ConfigError) as told:
        place.forge.comment(number, "text")
    assert "pull-requests: write" in told.value.hint
    place.branch("next", LATER)
    with pytest.raises(ConfigError):
        place.forge.open("next", "main", "title", "body")


def test_opening_twice_changes_what_is_open_and_then_nothing(place: Place) -> None:
    first = place.forge.open("develop", "main", "Release one", "body")
    assert first.change == "created"
    assert place.forge.open("develop", "main", "Release two", "body") == type(first)(
        url=first.url, change="updated"
    )
    before = place.writes()
    assert place.forge.open("develop", "main", "Release two", "body").change == "unchanged"
    assert place.writes() == before
    found = place.forge.find(branch="develop")
    assert found is not None
    assert (found.title, found.body) == ("Release two", "body")


def test_what_cannot_be_opened_is_told(place: Place) -> None:
    with pytest.raises(NotFoundError, match="no-such"):
        place.forge.open("no-such", "main", "title", "body")
    place.branch("same", MAIN)
    with pytest.raises(RefusedError, match="no commit"):
        place.forge.open("same", "main", "title", "body")


def test_the_last_decision_of_each_account_counts(place: Place) -> None:
    number = place.pull()
    place.review(number, "grace", "CHANGES_REQUESTED")
    place.review(number, "grace", "APPROVED")
    place.review(number, "grace", "COMMENTED")
    place.review(number, "linus", "APPROVED")
    place.review(number, "linus", "DISMISSED")
    place.review(number, "mallory", "APPROVED", MAIN)
    found = place.forge.reviews(number)
    assert [(one.by, one.decision, one.commit, one.may_write) for one in found.latest] == [
        ("grace", "approved", DEVELOP, True),
        ("linus", "dismissed", DEVELOP, False),
        ("mallory", "approved", MAIN, False),
    ]
    assert found.contents == (DEVELOP,)
    assert "ada" in found.authors


def test_a_comment_of_another_account_is_never_touched(github: GitHubPlace) -> None:
    number = github.pull()
    github.forge.comment(number, "ours")
    comments = github.state.data["comments"]
    ours = comments[0]
    forged = github.state.add_comment(REPOSITORY, number, "mallory", ours["body"])
    comments.reverse()
    quoted = f"> {ours['body']}"
    github.state.add_comment(REPOSITORY, number, "echo[bot]", quoted)
    github.state.add_account("echo[bot]")
    assert github.forge.comment(number, "new").change == "updated"
    assert forged["body"].endswith("ours")
    assert ours["body"].endswith("new")
    assert comments[-1]["body"] == quoted


def test_a_persons_token_finds_the_persons_own_comment(github: GitHubPlace) -> None:
    number = github.pull()
    github.forge.comment(number, "the job's")
    of_grace = github.opened("of-grace")
    assert of_grace.comment(number, "by hand").change == "created"
    assert of_grace.comment(number, "by hand again").change == "updated"
    assert github.text(number) == "by hand again"
    assert github.state.data["comments"][0]["body"].endswith("the job's")


def test_two_projects_of_a_repository_have_a_comment_each(github: GitHubPlace) -> None:
    number = github.pull()
    github.forge.comment(number, "iris")
    environment = {
        "GITHUB_API_URL": github.url,
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_TOKEN": "job",
    }
    assert GitHubForge(environment, "wine").comment(number, "wine").change == "created"
    assert len(github.state.data["comments"]) == 2


def test_the_comment_is_found_behind_many_pages(github: GitHubPlace) -> None:
    number = github.pull()
    for count in range(250):
        github.state.add_comment(REPOSITORY, number, "mallory", f"number {count}")
    assert github.forge.comment(number, "ours").change == "created"
    assert github.forge.comment(number, "new").change == "updated"
    pages = [call for call in github.state.data["calls"] if "page=3" in call["path"]]
    assert len(pages) == 2


def test_a_list_that_goes_on_elsewhere_gets_no_token(github: GitHubPlace) -> None:
    number = github.pull()
    for count in range(150):
        github.state.add_comment(REPOSITORY, number, "mallory", f"number {count}")
    elsewhere = github.opened("job", GITHUB_API_URL=github.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(UnavailableError, match="another server"):
        elsewhere.comment(number, "ours")


def test_after_a_merge_that_brought_nothing_else_the_merge_is_what_was_seen(
    github: GitHubPlace,
) -> None:
    number = github.pull()
    merged = github.state.merge(REPOSITORY, DEVELOP, "main", "grace@example.org")
    kept = github.state.data["pulls"][0]
    kept |= {"state": "closed", "merged_at": github.state.now(), "merge_commit_sha": merged}
    assert github.forge.reviews(number).contents == (DEVELOP, merged)
    assert github.forge.get(number).state == "merged"
    assert list(github.forge.containing(merged)) == [number]
    github.state.repository(REPOSITORY)["commits"][merged]["tree"] = "e" * 40
    assert github.forge.reviews(number).contents == (DEVELOP,)


def test_a_pull_request_that_was_closed_without_a_merge_contains_nothing(
    github: GitHubPlace,
) -> None:
    number = github.pull()
    github.state.data["pulls"][0]["state"] = "closed"
    assert list(github.forge.containing(DEVELOP)) == []
    assert github.forge.get(number).state == "closed"


@pytest.mark.parametrize("name", ["GITHUB_REPOSITORY", "GITHUB_TOKEN"])
def test_without_a_repository_or_a_token_no_forge_is_set_up(github: GitHubPlace, name: str) -> None:
    assert not github.opened("job", **{name: ""}).is_set_up


def test_who_opened_and_who_wrote_the_last_commit_are_both_authors(github: GitHubPlace) -> None:
    assert set(github.forge.reviews(github.pull()).authors) == {"ada", "linus"}


def test_who_pressed_the_button_of_a_merge_wrote_nothing(github: GitHubPlace) -> None:
    merge = github.merged("grace@example.org")
    assert set(github.forge.reviews(github.pull()).authors) == {"ada", "mallory"}
    github.state.repository(REPOSITORY)["signed"].remove(merge)
    forged = github.forge.reviews(1).authors
    assert set(forged) == {"ada", "grace", "mallory"}


def test_a_merge_by_hand_was_written_by_who_made_it_too(github: GitHubPlace) -> None:
    merge = github.merged("grace@example.org")
    github.state.repository(REPOSITORY)["commits"][merge]["committer"] = "grace@example.org"
    assert set(github.forge.reviews(github.pull()).authors) == {"ada", "grace", "mallory"}


def test_a_short_limit_is_waited_for(github: GitHubPlace) -> None:
    number = github.pull()
    github.state.plan(429, "You have exceeded a secondary rate limit", {"Retry-After": "7"})
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1030"}
    github.state.plan(403, "API rate limit exceeded for installation ID 1.", limit)
    assert github.forge.get(number).number == number
    assert github.waited == [7.0, 30.0]


def test_a_long_limit_is_told_with_its_end(github: GitHubPlace) -> None:
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4600"}
    github.state.plan(403, "API rate limit exceeded for installation ID 1.", limit)
    with pytest.raises(UnavailableError, match="until 1970-01-01 01:16:40 UTC"):
        github.forge.get(1)
    assert github.waited == []


def test_a_limit_that_does_not_end_is_given_up(github: GitHubPlace) -> None:
    github.state.plan(429, "Too many", {"Retry-After": "1"}, times=9)
    with pytest.raises(UnavailableError, match="is exceeded until"):
        github.forge.get(1)
    assert github.waited == [1.0, 1.0, 1.0]


def test_a_question_that_failed_on_the_way_is_asked_again_and_a_comment_is_not(
    github: GitHubPlace,
) -> None:
    number = github.pull()
    github.state.plan(502, "Server Error")
    assert github.forge.get(number).number == number
    github.state.plan(502, "Server Error", at="POST")
    with pytest.raises(UnavailableError, match="status 502"):
        github.forge.comment(number, "text")
    assert [call["status"] for call in github.state.data["calls"]].count(502) == 2


def test_an_answer_that_is_no_githubs_is_told(github: GitHubPlace) -> None:
    github.state.plan(200, "an object where a list belongs")
    with pytest.raises(UnavailableError, match="invalid response"):
        github.forge.comment(github.pull(), "text")


ENVIRONMENTS: list[tuple[dict[str, str], str]] = [
    ({"GITHUB_TOKEN": ""}, "GITHUB_TOKEN is not set"),
    ({"GITHUB_TOKEN": "wrong"}, "does not accept the token"),
    ({"GITHUB_REPOSITORY": ""}, "GITHUB_REPOSITORY is not set"),
    ({"GITHUB_REPOSITORY": "../../user"}, "is not a repository"),
    ({"GITHUB_API_URL": "file:///etc/passwd"}, "not a URL"),
]


@pytest.mark.parametrize(("changes", "match"), ENVIRONMENTS)
def test_a_wrong_environment_is_told(
    github: GitHubPlace, changes: dict[str, str], match: str
) -> None:
    with pytest.raises(ConfigError, match=match) as told:
        github.opened("job", **changes).get(1)
    assert told.value.hint


def test_a_server_that_does_not_answer_is_told(github: GitHubPlace) -> None:
    started = time.monotonic()
    silent = github.opened("job", GITHUB_API_URL="http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="cannot reach"):
        silent.get(1)
    assert time.monotonic() - started < 10


def test_a_repository_that_lets_no_job_open_pull_requests_is_told(github: GitHubPlace) -> None:
    github.state.repository(REPOSITORY)["jobs_may_open_pulls"] = False
    with pytest.raises(ConfigError, match="not permitted") as told:
        github.forge.open("develop", "main", "title", "body")
    assert "Settings" in told.value.hint
