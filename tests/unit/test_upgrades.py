"""`mlship init --upgrade`: what is merged with what, and what stays as it is."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from mlship import files
from mlship.domain.commit import FileVersion, Merged, Merger, Repository
from mlship.errors import ConfigError
from mlship.templates import names, project
from mlship.templates.project import Plan, carry_out
from tests.unit.test_templates import INSTALLED, plan

WRITER = "`mlship init` from mlship.yaml"
PLACE = ".github/workflows"
DEVELOP = f"{PLACE}/develop.yml"
COPY = ".github/mlship/develop.yml"


def by_line(yours: str, base: str, theirs: str) -> Merged:
    """Merge texts of as many lines, each for itself."""
    texts = [text.splitlines(keepends=True) for text in (yours, base, theirs)]
    merged, conflicts = [], 0
    for mine, before, now in zip(*texts, strict=True):
        if mine != before and now not in (before, mine):
            conflicts += 1
            merged += ["<<<<<<< yours\n", mine, "=======\n", now, ">>>>>>> generated now\n"]
        else:
            merged.append(now if mine == before else mine)
    return Merged("".join(merged), conflicts)


def never(yours: str, base: str, theirs: str) -> Merged:
    raise AssertionError("there is nothing to merge")


def former(text: str) -> str:
    """Return a workflow as a former version wrote it."""
    body = (
        text.partition("\n")[2].replace("# v7.0.0", "# v6.0.0").replace("python: 3", "python:  3")
    )
    assert body != text.partition("\n")[2]
    return files.signed(body, WRITER)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository with a project in it, as it is generated now."""
    (tmp_path / ".git").mkdir()
    carry_out(plan(tmp_path))
    return tmp_path


def edit(text: str, minutes: int = 90) -> str:
    return re.sub(r"timeout-minutes: \d+", f"timeout-minutes: {minutes}", text, count=1)


def versions(*texts: str, path: str = DEVELOP) -> list[FileVersion]:
    return [FileVersion(path, text.encode()) for text in texts]


def upgrade(top: Path, known: Iterable[FileVersion] = (), merge: Merger = by_line) -> Plan:
    planned = plan(top, versions=list(known), merge=merge)
    carry_out(planned)
    return planned


def change_settings(top: Path, python: str) -> None:
    """Change what is generated, in a line that nobody edits."""
    settings = top / "mlship.yaml"
    text = re.sub(r"\nworkflows: .*\n", "\n", settings.read_text())
    settings.write_text(f'{text.rstrip()}\nworkflows: {{python: "{python}"}}\n')


def test_edits_are_merged_with_what_is_generated_now(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    before = former(now)
    (top / DEVELOP).write_text(edit(before))
    planned = upgrade(top, versions(edit(before), before))
    assert planned.names("merge") == [DEVELOP]
    assert (top / DEVELOP).read_text() == edit(now), "with the first line of what is generated now"
    assert (top / COPY).read_text() == now


def test_each_upgrade_has_the_one_before_as_its_base(top: Path) -> None:
    first = (top / DEVELOP).read_text()
    known = versions(former(first))
    (top / DEVELOP).write_text(edit(former(first)))
    upgrade(top, known)
    for python in ("3.12", "3.13", "3.11"):
        change_settings(top, python)
        planned = upgrade(top, known)
        assert planned.names("merge") == [DEVELOP]
        text = (top / DEVELOP).read_text()
        assert set(re.findall(r'python-version: "(.*)"', text)) == {python}
        assert "timeout-minutes: 90" in text
        assert text == edit((top / COPY).read_text())
    assert (top / DEVELOP).read_text() == edit(first)


def test_the_copy_is_found_in_history_too(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    before = former(now)
    (top / DEVELOP).write_text(edit(before))
    assert upgrade(top, versions(before, path=COPY)).names("merge") == [DEVELOP]
    assert (top / DEVELOP).read_text() == edit(now)


def test_a_text_from_the_wrong_generation_is_never_the_base(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    before = former(now)
    (top / DEVELOP).write_text(edit(before))
    older = files.signed("name: older\n", WRITER)
    changed = before.replace("name: develop", "name: changed")
    planned = upgrade(top, versions(older, changed), never)
    [kept] = [change for change in planned.changes if change.name == DEVELOP]
    assert kept.what == "keep"
    assert kept.reason == "no commit has it as it was generated, before the edits"
    assert (top / DEVELOP).read_text() == edit(before)
    [step] = [step for step in planned.next if DEVELOP in step]
    assert f"`mlship init --force {DEVELOP}`" in step
    assert f"`git checkout -p {DEVELOP}`" in step


def test_what_history_lacks_is_told(top: Path) -> None:
    (top / DEVELOP).write_text(edit(former((top / DEVELOP).read_text())))
    repository = Repository(top=top, gap="this clone is shallow")
    for given, reason in ((repository, "clone is shallow"), (None, "in no git repository")):
        planned = project.plan(top, None, installed=INSTALLED, repository=given, merge=never)
        assert any(reason in step for step in planned.next)
        assert planned.names("merge") == []


def test_conflicts_are_marked_and_no_file_with_marks_is_touched(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    before = former(now)
    mine = before.replace("# v6.0.0", "# my own")
    (top / DEVELOP).write_text(mine)
    planned = upgrade(top, versions(before))
    assert planned.conflicts == planned.names("conflict") == [DEVELOP]
    marked = (top / DEVELOP).read_text()
    assert "<<<<<<< yours\n" in marked
    assert (top / COPY).read_text() == now
    change_settings(top, "3.12")
    planned = upgrade(top, versions(before), never)
    assert planned.conflicts == planned.names("unmerged") == [DEVELOP]
    assert (top / DEVELOP).read_text() == marked
    assert (top / COPY).read_text() == now, "the base for when the marks are gone"
    assert f"{PLACE}/main.yml" in planned.names("update")
    text = re.sub(r"<<<.*\n(.*\n)===.*\n.*\n>>>.*\n", r"\1", marked)
    (top / DEVELOP).write_text(text)
    assert upgrade(top, versions(before)).names("merge") == [DEVELOP]
    assert "# my own" in (top / DEVELOP).read_text()
    assert 'python-version: "3.12"' in (top / DEVELOP).read_text()


def test_line_ends_of_windows_stay(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    before = former(now)
    (top / DEVELOP).write_bytes(edit(before).replace("\n", "\r\n").encode())
    (top / PLACE / "main.yml").write_bytes(
        (top / PLACE / "main.yml").read_bytes().replace(b"\n", b"\r\n")
    )
    assert f"{PLACE}/main.yml" in plan(top).names("keep")
    stored = before.replace("\n", "\r\n")
    assert upgrade(top, versions(stored)).names("merge") == [DEVELOP]
    assert (top / DEVELOP).read_bytes() == edit(now).replace("\n", "\r\n").encode()
    change_settings(top, "3.12")
    assert upgrade(top).names("merge") == [DEVELOP]
    assert (top / DEVELOP).read_bytes().count(b"\r\n") == now.count("\n")


def test_a_byte_order_mark_of_an_editor_is_never_moved(top: Path) -> None:
    mark, feature = b"\xef\xbb\xbf", top / PLACE / "feature.yml"
    now = (top / DEVELOP).read_text()
    before = former(now)
    (top / DEVELOP).write_bytes(mark + edit(before).encode())
    feature.write_bytes(mark + former(feature.read_text()).encode())
    planned = upgrade(top, versions(before))
    assert planned.names("merge") == [DEVELOP]
    assert (top / DEVELOP).read_bytes() == edit(now).encode()
    # With nothing but the mark, it counts as unedited, and as the project's own.
    assert planned.names("update") == [f"{PLACE}/feature.yml"]
    assert mark not in feature.read_bytes()
    feature.write_bytes(mark + feature.read_bytes())
    assert names.existing(top)["feature.yml"].is_ours
    assert f"{PLACE}/feature.yml" in upgrade(top, merge=never).names("keep")


def test_edits_of_what_is_generated_now_need_no_merge(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    (top / DEVELOP).write_text(edit(now))
    planned = plan(top)
    assert not any("was edited" in step for step in planned.next)
    upgrade(top, versions(now), never)
    assert not (top / COPY).exists(), "git has it"
    upgrade(top, merge=never)
    assert (top / COPY).read_text() == now, "nothing else has it"
    change_settings(top, "3.12")
    assert any("`mlship init --upgrade`" in step for step in plan(top).next)
    assert upgrade(top).names("merge") == [DEVELOP]


def test_a_workflow_without_its_first_line_is_based_on_the_newest_untouched_one(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    before = former(now)
    (top / DEVELOP).write_text(edit(before).partition("\n")[2])
    older = files.signed("name: older\n", WRITER)
    known = versions(edit(before).partition("\n")[2], before, older)
    assert upgrade(top, known).names("merge") == [DEVELOP]
    assert (top / DEVELOP).read_text() == edit(now), "with a first line, for the next time"


def test_what_git_ignores_is_merged_with_what_a_former_version_ignored(top: Path) -> None:
    ignore = top / ".gitignore"
    now = ignore.read_text()
    before = "".join(now.splitlines(keepends=True)[:3])
    ignore.write_text(before)
    assert plan(top).names("update") == [".gitignore"]
    ignore.write_text("*.tmp\n" + before)

    def append(yours: str, base: str, theirs: str) -> Merged:
        return Merged(yours + theirs.removeprefix(base), 0)

    known = versions(before, path=".gitignore")
    assert upgrade(top, known, append).names("merge") == [".gitignore"]
    assert ignore.read_text() == "*.tmp\n" + now
    assert (top / ".github/mlship/gitignore").read_text() == now
    planned = upgrade(top, known, never)
    assert {change.what for change in planned.changes} == {"keep"}


def test_requirements_that_name_the_stranger_are_merged_and_then_accepted(top: Path) -> None:
    path = top / "requirements.txt"
    before = "mlship[all]\nscikit-learn\npandas\n"
    path.write_text(f"{before}xgboost\n")
    now = plan(top.parent / "other").changes
    [data] = [change.data for change in now if change.name == "requirements.txt"]

    def merge(yours: str, base: str, theirs: str) -> Merged:
        assert (base, theirs) == (before, data.decode())
        return Merged(f"{theirs}xgboost\n", 0)

    known = versions(before, path="requirements.txt")
    with pytest.raises(ConfigError, match="unrelated package"):
        plan(top, versions=known)
    assert upgrade(top, known, merge).names("merge") == ["requirements.txt"]
    assert path.read_bytes() == data + b"xgboost\n"
    path.write_text("mlship[all]\nxgboost\n")
    with pytest.raises(ConfigError, match="unrelated package"):
        upgrade(top, merge=never)


def test_a_persons_own_files_stay(top: Path) -> None:
    for name in ("requirements.txt", ".gitignore", "README.md"):
        (top / name).write_text("mine\n")
    own = "name: main\non: push\njobs: {}\n"
    (top / PLACE / "ours.yml").write_text(own)
    planned = upgrade(top, merge=never)
    assert planned.names("merge") == []
    for name in ("requirements.txt", ".gitignore", "README.md"):
        assert (top / name).read_text() == "mine\n"
    assert (top / PLACE / "ours.yml").read_text() == own


def test_a_merge_that_would_install_the_stranger_is_refused(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    before = former(now)
    mine = re.sub(r"run: uv pip install .*", "run: pip install mlship[all]", before, count=1)
    (top / DEVELOP).write_text(mine)
    with pytest.raises(ConfigError, match="installs another program"):
        upgrade(top, versions(before))
    assert (top / DEVELOP).read_text() == mine


def test_an_upgrade_brings_no_file_back(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    for name in (DEVELOP, ".dockerignore", "README.md"):
        (top / name).unlink()
    planned = upgrade(top, versions(now), never)
    assert planned.names("skip") == [".dockerignore", DEVELOP, "README.md"]
    assert planned.names("write") == []
    assert not (top / DEVELOP).exists()
    assert not (top / ".dockerignore").exists()
    planned = project.plan(top, None, installed=INSTALLED, repository=None, merge=never)
    assert DEVELOP in planned.names("skip"), "nobody knows whether it was deleted"


def test_an_upgrade_writes_what_is_newly_needed(top: Path) -> None:
    (top / DEVELOP).unlink()
    assert upgrade(top, versions("name: other\n", path=f"{PLACE}/x.yml")).names("write") == [
        DEVELOP
    ]


def test_a_forced_file_gives_up_its_copy(top: Path) -> None:
    now = (top / DEVELOP).read_text()
    before = former(now)
    (top / DEVELOP).write_text(edit(before))
    upgrade(top, versions(before))
    assert (top / COPY).exists()
    planned = plan(top, None, [DEVELOP])
    carry_out(planned)
    assert planned.names("overwrite") == [DEVELOP]
    assert planned.names("remove") == [COPY]
    assert not (top / COPY).exists()
    assert {change.what for change in plan(top).changes} == {"keep"}


def test_a_former_name_is_given_up_with_the_merge(top: Path) -> None:
    folder = top / "models/churn"
    carry_out(plan(folder))
    place = top / PLACE / "churn-main.yml"
    now = place.read_text()
    old = top / PLACE / "main.yml"
    before = former(now)
    place.unlink()
    old.write_text(edit(before))
    planned = upgrade(folder, versions(before, path=f"{PLACE}/main.yml"))
    assert planned.names("merge") == [f"../../{PLACE}/churn-main.yml"]
    assert planned.names("remove") == [f"../../{PLACE}/main.yml"]
    assert place.read_text() == edit(now)
    assert (top / ".github/mlship/churn-main.yml").read_text() == now
    assert not old.exists()


def test_there_must_be_something_to_upgrade(tmp_path: Path, top: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to upgrade"):
        plan(tmp_path / "other", merge=never)
    with pytest.raises(ConfigError, match="exclude each other"):
        plan(top, "iris", merge=never)
