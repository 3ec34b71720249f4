"""A release is tested and verified with the files and the settings of its own commit."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from mlship.config.check_files import CheckFiles, check_files
from mlship.config.project import TestsConfig
from mlship.domain import checks, digests, shapes
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Record, Saw
from mlship.domain.facts import Checked, Tested, Verified
from mlship.domain.inputs import Opened
from mlship.domain.release import Release
from mlship.domain.scores import Server, Suite, TestRun
from mlship.errors import RefusedError
from mlship.steps import run as runs
from mlship.steps.deploy import deploy_production
from mlship.steps.open_release_pr import open_release_pr
from mlship.steps.test import test as check
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


def trained(here: World) -> Release:
    return train(here.pipeline).evidence.release


def verified(here: World, release: Release) -> None:
    here.pipeline.learn(
        release, "verify-staging-workload", "passed", Verified(), Saw(bundle=release.bundle)
    )


def differs(record: Record) -> str:
    return shapes.of(record, Checked).differs


@pytest.mark.parametrize("path", ["mlship.yaml", "tests/unit/test_model.py", "notes.txt"])
def test_a_pass_with_other_files_than_the_commit_has_does_not_count(here: World, path: str) -> None:
    release = trained(here)
    here.source.different = (path,)
    record = check(here.pipeline, release)
    assert (record.evidence.verdict, differs(record)) == ("passed", path)
    (warning,) = checks.warnings(shapes.of(record, Tested).checks)
    assert warning.text.startswith(f"not as in commit {'a' * 12}: {path}")
    verified(here, release)
    with pytest.raises(RefusedError, match="not as in the release's commit") as caught:
        deploy_production(here.pipeline, release)
    assert caught.value.hint == (
        f"`git checkout {'a' * 12}`, with nothing changed, then `mlship test {release}`"
    )
    here.source.different = ()
    assert differs(check(here.pipeline, release)) == ""
    deploy_production(here.pipeline, release)
    assert slot_of(release) in here.targets["production"].inspect()


def test_a_pull_request_to_main_asks_for_a_pass_with_the_files_of_the_commit(here: World) -> None:
    release = trained(here)
    here.source.different = ("mlship.yaml",)
    check(here.pipeline, release)
    with pytest.raises(RefusedError, match="not ready for main: test: passed, but not as in"):
        open_release_pr(here.pipeline, release, "develop", "main")
    assert not here.forge.pulls


def test_a_run_tests_again_what_passed_with_other_files(here: World) -> None:
    release = trained(here)
    here.source.different = ("mlship.yaml",)
    check(here.pipeline, release)
    assert runs._tested(here.pipeline, release, here.pipeline.read()) is None
    here.source.different = ()
    record = check(here.pipeline, release)
    assert runs._tested(here.pipeline, release, here.pipeline.read()) == record


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("gates.test.accuracy.min", "gates.test.accuracy.min (by an option or a variable)"),
        ("tests.unit", "tests.unit (by an option or a variable)"),
        ("gates.testing", ""),
        ("model.params.C", ""),
        ("store.uri", ""),
    ],
)
def test_a_bound_by_an_option_is_not_that_of_the_commit(
    here: World, key: str, expected: str
) -> None:
    pipeline = dataclasses.replace(here.pipeline, overridden=(key,))
    assert differs(check(pipeline, trained(here))) == expected


def test_what_the_training_wrote_may_be_there_but_no_check(here: World) -> None:
    here.trainer.opened = Opened(written=("metrics.json", "tests/unit/expected.json"))
    release = trained(here)
    here.source.different = ("metrics.json", "tests/unit/expected.json")
    assert differs(check(here.pipeline, release)) == "tests/unit/expected.json"


def test_what_the_training_wrote_and_read_must_be_as_it_left_it(here: World) -> None:
    left = digests.of_bytes(b"left")
    here.trainer.opened = Opened(
        read={"history.json": digests.of_bytes(b"read")},
        left={"history.json": left},
        written=("history.json",),
    )
    release = trained(here)
    here.source.different = ("history.json",)
    here.trainer.files = {"history.json": left}
    assert differs(check(here.pipeline, release)) == ""
    here.trainer.files = {"history.json": digests.of_bytes(b"edited")}
    assert differs(check(here.pipeline, release)) == "history.json"


def test_what_the_training_read_elsewhere_in_the_repository_is_that_of_the_commit(
    here: World,
) -> None:
    here.trainer.opened = Opened(read={"../shared.py": digests.of_bytes(b"read"), "own.json": None})
    release = trained(here)
    here.source.shared = ("../other.py", "../shared.py", "own.json")
    assert differs(check(here.pipeline, release)) == "../shared.py"


def test_what_the_tests_wrote_may_be_there_afterwards(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writes(suite: Suite, *, bundle: Path | None, server: Server | None) -> TestRun:
        return TestRun(
            suite=suite,
            passed=1,
            failed=0,
            skipped=0,
            seconds=0.1,
            wrote=("out.html", "conftest.py"),
        )

    monkeypatch.setattr(here.tester, "test", writes)
    release = trained(here)
    check(here.pipeline, release)
    here.source.different = ("conftest.py", "out.html")
    assert differs(check(here.pipeline, release)) == "conftest.py"


def test_a_release_with_uncommitted_changes_has_no_files_to_compare_with(here: World) -> None:
    here.source.dirty, here.source.different = True, ("pipeline.py",)
    assert differs(check(here.pipeline, trained(here))) == ""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("mlship.yaml", True),
        ("pyproject.toml", True),
        ("work/load.jsonl", True),
        ("deep/conftest.py", True),
        ("checks/expected.json", True),
        ("checks.py", False),
        ("test_model.py", True),
        ("metrics.json", False),
    ],
)
def test_check_files(path: str, expected: bool) -> None:
    tests = TestsConfig(unit=("checks", "./test_model.py"))
    config = msgspec.structs.replace(CONFIG, tests=tests, workload="work/load.jsonl")
    assert check_files(config).has(path) == expected


def test_of_tests_in_the_projects_own_folder_the_code_decides() -> None:
    files = CheckFiles(suites=(".",))
    assert files.has("test_model.py")
    assert not files.has("metrics.json")
