"""What a comment shows of a report: the verdict whatever happens, a picture, nothing that acts."""

import re
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt

from mlship.domain.evidence import Step, Verdict
from mlship.domain.release import Release
from mlship.reports import formatting, matrix
from mlship.reports.markdown import render
from mlship.reports.publish import COMMENT_LIMIT, characters, fitted, octets
from mlship.reports.report import Report, collect
from tests.harness.samples import record, release

RUN = "https://github.com/ada/iris/actions/runs/7"
COMMIT = {
    "sha": "a" * 40,
    "branch": 'x";touch /tmp/pwn;#',
    "author": "ada@example.org",
    "subject": "Close #12 and GH-7, thanks @team and é@team <img src=x>",
    "dirty": False,
}
TESTED = {
    "task": "classification",
    "samples": 30,
    "metrics": {"accuracy": 0.9667},
    "champion": {"accuracy": 0.9},
    "differences": {"accuracy": {"estimate": 0.0667, "low": 0.01, "high": 0.12}},
    "confidence": 0.95,
    "labels": ["setosa", "virginica"],
    "confusion": [[15, 0], [1, 14]],
    "plots": ["confusion_matrix.png"],
    "tests": [{"suite": "unit", "passed": 5}],
}


def report(about: Release | None = None, **tested: Any) -> Report:
    about = about or release()
    steps: list[tuple[Step, Verdict, dict[str, Any]]] = [
        ("train", "passed", {"commit": COMMIT}),
        ("test", "passed", {**TESTED, **tested}),
        ("deploy-staging", "passed", {"endpoint": "http://10.201.0.40:8080"}),
    ]
    return collect(about, [record(about, step, verdict, facts) for step, verdict, facts in steps])


def test_the_verdict_comes_first_and_then_where_to_click() -> None:
    lines = fitted(report(), COMMENT_LIMIT, run=RUN).split("\n\n")
    assert lines[0].startswith("## ✅ iris@")
    assert lines[2] == f"[run]({RUN}) · [staging](<http://10.201.0.40:8080/docs>)"


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:4001", "http://[::1]:80", "http://localhost:1", "javascript:x"]
)
def test_an_address_that_no_reader_can_use_is_no_link(endpoint: str) -> None:
    about = release()
    found = collect(about, [record(about, "deploy-staging", "passed", {"endpoint": endpoint})])
    assert endpoint not in render(found)


def test_an_address_cannot_end_its_link() -> None:
    about = release()
    facts = {"endpoint": "https://a.example/>) <img src=x> [b](c"}
    text = render(collect(about, [record(about, "deploy-staging", "passed", facts)]))
    assert "<img" not in MarkdownIt("commonmark", {"html": True}).render(text)


@pytest.mark.parametrize("limit", [COMMENT_LIMIT, 3_000, 1_500, 900, 300])
def test_what_is_too_long_is_left_out_and_named_details_first(limit: int) -> None:
    failures = [f"test_{number} failed: " + "long " * 40 for number in range(400)]
    suites = [{"suite": "unit", "passed": 0, "failed": 400, "failures": failures}]
    text = fitted(report(tests=suites), limit, run=RUN)
    assert characters(text) <= limit
    assert text.startswith("## ✅ iris@")
    assert "Omitted for length:" in text
    assert RUN in text
    assert text.count("<details>") == text.count("</details>")
    if limit == 900:
        assert "accuracy" in text


def test_what_is_short_is_whole() -> None:
    assert "Omitted" not in fitted(report(), COMMENT_LIMIT, run=RUN)
    assert "<summary>Timeline" in fitted(report(), COMMENT_LIMIT, run=RUN)


def test_where_not_even_the_verdict_fits_nothing_is_left() -> None:
    assert fitted(report(), 10) == ""


def test_lengths_are_those_that_github_counts() -> None:
    assert (characters("é🟩"), octets("é🟩")) == (3, 6)


def test_text_of_users_names_nobody_and_no_issue() -> None:
    html = str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(render(report())))
    text = re.sub(r"<[^>]+>", "", html)
    # As GitHub looks for them in the HTML: https://github.com/gjtorikian/html-pipeline
    assert not re.search(r"(?:^|[^A-Za-z0-9_])@[A-Za-z0-9]", text)
    assert not re.search(r"(?:#|\bGH-)\d", text, flags=re.IGNORECASE)
    assert "<img" not in html
    assert 'x";touch /tmp/pwn;#' in text.replace("&quot;", '"')


def test_a_number_sign_alone_and_an_address_stay_readable() -> None:
    assert formatting.escaped("C# and ada@example.org") == r"C\# and ada@example.org"


def test_the_confusion_matrix_is_drawn_with_counts_and_shares() -> None:
    text = fitted(report(), COMMENT_LIMIT, run=RUN)
    assert "| **setosa** | 🟩 15 (100%) | ⬜ 0 |" in text
    assert "| **virginica** | 🟨 1 (7%) | 🟩 14 (93%) |" in text
    assert f"[The plots]({RUN}#artifacts)" in text
    assert "data:" not in text


def test_a_class_that_is_mostly_taken_for_another_is_hot() -> None:
    text = matrix.picture(["a", "b", "c"], [[1, 9, 0], [0, 0, 0], [3, 0, 7]])
    assert "| **a** | 🟥 1 (10%) | 🟥 9 (90%) | ⬜ 0 |" in text
    assert "| **b** | ⬜ 0 | ⬜ 0 | ⬜ 0 |" in text
    assert "| **c** | 🟧 3 (30%) | ⬜ 0 | 🟧 7 (70%) |" in text


def test_of_many_classes_the_pairs_that_are_confused_most_are_listed() -> None:
    size = 20
    counts = [[0] * size for _ in range(size)]
    counts[3][4], counts[5][6] = 7, 9
    text = matrix.picture(list(range(size)), counts)
    assert text.splitlines()[2:] == ["| 5 | 6 | 9 |", "| 3 | 4 | 7 |"]
    counts[3][4] = counts[5][6] = 0
    assert "None of 20 classes" in matrix.picture(list(range(size)), counts)


@pytest.mark.parametrize("counts", [[], [[1]], [[1, 2], [3]]])
def test_a_matrix_that_is_none_is_not_drawn(counts: list[list[int]]) -> None:
    assert matrix.picture(["a", "b"], counts) == ""


def test_a_label_cannot_add_a_column() -> None:
    text = matrix.picture(["a | b", "@team"], [[1, 0], [0, 1]])
    html = str(MarkdownIt("gfm-like", {"linkify": False}).render(text))
    assert html.count("</th>") == 3
    assert "@team" not in html


def test_a_report_without_steps_is_published_too() -> None:
    bare = collect(msgspec.structs.replace(release(), dirty=True), [])
    assert fitted(bare, COMMENT_LIMIT).startswith("## ❔")
