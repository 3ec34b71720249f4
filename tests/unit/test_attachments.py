"""Files of the project in its reports: what is taken after a training, and what a reader sees."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt

from mlship.config.layers import from_yaml, resolve
from mlship.config.project import ReportConfig
from mlship.domain import digests, shapes
from mlship.domain.attachments import (
    PICTURE_MOST,
    PICTURES_MOST,
    Attachment,
    Attachments,
    fault_of_picture,
    size_of_picture,
)
from mlship.domain.evidence import Record
from mlship.domain.facts import Tested, Trained
from mlship.errors import ConfigError, IntegrityError, NotFoundError
from mlship.reports import attachments as attached
from mlship.reports import folder as folders
from mlship.reports.markdown import parts, render
from mlship.reports.publish import COMMENT_LIMIT, characters, fitted
from mlship.reports.report import Report, collect
from mlship.steps.attachments import take
from mlship.steps.pictures import of_folder, of_release, paths
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world
from tests.harness.pictures import jpeg, png
from tests.harness.runner_commands import obeyed
from tests.harness.samples import record, release

EVIL = "</table><script>x</script> | a | @everyone #1 [x](javascript:y) ![i](http://e/x.png) `$(x)`"
HTML = MarkdownIt("gfm-like", {"html": True, "linkify": False})


def reported(**trained: Any) -> Report:
    about = release()
    return collect(about, [record(about, "train", "passed", {"data": "train.csv", **trained})])


def taken(root: Path, *patterns: str) -> dict[str, Any]:
    """Return what was taken, as the facts of a training."""
    attached = take(root, patterns, root / ".mlship" / "attachments")
    return {"attachments": digests.plain(attached)}


def shown(root: Path, *patterns: str) -> str:
    pictures = {"attachments/plots/a.png": "https://github.com/ada/iris/blob/x/a.png?raw=true"}
    return render(reported(**taken(root, *patterns)), pictures=pictures)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project" / "plots").mkdir(parents=True)
    return tmp_path / "project"


def test_tables_texts_and_pictures_are_shown(root: Path) -> None:
    (root / "metrics.csv").write_text("metric,value\naccuracy,0.96667\nrows,120\n")
    (root / "notes.md").write_text("# Notes\n\n* trained `twice`\n")
    (root / "plots" / "a.png").write_bytes(png())
    text = shown(root, "metrics.csv", "*.md", "plots/*.png")
    assert "| metric | value |\n| --- | --- |\n| accuracy | 0.96667 |\n| rows | 120 |" in text
    assert "```text\n# Notes\n\n* trained `twice`\n```" in text
    assert "![plots/a.png](https://github.com/ada/iris/blob/x/a.png?raw=true)" in text
    assert "report.include" not in text
    assert sorted(
        path.relative_to(root / ".mlship" / "attachments").as_posix()
        for path in root.glob(".mlship/**/*.*")
    ) == ["metrics.csv", "notes.md", "plots/a.png"]


def test_a_picture_that_a_reader_cannot_open_is_named_with_the_run(root: Path) -> None:
    (root / "plots" / "b.png").write_bytes(png())
    found = parts(
        reported(**taken(root, "plots/*.png")), run="https://github.com/a/b/actions/runs/7"
    )
    [text] = [part.text for part in found if part.name == "files that are not shown"]
    assert "plots/b.png: among [the run's artifacts](https://github.com/a/b/actions/runs/7#" in text
    assert "![" not in text


def test_a_glob_that_names_nothing_is_said_and_is_no_error(root: Path) -> None:
    text = shown(root, "nothing/*.csv")
    assert "- nothing/\\*.csv: no file matches" in text


@pytest.mark.parametrize(
    "pattern", ["../secret.csv", "/etc/*.txt", "a/../../*.csv", "..", "plots/..", "a\\b.csv"]
)
def test_a_path_outside_of_the_project_is_refused_before_anything_runs(pattern: str) -> None:
    text = "name: iris\ndata: {train: a.csv, split: {}}\nmodel: {train: 'p:train'}\n"
    given = msgspec.json.encode([pattern]).decode()
    with pytest.raises(ConfigError, match=r"report\.include"):
        resolve([from_yaml(f"{text}report: {{include: {given}}}", "mlship.yaml")])
    for good in ("plots/*.png", "**/*.csv", "a..b.csv", ".reports/x.md"):
        settings = resolve([from_yaml(f"{text}report: {{include: ['{good}']}}", "mlship.yaml")])
        assert settings.config.report.include == (good,)


def test_a_pattern_that_got_by_finds_nothing_outside(root: Path) -> None:
    (root.parent / "secret.csv").write_text("secret\n")
    assert "secret" not in shown(root, "../*.csv", str(root.parent / "*.csv")).replace(
        "secret.csv: no file", ""
    )


def test_a_link_out_of_the_project_is_not_followed(root: Path) -> None:
    secret = root.parent / "secret.csv"
    secret.write_text("password,hunter2\n")
    (root / "metrics.csv").symlink_to(secret)
    (root / "elsewhere").symlink_to(root.parent)
    (root / "loop.csv").symlink_to(root / "loop.csv")
    (root / "ours.csv").write_text("a,b\n1,2\n")
    (root / "again.csv").symlink_to(root / "ours.csv")
    text = shown(root, "*.csv", "elsewhere/*.csv")
    assert "hunter2" not in text
    assert "metrics.csv: it is a link to a file outside of the project" in text
    assert "loop.csv: it cannot be read" in text
    assert text.count("| a | b |") == 2


def test_a_pipe_and_a_folder_are_no_files(root: Path) -> None:
    os.mkfifo(root / "metrics.csv")
    (root / "folder.csv").mkdir()
    text = shown(root, "*.csv")
    assert "metrics.csv: it cannot be read" in text
    assert "folder.csv" not in text


def test_what_belongs_to_git_and_mlship_is_not_taken(root: Path) -> None:
    for name in (".git", ".mlship"):
        (root / name).mkdir()
        (root / name / "config.txt").write_text("token")
    assert "token" not in shown(root, "**/*.txt", ".git/*.txt", ".mlship/*.txt")


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "model.pkl", "noend"])
def test_other_kinds_of_files_are_not_shown(root: Path, name: str) -> None:
    (root / name).write_text("<svg onload='x'/>")
    text = shown(root, "*")
    assert "svg onload" not in text
    assert f"- {name}: reports show .csv, .jpeg, .jpg, .json" in text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (png(), ""),
        (jpeg(), ""),
        (b"<svg onload='x'/>", "it is neither a PNG nor a JPEG"),
        (b"\x89PNG\r\n\x1a\n", "it is neither a PNG nor a JPEG"),
        (b"GIF89a", "it is neither a PNG nor a JPEG"),
        (b"\xff\xd8\xff\xe0\x00", "it is neither a PNG nor a JPEG"),
        (png()[:16] + b"\xff" * 8 + png()[24:], "it has 4294967295 x 4294967295 pixels"),
        (png()[:16] + bytes(8) + png()[24:], "it has 0 x 0 pixels"),
        (png() + bytes(PICTURE_MOST), "it is larger than 1 MB"),
    ],
)
def test_a_picture_is_one_by_its_contents(root: Path, content: bytes, fault: str) -> None:
    (root / "plots" / "a.png").write_bytes(content)
    assert fault_of_picture(content) == fault
    text = shown(root, "plots/a.png")
    assert ("![" in text) == (not fault)
    assert not fault or f"plots/a.png: {fault}" in text


def test_the_size_of_a_picture_is_in_its_header() -> None:
    assert size_of_picture(png(30, 20)) == (30, 20)
    assert size_of_picture(jpeg(30, 20)) == (30, 20)


def test_hostile_tables_and_texts_only_show_themselves(root: Path) -> None:
    (root / "a.csv").write_text(f'"{EVIL}",b\n"{EVIL}\n\n## heading\n\n::error::x",2,3,4\n')
    (root / "b.txt").write_text(f"{EVIL}\n```\n</details><script>x</script>\n`````\n\x1b[31mred")
    (root / "d.md").write_text("::error::evil\n##[set-output name=release]evil\n")
    (root / "c](x) @team.csv").write_text("a\n1\n")
    text = shown(root, "*")
    assert not obeyed(text)
    html = str(HTML.render(text))
    for tag in ("<script", "<img", 'javascript:y"', "<h2>heading", "\x1b"):
        assert tag not in html, tag
    assert html.count("<table>") == html.count("</table>")
    links = re.findall(r'<a href="([^"]*)"', html)
    assert links == []
    outside = re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
    plain = re.sub(r"<[^>]+>", "", outside)
    assert not re.search(r"(?:^|[^A-Za-z0-9_])@[A-Za-z0-9]", plain)
    assert not re.search(r"#\d", plain)
    assert html.count("<details>") == html.count("</details>")
    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
    cells = {len(re.findall(r"</t[hd]>", row)) for row in rows if ">3<" in row}
    assert cells == {4}


def test_huge_files_are_cut_and_it_is_said(root: Path) -> None:
    lines = [",".join(f"c{column}" for column in range(30))]
    lines += [",".join(str(row * column) for column in range(30)) for row in range(500)]
    (root / "wide.csv").write_text("\n".join(lines))
    (root / "long.txt").write_text("line\n" * 10_000)
    (root / "one.json").write_text("[" + "1," * 100_000 + "1]")
    (root / "words.csv").write_text("\n".join([",".join(["w" * 80] * 12)] * 18))
    (root / "giant.csv").write_text("x\n" * 600_000)
    (root / "field.csv").write_text('a,b\n1,2\n"' + "x" * 200_000 + '",2\n')
    facts = taken(root, "*")
    assert len(msgspec.json.encode(facts)) < 40_000
    text = render(reported(**facts))
    assert "wide.csv** (20 of 500 rows, 12 of 30 columns)" in text
    assert text.count("line\n") == 60
    assert text.count("\n| wwww") == 5
    assert "words.csv** (4 of 17 rows, 12 of 12 columns)" in text
    assert "long.txt (its first lines)" in text
    assert "giant.csv: it is larger than 1 MB" in text
    assert "| 1 | 2 |" in text
    assert characters(fitted(reported(**facts), COMMENT_LIMIT)) <= COMMENT_LIMIT


def test_so_many_files_that_a_report_shows_the_first_ten(root: Path) -> None:
    for number in range(15):
        (root / f"{number:02}.csv").write_text("a\n1\n")
    text = shown(root, "*.csv", "0*.csv")
    assert text.count("| a |") == 10
    assert "14.csv: a report shows 10 files" in text


def test_a_file_with_a_name_that_artifacts_refuse_is_kept_by_its_digest(root: Path) -> None:
    names = ['a"b:c.png', "new\nline.png", ".hidden.png", "é ü.png", "plots/fine-1.0.PNG"]
    for grey, name in enumerate(names):
        (root / name).write_bytes(png(grey=grey))
    into = root / ".mlship" / "attachments"
    attached = take(root, ["*.png", "plots/*"], into)
    assert {file.path for file in attached.files} == set(names)
    places = {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()}
    assert places == {file.place for file in attached.files}
    assert "plots/fine-1.0.PNG" in places
    assert all(re.fullmatch(r"[0-9a-f]{16}\.png|plots/fine-1\.0\.PNG", place) for place in places)


def test_bytes_that_are_no_text_are_shown_as_such(root: Path) -> None:
    (root / "a.csv").write_bytes(b"\xef\xbb\xbfname\n\xff\xfe\n")
    (root / "b.tsv").write_text("x\ty\n1\t2\n")
    (root / "empty.csv").write_bytes(b"")
    text = shown(root, "*")
    assert "| name |" in text
    assert "| x | y |" in text
    assert "**empty.csv**\n\nIt is empty." in text


def made(here: World) -> Trained:
    return shapes.of(train(here.pipeline), Trained)


def test_a_training_keeps_the_files_with_the_release(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, report=ReportConfig(include=("m.csv", "no.csv")))
    here = world(tmp_path, config)
    (here.pipeline.root / "m.csv").write_text("metric,value\naccuracy,0.9\n")
    facts = made(here)
    [file] = facts.attachments.files
    assert (file.path, file.rows, file.columns) == ("m.csv", 1, 2)
    assert facts.attachments.missing == ("no.csv: no file matches",)
    [files] = here.store.files.values()
    assert files["attachments/m.csv"] == b"metric,value\naccuracy,0.9\n"
    assert "report.include: no.csv: no file matches" in here.progress.notes
    assert made(here) == facts, "training again finds the release"


def test_parameters_and_data_are_told_in_words(tmp_path: Path) -> None:
    here = world(tmp_path, CONFIG)
    text = render(collect(train(here.pipeline).evidence.release, here.pipeline.read()))
    sentence = r"Trained without model\.params on train.csv \(30 rows, 1 columns; digest \w{12}\)\."
    assert re.search(f"^{sentence}$", text, re.MULTILINE)
    told = reported(
        data="data/train.csv",
        held_out="data/test.csv",
        rows=120,
        features=4,
        params={"C": 1.0, "model": {"depth": 3}, "note": EVIL},
    )
    text = render(msgspec.structs.replace(told, tested=Tested(samples=30)))
    assert "Trained with C=1.0, model.depth=3, note=&lt;/table>&lt;script>" in text
    assert "on data/train.csv (120 rows, 4 columns; digest" in text
    assert "30 rows held out in data/test.csv." in text
    assert "<script" not in str(HTML.render(text))
    many = reported(params={f"p{number}": number for number in range(40)})
    assert "p11=11 and 28 more on train.csv" in render(many)


def test_evidence_of_an_older_version_has_no_such_sentence() -> None:
    about = release()
    assert "Trained" not in render(collect(about, [record(about, "train", "passed", {})]))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A report that another job wrote."""
    (tmp_path / "project" / "plots").mkdir(parents=True)
    (tmp_path / "project" / "plots" / "a.png").write_bytes(png())
    report = reported(**taken(tmp_path / "project", "plots/*.png"))
    folders.write(report, {"attachments/plots/a.png": png()}, tmp_path / "report")
    return tmp_path / "report"


def test_a_report_is_the_same_in_the_job_that_reads_it(written: Path) -> None:
    report = folders.read(written)
    assert of_folder(written, report) == {"attachments/plots/a.png": png()}
    text = (written / "report.md").read_text()
    assert "![plots/a.png](attachments/plots/a.png)" in text
    assert text == render(report, pictures={"attachments/plots/a.png": "attachments/plots/a.png"})


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b'{"title": 1}', b"\xff\xfe", b" " * 5_000_000],
)
def test_what_is_no_report_is_refused(written: Path, content: bytes) -> None:
    (written / "report.json").write_bytes(content)
    with pytest.raises(IntegrityError):
        folders.read(written)
    (written / "report.json").unlink()
    with pytest.raises(NotFoundError):
        folders.read(written)


def test_a_report_cannot_speak_for_a_project_by_a_name_that_is_none(written: Path) -> None:
    values = msgspec.json.decode((written / "report.json").read_bytes())
    values["release"]["name"] = "iris --><img src=x><!-- mlship report of fraud "
    (written / "report.json").write_bytes(msgspec.json.encode(values))
    with pytest.raises(IntegrityError, match="without a valid name"):
        folders.read(written)


def test_a_report_reaches_no_file_outside_of_its_folder(written: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(grey=3))
    report = folders.read(written)

    def found(path: str) -> dict[str, bytes]:
        digest = digests.of_bytes(png(grey=3) if "secret" in path or "link" in path else png())
        file = Attachment(path=path, digest=digest, size=1)
        trained = Trained(attachments=Attachments(files=(file,)))
        return of_folder(written, msgspec.structs.replace(report, trained=trained))

    assert found("plots/a.png")
    for path in (
        "../../secret.png",
        str(secret),
        "../plots/a.png",
        "plots/../plots/a.png",
        "a\0.png",
    ):
        assert found(path) == {}, path
    (written / "attachments" / "link.png").symlink_to(secret)
    assert found("link.png") == {}
    (written / "attachments" / "plots" / "a.png").rename(written / "a.png")
    (written / "attachments" / "plots").rmdir()
    (written / "attachments" / "plots").symlink_to(tmp_path)
    assert found("plots/secret.png") == {}


def with_pictures(report: Report, folder: Path, contents: list[bytes]) -> Report:
    """Return a report with these pictures, which are written into its folder."""
    files = []
    for number, content in enumerate(contents):
        name = f"{number:02}.png"
        (folder / "attachments" / name).write_bytes(content)
        digest = digests.of_bytes(content)
        files.append(Attachment(path=name, digest=digest, size=len(content)))
    trained = Trained(attachments=Attachments(files=tuple(files)))
    return msgspec.structs.replace(report, trained=trained)


def test_pictures_are_few_and_not_large(written: Path) -> None:
    report = folders.read(written)
    assert len(of_folder(written, with_pictures(report, written, [png()] * 30))) == 10
    large = png() + bytes(PICTURE_MOST - 1_000)
    report = with_pictures(report, written, [*[large] * 5, *[png()] * 20])
    sizes = [len(content) for content in of_folder(written, report).values()]
    assert len(sizes) == 10
    assert sizes.count(len(large)) == 2
    assert sum(sizes) <= PICTURES_MOST
    report = with_pictures(report, written, [b"no picture", png()])
    assert set(of_folder(written, report)) == {"attachments/01.png"}


def test_a_picture_that_is_not_the_recorded_one_is_not_shown(written: Path) -> None:
    report = with_pictures(folders.read(written), written, [png()])
    assert of_folder(written, report)
    (written / "attachments" / "00.png").write_bytes(png(grey=9))
    assert of_folder(written, report) == {}


def test_pictures_of_this_machine_are_those_that_the_training_left(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, report=ReportConfig(include=("a.png",)))
    here = world(tmp_path, config)
    (here.pipeline.root / "a.png").write_bytes(png())
    made(here)
    (here.pipeline.root / "a.png").write_bytes(png(grey=1))
    records = here.pipeline.read()
    report = collect(records.releases[0], records)
    assert of_release(here.pipeline, report) == {"attachments/a.png": png()}
    [path] = paths(here.pipeline, report).values()
    assert Path(path).read_bytes() == png()


def test_another_machine_gets_the_pictures_from_the_store(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, report=ReportConfig(include=("p/a.png", "m.csv")))
    here = world(tmp_path, config)
    (here.pipeline.root / "p").mkdir()
    (here.pipeline.root / "p" / "a.png").write_bytes(png())
    (here.pipeline.root / "m.csv").write_text("a,b\n1,2\n")
    made(here)
    shutil.rmtree(here.pipeline.state)
    shutil.rmtree(here.pipeline.root / "p")
    records = here.pipeline.read()
    report = collect(records.releases[0], records)
    assert "| a | b |" in render(report)
    assert of_release(here.pipeline, report) == {"attachments/p/a.png": png()}
    [files] = here.store.files.values()
    files["attachments/p/a.png"] = png(grey=5)
    shutil.rmtree(here.pipeline.state)
    assert of_release(here.pipeline, report) == {}, "it is not the recorded one"
    del files["attachments/p/a.png"]
    shutil.rmtree(here.pipeline.state)
    assert of_release(here.pipeline, report) == {}
    assert "pictures are left out (attachments/p/a.png)" in here.progress.notes[-1]


def test_a_ragged_table_is_as_wide_as_its_widest_row() -> None:
    cells = (("n", "m"), ("1", "2", "3"))
    file = Attachment(
        path="a.csv",
        digest=digests.of_bytes(b""),
        size=1,
        cells=cells,
        rows=1,
        columns=9,
        is_cut=True,
    )
    assert "(1 of 1 rows, 3 of 9 columns)" in attached.shown(file, {})


def test_files_that_the_training_read_are_told_and_compared_with_the_champions() -> None:
    def trained(name: str, **read: str | None) -> Record:
        files = {path.replace("_", "."): digest for path, digest in read.items()}
        facts = {"data": "train.csv", "opened": {"read": files}}
        return record(release(name), "train", "passed", facts)

    one, two = digests.of_bytes(b"1"), digests.of_bytes(b"2")
    champion = trained("old", params_yaml=one, train_csv=one, same_json=one)
    crowned = record(release("old"), "deploy-production", "passed", {"role": "champion"})
    own = trained("new", params_yaml=two, train_csv=one, same_json=one, absent_yaml=None)
    text = render(collect(release("new"), [champion, own]))
    assert "The training read params.yaml, same.json." in text
    text = render(collect(release("new"), [champion, crowned, own]))
    assert "read params.yaml, not as the champion's did; and same.json." in text
    assert "not as" not in render(collect(release("old"), [champion, crowned, own]))
