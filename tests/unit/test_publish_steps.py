"""Publishing, the pull request to main and approvals by review, on fakes."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from mlship.config.project import GatesConfig
from mlship.domain import digests, shapes
from mlship.domain.approvals import approvers
from mlship.domain.facts import Approved, Tested, Verified
from mlship.domain.job import Job, Way
from mlship.domain.policy import PromotePolicy
from mlship.domain.pullrequest import Posted, Review
from mlship.domain.release import Release
from mlship.errors import (
    ConfigError,
    MlshipError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from mlship.reports import folder
from mlship.reports.report import collect
from mlship.steps import test as testing
from mlship.steps.approve import approve, approve_from_pull_request
from mlship.steps.open_release_pr import open_release_pr
from mlship.steps.pictures import of_folder, of_release
from mlship.steps.publish import Published, Publishing, post, publish
from mlship.steps.train import train
from tests.fakes.forge import FakeForge
from tests.fakes.ports import CONFIG, World, world
from tests.harness.pictures import png

RUN = "https://github.com/ada/iris/actions/runs/7"


class FakeSummary:
    """The page of a job, with so much room."""

    def __init__(self, room: int = 100_000) -> None:
        self.room, self.text = room, ""

    def append(self, render: Callable[[int], str]) -> Path | None:
        text = render(self.room)
        self.text += text
        return Path("summary.md") if text else None


@pytest.fixture
def here(tmp_path: Path) -> World:
    gates = GatesConfig(promote=PromotePolicy(approvals=1))
    return world(tmp_path, msgspec.structs.replace(CONFIG, gates=gates))


def proven(here: World) -> Release:
    made = train(here.pipeline).evidence.release
    testing.test(here.pipeline, made)
    here.pipeline.learn(made, "verify-staging-workload", "passed", Verified(requests=3))
    return made


def posted(
    here: World, ways: list[Way], *, room: int = 100_000, job: Job | None = None
) -> tuple[list[Published], FakeSummary, FakeForge]:
    summary, cml = FakeSummary(room), FakeForge()
    cml.pulls = here.forge.pulls
    cml.may_write = here.forge.may_write
    found = publish(
        here.pipeline,
        proven(here),
        ways,
        Publishing(
            job=job or Job(url=RUN, summary=Path("s")),
            forge=here.forge,
            cml=cml,
            summary=summary,
        ),
    )
    return found, summary, cml


def test_the_report_is_a_comment_on_the_branchs_pull_request(here: World) -> None:
    pull = here.forge.add("develop", "main")
    found, summary, _ = posted(here, ["github", "summary"])
    assert [(one.way, one.change) for one in found] == [
        ("github", "created"),
        ("summary", "updated"),
    ]
    assert here.forge.comments[pull.number].startswith("## ✅ iris@")
    assert here.forge.comments[pull.number] == summary.text


def test_a_job_of_a_pull_request_comments_there(here: World) -> None:
    here.forge.add("develop", "main")
    here.forge.branches["other"] = "c" * 40
    second = here.forge.add("other", "main")
    posted(here, ["github"], job=Job(pull=second.number))
    assert list(here.forge.comments) == [second.number]


def test_cml_posts_in_our_place(here: World) -> None:
    pull = here.forge.add("develop", "main")
    _, _, cml = posted(here, ["cml"])
    assert (list(cml.comments), here.forge.comments) == ([pull.number], {})


def test_mlship_posts_where_cml_fails_and_says_so(here: World) -> None:
    pull = here.forge.add("develop", "main")

    class Broken(FakeForge):
        def comment(self, number: int, body: str) -> Posted:
            raise UnavailableError("cml failed with exit code 1", hint="run it again")

    summary = FakeSummary()
    job = Job(url=RUN, summary=Path("s"))
    publishing = Publishing(job=job, forge=here.forge, cml=Broken(), summary=summary)
    release = proven(here)
    for change in ("created", "unchanged"):
        [found] = publish(here.pipeline, release, ["cml"], publishing)
        assert (found.way, found.change) == ("cml", change)
        assert found.note == "posted by mlship instead of CML: cml failed with exit code 1"
    assert here.forge.comments[pull.number].startswith("## ✅ iris@")
    assert summary.text == ""


@pytest.mark.parametrize("way", ["cml", "github"])
def test_a_forks_job_puts_the_report_on_its_page_and_succeeds(here: World, way: Way) -> None:
    pull = here.forge.add("develop", "main", from_fork=True)
    here.forge.may_write = False
    found, summary, _ = posted(here, [way], job=Job(pull=pull.number, summary=Path("s")))
    assert [(one.way, one.change) for one in found] == [(way, None), ("summary", "updated")]
    assert "fork" in found[0].note
    assert summary.text.startswith("## ✅")


def test_a_branch_without_a_pull_request_has_its_report_on_the_jobs_page(here: World) -> None:
    found, summary, _ = posted(here, ["github", "summary", "github"])
    assert [(one.way, bool(one.note)) for one in found] == [("github", True), ("summary", False)]
    assert summary.text


def test_outside_of_a_job_nothing_stands_in(here: World) -> None:
    found, summary, _ = posted(here, ["github"], job=Job())
    assert [one.way for one in found] == ["github"]
    assert summary.text == ""


def test_a_token_that_may_not_write_in_its_own_repository_is_an_error(here: World) -> None:
    here.forge.add("develop", "main")
    here.forge.may_write = False
    with pytest.raises(ConfigError):
        posted(here, ["github"])


class FakePictures:
    """A place for pictures; `fault` is why it takes none."""

    def __init__(self, fault: MlshipError | None = None) -> None:
        self.fault = fault
        self.kept: list[tuple[int, dict[str, bytes]]] = []

    def keep(self, pull: int, pictures: Mapping[str, bytes]) -> dict[str, str]:
        if self.fault:
            raise self.fault
        self.kept.append((pull, dict(pictures)))
        return {name: f"https://github.com/ada/iris/blob/x/{name}?raw=true" for name in pictures}


def with_picture(here: World) -> Release:
    made = proven(here)
    record = here.pipeline.read().latest("test", made)
    assert record is not None
    facts = msgspec.structs.replace(shapes.of(record, Tested), plots=("confusion.png",))
    here.pipeline.learn(made, "test", "passed", facts)
    plots = here.pipeline.state / "plots" / digests.short(made.bundle)
    (plots / "confusion.png").write_bytes(png())
    return made


@pytest.mark.parametrize("way", ["cml", "github"])
def test_pictures_are_shown_in_the_comment_and_in_the_summary(here: World, way: Way) -> None:
    pull = here.forge.add("develop", "main")
    pictures, summary, job = FakePictures(), FakeSummary(), Job(url=RUN, summary=Path("s"))
    publishing = Publishing(
        job=job, forge=here.forge, cml=here.forge, summary=summary, pictures=pictures
    )
    found = publish(here.pipeline, with_picture(here), [way, "summary"], publishing)
    assert [result.note for result in found] == ["", ""]
    assert pictures.kept == [(pull.number, {"plots/confusion.png": png()})]
    shown = "![confusion.png](https://github.com/ada/iris/blob/x/plots/confusion.png?raw=true)"
    assert shown in here.forge.comments[pull.number]
    assert shown in summary.text


def test_where_pictures_may_not_be_the_comment_is_text_and_says_why(here: World) -> None:
    pull = here.forge.add("develop", "main")
    fault = ConfigError("the token in GITHUB_TOKEN may not write pictures", hint="contents: write")
    job = Job(url=RUN, summary=Path("s"))
    publishing = Publishing(
        job=job,
        forge=here.forge,
        cml=FakeForge(),
        summary=FakeSummary(),
        pictures=FakePictures(fault),
    )
    [found] = publish(here.pipeline, with_picture(here), ["github"], publishing)
    assert found.change == "created"
    assert found.note == f"posted without pictures: {fault.message}"
    assert "![" not in here.forge.comments[pull.number]
    publishing = dataclasses.replace(publishing, pictures=FakePictures(fault), job=Job(pull=9))
    with pytest.raises(NotFoundError):
        publish(here.pipeline, with_picture(here), ["github"], publishing)


def test_a_report_that_another_job_wrote_is_posted_without_the_project(
    here: World, tmp_path: Path
) -> None:
    pull = here.forge.add("develop", "main")
    made = with_picture(here)
    report = collect(made, here.pipeline.read())
    folder.write(report, of_release(here.pipeline, report), tmp_path / "report")
    read = folder.read(tmp_path / "report")
    assert read == report
    pictures = of_folder(tmp_path / "report", read)
    assert pictures == {"plots/confusion.png": png()}
    publishing = Publishing(
        job=Job(branch="develop"),
        forge=here.forge,
        cml=FakeForge(),
        summary=FakeSummary(),
        pictures=FakePictures(),
    )
    [found] = post(read, pictures, ["github"], publishing)
    assert found.change == "created"
    assert "plots/confusion.png?raw=true" in here.forge.comments[pull.number]
    [nothing] = post(read, pictures, ["github"], dataclasses.replace(publishing, job=Job()))
    assert nothing.note == "no pull request is open for this commit"


def test_a_full_page_is_told(here: World) -> None:
    found, _, _ = posted(here, ["summary"], room=10)
    assert found == [Published(way="summary", note="the step's summary is full")]


def test_the_pull_request_to_main_is_opened_once(here: World) -> None:
    made = proven(here)
    record, first = open_release_pr(here.pipeline, made, "develop", "main", run=RUN)
    pull = here.forge.pulls[1]
    assert (first.change, pull.title) == ("created", f"Release {made}")
    assert "## ✅ iris@" in pull.body
    before = len(here.pipeline.ledger.records())
    again, second = open_release_pr(here.pipeline, made, "develop", "main", run=RUN)
    assert (second.change, again) == ("unchanged", record)
    assert here.forge.writes == ["open"]
    assert len(here.pipeline.ledger.records()) == before


def test_another_release_brings_title_and_report_up_to_date(here: World) -> None:
    open_release_pr(here.pipeline, proven(here), "develop", "main")
    here.trainer.params = "C=2"
    second = proven(here)
    _, posted = open_release_pr(here.pipeline, second, "develop", "main")
    assert posted.change == "updated"
    pull = here.forge.pulls[1]
    assert pull.title == f"Release {second}"
    assert pull.body.count("## ✅ iris@") == 1


def test_what_people_wrote_around_the_report_stays(here: World) -> None:
    made = proven(here)
    open_release_pr(here.pipeline, made, "develop", "main")
    pull = here.forge.pulls[1]
    body = f"Please look at the petals.\r\n\r\n{pull.body}\r\n- [ ] told the team"
    here.forge.pulls[1] = msgspec.structs.replace(pull, title="My title", body=body)
    here.pipeline.learn(made, "approve", "passed", Approved(by="grace"))
    open_release_pr(here.pipeline, made, "develop", "main")
    changed = here.forge.pulls[1]
    assert changed.title == "My title"
    assert changed.body.startswith("Please look at the petals.\n\n<!-- mlship iris: begin -->")
    assert changed.body.endswith("<!-- mlship iris: end -->\n- [ ] told the team")
    assert "grace" in changed.body


def test_projects_of_one_repository_share_the_pull_request(here: World) -> None:
    iris = proven(here)
    open_release_pr(here.pipeline, iris, "develop", "main")
    of_another = "<!-- mlship fraud: begin -->\nfraud is well\n<!-- mlship fraud: end -->"
    pull = here.forge.pulls[1]
    both = f"{pull.title}, fraud@3f9a0c12be77"
    body = f"{of_another}\n\n{pull.body}"
    here.forge.pulls[1] = msgspec.structs.replace(pull, title=both, body=body)
    here.trainer.params = "C=2"
    second = proven(here)
    open_release_pr(here.pipeline, second, "develop", "main")
    changed = here.forge.pulls[1]
    assert changed.title == f"Release {second}, fraud@3f9a0c12be77"
    assert of_another in changed.body
    assert changed.body.count("## ✅ iris@") == 1


def test_a_section_that_another_job_overwrote_is_written_again(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge, of_another = here.forge, "<!-- mlship fraud: begin -->\n<!-- mlship fraud: end -->"
    opened = forge.open

    def overwritten(head: str, base: str, title: str, body: str) -> Posted:
        done = opened(head, base, title, body)
        if len(forge.writes) == 1:
            forge.pulls[1] = msgspec.structs.replace(forge.pulls[1], body=of_another)
        return done

    monkeypatch.setattr(forge, "open", overwritten)
    _, posted = open_release_pr(here.pipeline, proven(here), "develop", "main")
    assert posted.change == "created"
    assert forge.pulls[1].body.startswith(of_another)
    assert "## ✅ iris@" in forge.pulls[1].body


def test_the_section_of_a_former_version_is_taken_over(here: World) -> None:
    made = proven(here)
    here.forge.add("develop", "main")
    old = "Hello\n\n<!-- mlship: begin -->\nold\n<!-- mlship: end -->\n"
    here.forge.pulls[1] = msgspec.structs.replace(here.forge.pulls[1], body=old)
    open_release_pr(here.pipeline, made, "develop", "main")
    body = here.forge.pulls[1].body
    assert body.startswith("Hello\n\n<!-- mlship iris: begin -->")
    assert "old" not in body


def test_what_has_not_passed_is_not_brought_to_main(here: World) -> None:
    made = train(here.pipeline).evidence.release
    with pytest.raises(RefusedError, match="test: never run"):
        open_release_pr(here.pipeline, made, "develop", "main")
    testing.test(here.pipeline, made)
    here.pipeline.learn(made, "verify-staging-workload", "failed", Verified())
    with pytest.raises(RefusedError, match="verify-staging-workload: failed"):
        open_release_pr(here.pipeline, made, "develop", "main")
    assert here.forge.writes == []


GOOD = Review(
    by="grace",
    decision="approved",
    commit="a" * 40,
    text="fine",
    url="https://github.com/ada/iris/pull/1#pullrequestreview-2",
    time=None,
    is_person=True,
    may_write=True,
)


def reviewed(here: World, *reviews: Review) -> Release:
    here.forge.add("develop", "main")
    here.forge.latest[1] = reviews
    here.forge.authors[1] = ("Linus",)
    return proven(here)


def test_a_review_of_the_very_commit_is_an_approval_once(here: World) -> None:
    made = reviewed(here, GOOD)
    taken = approve_from_pull_request(here.pipeline, made, 1)
    assert (taken.people, taken.left_out) == (("grace",), ())
    facts = taken.given[0].evidence.facts
    assert facts == {"by": "grace", "comment": "fine", "url": GOOD.url}
    before = len(here.pipeline.ledger.records())
    assert approve_from_pull_request(here.pipeline, made, 1) == taken
    assert len(here.pipeline.ledger.records()) == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"decision": "dismissed"}, "dismissed"),
        ({"decision": "changes requested"}, "changes requested"),
        ({"commit": "c" * 40}, "reviewed commit cccccccccccc"),
        ({"commit": ""}, "reviewed commit"),
        ({"by": "ada"}, "is an author"),
        ({"by": "linus"}, "is an author"),
        ({"by": "ada@example.org"}, "cannot approve"),
        ({"by": "ada\u200b@example.org."}, "cannot approve"),
        ({"by": "\u200b"}, "has no approver"),
        ({"is_person": False}, "is not a person"),
        ({"may_write": False}, "may not push"),
    ],
)
def test_what_is_no_approval_is_left_out_with_the_reason(
    here: World, changes: dict[str, object], reason: str
) -> None:
    made = reviewed(here, msgspec.structs.replace(GOOD, **changes))
    with pytest.raises(RefusedError, match=reason) as told:
        approve_from_pull_request(here.pipeline, made, 1)
    assert "0 of 1 approvals" in told.value.message
    assert approvers(made, here.pipeline.ledger.records()).names == ()


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ([msgspec.structs.replace(GOOD, decision="dismissed")], "dismissed"),
        ([msgspec.structs.replace(GOOD, decision="changes requested")], "changes requested"),
        ([], "the review is gone"),
    ],
)
def test_an_approval_whose_review_is_taken_back_is_withdrawn_once(
    here: World, now: list[Review], reason: str
) -> None:
    made = reviewed(here, GOOD)
    approve_from_pull_request(here.pipeline, made, 1)
    here.forge.latest[1] = now
    for _ in range(2):
        with pytest.raises(RefusedError, match="0 of 1 approvals"):
            approve_from_pull_request(here.pipeline, made, 1)
    withdrawn = [
        record.evidence.facts
        for record in here.pipeline.ledger.records()
        if record.evidence.step == "withdraw-approval"
    ]
    assert withdrawn == [{"by": "grace", "url": GOOD.url, "reason": reason}]
    assert not collect(made, here.pipeline.ledger.records()).approvals
    here.forge.latest[1] = [GOOD]
    assert approve_from_pull_request(here.pipeline, made, 1).people == ("grace",)


def test_what_was_approved_elsewhere_is_not_withdrawn(here: World) -> None:
    made = reviewed(here, GOOD)
    approve(here.pipeline, made, "Grace")
    approve(
        here.pipeline, made, "lin", url="https://github.com/ada/iris/pull/11#pullrequestreview-3"
    )
    approve_from_pull_request(here.pipeline, made, 1)
    here.forge.latest[1] = [msgspec.structs.replace(GOOD, decision="dismissed")]
    taken = approve_from_pull_request(here.pipeline, made, 1)
    assert [record.evidence.facts["by"] for record in taken.withdrawn] == ["grace"]
    assert (taken.people, taken.count) == (("Grace (by name, not verified)", "lin"), 2)


def test_approvals_of_another_commit_are_none_even_by_many(here: World) -> None:
    made = reviewed(here, *(msgspec.structs.replace(GOOD, by=name) for name in ("a", "b", "c")))
    here.forge.pulls[1] = msgspec.structs.replace(here.forge.pulls[1], commit="e" * 40)
    with pytest.raises(RefusedError, match="0 of 1"):
        approve_from_pull_request(here.pipeline, made, 1)


def test_a_merge_with_the_same_content_is_what_was_looked_at(here: World) -> None:
    here.source.sha = "d" * 40
    made = reviewed(here, GOOD)
    with pytest.raises(RefusedError):
        approve_from_pull_request(here.pipeline, made, 1)
    here.forge.contents[1] = ("d" * 40,)
    assert approve_from_pull_request(here.pipeline, made, 1).people == ("grace",)
