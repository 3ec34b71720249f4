"""Evidence rendered: what a reviewer reads, from a full ledger, an empty one and a hostile one."""

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from mlship.config.layers import from_yaml, resolve
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record, Saw, Step, Verdict, decode, encode
from mlship.domain.release import Release
from mlship.errors import IntegrityError
from mlship.reports import formatting, markdown, terminal
from mlship.reports.report import Report, as_json, collect
from mlship.training import heldout

Steps = list[tuple[Step, Verdict, dict[str, Any]]]

RELEASE = Release(
    name="iris",
    commit="a" * 40,
    dirty=False,
    data=digests.of_value("data"),
    params=digests.of_value("params"),
    code=digests.of_value("code"),
    environment=digests.of_value("environment"),
    bundle=digests.of_value("bundle"),
)
BEFORE = Release(
    name="iris",
    commit="b" * 40,
    dirty=False,
    data=RELEASE.data,
    params=digests.of_value("other"),
    code=RELEASE.code,
    environment=RELEASE.environment,
    bundle=digests.of_value("other"),
)
COMMIT = {
    "sha": "a" * 40,
    "branch": "develop",
    "author": "ada@example.org",
    "subject": "Look at the petals too",
    "dirty": False,
}
TRAIN = {"commit": COMMIT, "seconds": 3.21, "notes": ["kept as skops"], "format": "onnx"}
TEST = {
    "task": "classification",
    "samples": 30,
    "metrics": {"accuracy": 0.96666, "log_loss": float("nan")},
    "champion": {"accuracy": 0.83333, "log_loss": 0.42},
    "champion_release": str(BEFORE),
    "champion_error": "",
    "differences": {"accuracy": {"estimate": 0.13333, "low": 0.0333, "high": 0.2667}},
    "method": "paired bootstrap, 2,000 resamples",
    "confidence": 0.95,
    "labels": ["setosa", "virginica"],
    "confusion": [[15, 0], [1, 14]],
    "plots": ["confusion matrix.png"],
    "tests": [{"suite": "unit", "passed": 5, "failed": 0, "skipped": 1, "seconds": 1.4}],
    "reasons": ["ok: accuracy 0.967 is at least 0.7"],
    "seconds": 4.2,
}
SLICE = {
    "column": "region",
    "value": "north",
    "samples": 120,
    "release": 0.71,
    "champion": 0.9,
    "difference": {"estimate": -0.19, "low": -0.31, "high": -0.06},
    "is_worse": True,
}
SLICES = {
    "metric": "accuracy",
    "judged": 12,
    "small": 3,
    "left_out": 2,
    "worse": 1,
    "confidence": 0.95,
    "method": "exact, corrected",
    "listed": [
        SLICE,
        SLICE
        | {
            "value": "south",
            "difference": {"estimate": 0.04, "low": -0.1, "high": 0.18},
            "is_worse": False,
        },
    ],
}
SHIFT = {
    "column": "species",
    "psi": 0.416,
    "chance": 0.05,
    "is_told": True,
    "group": "virginica",
    "before": 0.3,
    "after": 0.45,
    "missing_before": 0.0,
    "missing_after": 0.02,
}
SHIFTS = {
    "rows_before": 100,
    "rows_after": 120,
    "added": ["stem"],
    "removed": ["leaf"],
    "retyped": [{"column": "petal", "before": "integer", "after": "number"}],
    "compared": 4,
    "told": 1,
    "listed": [SHIFT, SHIFT | {"column": "petal", "psi": 0.02, "is_told": False}],
    "left_out": 1,
}
COMPARED = TEST | {"slices": SLICES, "shifts": SHIFTS}
VERIFY = {
    "requests": 31,
    "errors": 0,
    "mismatches": 1,
    "p50_ms": 2.113,
    "p99_ms": 9.8,
    "differences": ['virginica 10: species is "setosa", expected "virginica" (the workload)'],
    "tests": [{"suite": "sanity", "passed": 6, "failed": 0, "skipped": 0, "seconds": 0.3}],
    "reasons": ["NOT OK: mismatches is 1"],
}
DEPLOY = {
    "role": "challenger",
    "weight": 20,
    "shadow": False,
    "endpoint": "http://127.0.0.1:4001",
    "champion": str(BEFORE),
}
EVALUATE = {
    "champion": str(BEFORE),
    "metric": "accuracy",
    "method": "confidence sequences",
    "confidence": 0.95,
    "champion_mean": 0.8,
    "challenger_mean": 0.97,
    "champion_n": 800,
    "challenger_n": 90,
    "estimate": 0.17,
    "low": -0.01,
    "high": 0.29,
    "reason": "too few outcomes",
}
NONE = {"challenger_n": 0, "challenger_mean": "nan"}


def records(steps: Steps, release: Release = RELEASE) -> list[Record]:
    start = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    return [
        decode(
            encode(
                Evidence(
                    release=release,
                    step=step,
                    verdict=verdict,
                    facts=facts,
                    actor="ci@example.org",
                    time=start + timedelta(seconds=20 * number),
                )
            )
        )
        for number, (step, verdict, facts) in enumerate(steps)
    ]


def report(*steps: tuple[Step, Verdict, dict[str, Any]]) -> Report:
    return collect(RELEASE, records(list(steps)))


def html(text: str) -> str:
    return str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text))


def in_terminal(found: Report, width: int = 100) -> str:
    stream = io.StringIO()
    terminal.show(found, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


FULL: Steps = [
    ("train", "passed", TRAIN),
    ("test", "passed", TEST),
    ("verify-staging-workload", "failed", VERIFY),
    ("deploy-production", "passed", DEPLOY),
    ("evaluate", "undecided", EVALUATE),
    ("approve", "passed", {"by": "grace@example.org", "comment": "fine"}),
    ("promote/gate", "passed", {"operation": "x", "reasons": ["ok: 1 of 1 approvals"]}),
    ("promote/route", "passed", {"operation": "x", "weights": {"r1": 100}, "shadow": None}),
    ("promote", "passed", {"operation": "x", "from": str(BEFORE), "to": str(RELEASE)}),
]


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([], "undecided"),
        ([("train", "passed", TRAIN)], "undecided"),
        ([("test", "passed", TEST)], "passed"),
        ([("test", "failed", TEST)], "failed"),
        ([("test", "failed", TEST), ("test", "passed", TEST)], "passed"),
        ([("test", "passed", TEST), ("evaluate", "undecided", EVALUATE)], "undecided"),
        ([("test", "failed", TEST), ("evaluate", "undecided", EVALUATE)], "failed"),
    ],
)
def test_the_last_word_of_every_step_makes_the_verdict(steps: Steps, verdict: Verdict) -> None:
    found = report(*steps)
    assert found.verdict == verdict
    assert markdown.render(found).splitlines()[0].endswith(f": {verdict}")
    assert in_terminal(found).startswith(f"{formatting.SYMBOLS[verdict]} {verdict} {RELEASE}")


def test_what_another_release_did_is_not_told_of_this_one() -> None:
    others = records([("test", "failed", TEST)], BEFORE)
    assert collect(RELEASE, others) == collect(RELEASE, [])


def test_a_release_that_nothing_ran_for_still_has_its_identity() -> None:
    found = report()
    for text in (markdown.render(found), in_terminal(found)):
        assert RELEASE.commit in text
        assert "it has not been tested yet" in text
        assert "None" not in text


def test_each_step_may_be_the_only_one() -> None:
    for step in FULL:
        found = report(step)
        assert step[0] in html(markdown.render(found))
        assert step[0] in in_terminal(found)


def test_metrics_of_single_targets_are_folded() -> None:
    metrics = {"mae": 2.0, "mae[heat]": 1.0, "mae[rain]": 3.0}
    found = report(("test", "passed", {**TEST, "metrics": metrics, "champion": {}}))
    text = markdown.render(found)
    whole, _, parts = text.partition("Metrics of each part (2)")
    assert "| mae | 2 |" in whole
    assert "heat" not in whole
    assert "| mae\\[heat\\] | 1 |" in parts


def test_a_metric_stands_beside_the_champions_with_difference_and_interval() -> None:
    text = markdown.render(report(*FULL))
    assert "| metric | release | champion | difference | 95% interval |" in text
    assert "| accuracy | 0.9667 | 0.8333 | +0.1333 | +0.0333 to +0.2667 |" in text
    assert r"| log\_loss | nan | 0.42 | - | unknown |" in text
    assert f"compared with champion {BEFORE}" in text


def test_without_a_champion_there_are_no_empty_columns() -> None:
    alone = {**TEST, "champion": {}, "champion_release": None, "differences": {}}
    text = markdown.render(report(("test", "passed", alone)))
    assert "| metric | release |\n" in text
    assert "champion" not in text


def test_a_champion_that_could_not_be_scored_is_said() -> None:
    broken = {**TEST, "champion": {}, "champion_error": "it wants a column that is gone"}
    found = report(("test", "passed", broken))
    assert "it wants a column that is gone" in markdown.render(found)
    assert "it wants a column that is gone" in in_terminal(found)


def test_a_slice_that_got_worse_is_seen_at_once_and_the_others_are_folded() -> None:
    found = report(("test", "passed", COMPARED))
    text = markdown.render(found)
    seen, folded = text.split("<details><summary>Slices (12)")
    told = "1 of 12 slices is worse than the champion, by accuracy; 3 more are too small to judge."
    assert told in seen
    row = "| region | north | 120 | 0.71 | 0.9 | -0.19 | -0.31 to -0.06 |"
    assert row in seen
    assert "south" not in seen
    assert "south" in folded
    assert "Not listed: 10 more. Not evaluated: 2 columns or values." in folded
    shown = in_terminal(found, 120)
    assert told in shown
    assert re.search(r"region +north +120 +0\.71 +0\.9 +-0\.19 +-0\.31 to -0\.06", shown)


def test_what_changed_in_the_data_is_listed_and_the_columns_are_folded() -> None:
    found = report(("test", "passed", COMPARED))
    text = markdown.render(found)
    seen, folded = text.split("<details><summary>Columns of the training data (4)")
    changes = [
        "120 rows; the champion has 100 (+20.0%)",
        "added columns: stem",
        "removed columns: leaf",
        "petal is number, was integer",
        "species shifted strongly (PSI 0.42): virginica changed from 30.0% to 45.0% of the rows",
    ]
    for line in changes:
        assert f"\n- {line}" in seen
        assert line in in_terminal(found, 120)
    assert "| petal | 0.02 | 0.05 | virginica | 30.0% | 45.0% | 0.0% to 2.0% |" in folded
    assert "Not listed: 2 more. Not compared: 1." in folded


@pytest.mark.parametrize(
    ("compared", "told"),
    [
        (
            {"slices": SLICES | {"worse": 0, "listed": []}},
            "None of 12 slices is worse than the champion, by",
        ),
        ({"slices": {"metric": "mae", "small": 4}}, "None of 4 slices is large enough to judge."),
        ({"shifts": SHIFTS | {"same": True}}, "Identical to the champion's training data."),
        ({"shifts": {"unknown": "it has no profile"}}, "Unknown: it has no profile."),
        (
            {"shifts": {"rows_before": 9, "rows_after": 9, "compared": 3}},
            "none of 3 compared columns shifted",
        ),
    ],
)
def test_where_nothing_is_worse_one_line_says_so(compared: dict[str, Any], told: str) -> None:
    found = report(("test", "passed", TEST | compared))
    assert told in markdown.render(found)
    assert told in in_terminal(found)
    assert "<summary>Slices" not in markdown.render(found)
    assert "<summary>Columns" not in markdown.render(found)


def test_several_worse_slices_are_a_plural() -> None:
    found = report(("test", "passed", TEST | {"slices": SLICES | {"worse": 2}}))
    assert "2 of 12 slices are worse than the champion" in markdown.render(found)


def test_a_first_release_has_no_slices_and_no_changes() -> None:
    text = markdown.render(report(("test", "passed", TEST | {"slices": None, "shifts": None})))
    assert "Slices" not in text
    assert "Training data" not in text


def test_many_slices_and_changes_are_cut() -> None:
    many = [f"column {place}" for place in range(3_000)]
    facts = TEST | {
        "slices": SLICES | {"worse": 50, "listed": [SLICE] * 50},
        "shifts": SHIFTS | {"added": many, "listed": [SHIFT] * 20},
    }
    text = markdown.render(report(("test", "passed", facts)))
    seen = text.partition("<details><summary>Slices")[0]
    assert seen.count("| region |") == 10
    assert "column 9 and 2990 more" in seen
    assert "and 14 more" in seen
    assert len(text) < 16_000


def test_people_read_reasons_workload_outcomes_and_approvals_everywhere() -> None:
    found = report(*FULL)
    for text in (html(markdown.render(found)), in_terminal(found)):
        for part in (
            "NOT OK: mismatches is 1",
            "too few outcomes",
            "ok: 1 of 1 approvals",
            "virginica 10: species is ",
            "sanity on staging",
            "-0.01 to +0.29",
            "grace@example.org",
            "champion in production",
            "Look at the petals too",
            "kept as skops",
        ):
            assert part in text


def test_counts_of_outcomes_have_all_digits_and_nothing_is_shown_of_none() -> None:
    found = report(("evaluate", "passed", EVALUATE | {"champion_n": 123456}))
    for text in (markdown.render(found), in_terminal(found)):
        assert "123456" in text
    sides: dict[str, Any] = {"champion_n": 0, "champion_mean": "nan"}
    unknown = {"estimate": "nan", "low": "nan", "high": "nan"}
    one_side = report(("evaluate", "undecided", EVALUATE | sides | unknown))
    none = report(("evaluate", "undecided", EVALUATE | sides | unknown | NONE))
    for text in (markdown.render(one_side), in_terminal(one_side)):
        assert "On outcomes" in text
        assert not re.search(r"\bnan\b", text)
    for text in (markdown.render(none), in_terminal(none)):
        assert "On outcomes" not in text
        assert "too few outcomes" in text


def test_a_warning_is_read_to_its_end_in_each_format() -> None:
    settings = "name: a\ndata: {train: data/of_the_second_quarter/all.csv, split: {}, target: y}\n"
    settings += "model: {command: python src/of_the_second_quarter/train.py, saved: m.joblib}"
    config = resolve([from_yaml(settings, "mlship.yaml")]).config
    text = heldout.exposed(config, has_read_all=True, has_read_rows=False)
    assert len(text) > 200
    checks = [{"name": "held out", "holds": True, "text": text, "warns": True}]
    found = report(("test", "passed", TEST | {"reasons": [], "checks": checks}))
    told = " ".join(in_terminal(found, 1_000).split())
    assert told.count(f"WARNING: {text}") == 2
    assert html(markdown.render(found)).count(text) == 2


def test_long_text_is_cut_between_words() -> None:
    assert formatting.short("one two three", 10) == "one two…"
    assert formatting.short("one twothreefour", 10) == "one twoth…"
    assert formatting.short("a" * 30, 10) == "a" * 9 + "…"


def test_a_narrow_window_wraps_and_cuts_nothing_off() -> None:
    text = in_terminal(report(*FULL), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert "…" not in text


def test_the_timeline_has_every_record_in_order_with_the_duration_that_is_known() -> None:
    timeline = report(*FULL).timeline
    assert [moment.step for moment in timeline] == [step for step, _, _ in FULL]
    assert [moment.seconds for moment in timeline][:3] == [3.21, 4.2, None]


def test_pictures_are_shown_where_they_can_be_opened() -> None:
    found = report(*FULL)
    name = "plots/confusion matrix.png"
    shown = markdown.render(found, pictures={name: name})
    assert "![confusion matrix.png](plots/confusion%20matrix.png)" in shown
    assert "![" not in markdown.render(found)
    assert "<th>true \\ predicted</th>" in html(markdown.render(found))


def test_json_carries_all_of_it_with_non_finite_numbers_as_text() -> None:
    found = json.loads(as_json(report(*FULL)))
    assert found["verdict"] == "failed"
    assert found["metrics"][1] == {
        "name": "log_loss",
        "release": "nan",
        "champion": 0.42,
        "difference": None,
        "low": None,
        "high": None,
    }
    assert found["release"]["bundle"] == RELEASE.bundle


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</details></td><h1>passed</h1>",
    "&lt;b&gt; &#60;b>",
    "**passed** `code` _it_ ~~gone~~",
    "[here](javascript:alert(1))",
    "![](https://example.org/pixel.png)",
    "a | b | ✅ passed |",
    "line one\n# A heading\n\n- a list",
    "a \\",
    "\\`<b>\\`",
    "1. one",
    "> quoted",
    "--- \n",
    "\x1b[2J\x1b[31mred\x07",
    "\u202egnp.exe",
    "[bold red]markup[/]",
    "x" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_users_shows_and_does_nothing_else(text: str) -> None:
    def facts(text: str) -> Steps:
        return [
            (
                "train",
                "passed",
                TRAIN
                | {
                    "commit": COMMIT | {"subject": text, "branch": text, "author": text},
                    "notes": [text],
                    "format": text,
                },
            ),
            (
                "test",
                "passed",
                TEST
                | {
                    "metrics": {text: 1.0},
                    "champion_error": text,
                    "champion_release": text,
                    "method": text,
                    "labels": [text, "b"],
                    "plots": [text],
                    "tests": [{"suite": text, "failed": 1, "failures": [text]}],
                    "reasons": [text],
                    "slices": SLICES
                    | {"method": text, "listed": [SLICE | {"column": text, "value": text}]},
                    "shifts": SHIFTS
                    | {
                        "added": [text],
                        "removed": [text],
                        "retyped": [{"column": text, "before": "text", "after": "number"}],
                        "listed": [SHIFT | {"column": text, "group": text}],
                    },
                },
            ),
            ("verify-staging-workload", "passed", VERIFY | {"differences": [text]}),
            ("evaluate", "passed", EVALUATE | {"champion": text, "metric": text, "method": text}),
            ("approve", "passed", {"by": text, "comment": text}),
        ]

    hostile = report(*facts(text))
    harmless = report(*facts("harmless"))
    rendered = markdown.render(hostile, pictures={f"plots/{text}": f"plots/{text}"})
    # The same tags in the same order, whatever stands between them: nothing got through.
    assert tags(html(rendered)) == tags(
        html(markdown.render(harmless, pictures={"plots/harmless": "plots/x.png"}))
    )
    assert len(rendered) < 20_000
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", in_terminal(hostile) + rendered)


def tags(page: str) -> list[str]:
    return re.findall(r"<(/?\w+)", page)


def test_user_text_that_is_plain_reads_as_it_was_written() -> None:
    assert formatting.escaped("Fix the 3rd bug (again): 0.95 -> 1.0") == (
        "Fix the 3rd bug (again): 0.95 -> 1.0"
    )
    assert "A &amp; B &lt; C" in formatting.escaped("A & B < C")


def test_nobody_is_notified_by_a_commits_subject() -> None:
    assert "@everyone" not in formatting.escaped("thanks @everyone")
    assert formatting.escaped("iris@3f9a0c12be77") == "iris@3f9a0c12be77"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (3, "3"),
        ("nan", "nan"),
        ("inf", "inf"),
        (None, "-"),
        ("<b>", "-"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_four_digits_and_text_is_none(value: float | str | None, text: str) -> None:
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.417, "0.42 s"), (12.34, "12.3 s"), (200, "3 min 20 s"), (None, "-")]
)
def test_durations_read_well(value: float | None, text: str) -> None:
    assert formatting.seconds(value) == text


def test_facts_that_another_version_wrote_are_named() -> None:
    with pytest.raises(IntegrityError, match=r"\(test, mlship .*metrics"):
        report(("test", "passed", {"metrics": [1, 2]}))


ONE, OTHER = digests.of_value("one image"), digests.of_value("another image")
CONTAIN = {
    "ready_seconds": 1.234,
    "size": 239_400_000,
    "max_mb": 500,
    "memory": "512m",
    "requests": 12,
    "errors": 0,
    "mismatches": 1,
    "p99_ms": 4.25,
    "differences": ['row 3: species is "setosa", expected "virginica" (offline)'],
    "tests": [{"suite": "sanity", "passed": 6, "failed": 0, "skipped": 0, "seconds": 0.3}],
    "reasons": ["ok: ready after 1.23 s, allowed up to 60", "NOT OK: 1 answered otherwise"],
    "seconds": 9.9,
}


def contained(digest: Digest, verdict: Verdict = "failed", **changes: Any) -> Record:
    made = records([("test-container", verdict, CONTAIN | changes)])[0].evidence
    return decode(encode(msgspec.structs.replace(made, saw=Saw(image=digest))))


def imaged(digest: Digest, step: Step = "containerize") -> list[Record]:
    return records([("test", "passed", TEST), (step, "passed", {"digest": digest})])


def test_what_an_image_showed_in_a_container_is_told_everywhere() -> None:
    found = collect(RELEASE, [*imaged(ONE), contained(ONE)])
    assert found.verdict == "failed"
    for text in (html(markdown.render(found)), in_terminal(found)):
        for part in (
            "Container test",
            f"image {digests.short(ONE)}",
            *("1.23 s", "239 of 500 MB", "512m", "4.25"),
            "ok: ready after 1.23 s, allowed up to 60",
            "NOT OK: 1 answered otherwise",
            "row 3: species is",
            "sanity in a container",
        ):
            assert part in text
    told = json.loads(as_json(found))["image"]
    assert told["digest"] == ONE
    assert told["tested"]["ready_seconds"] == 1.234
    assert told["tested"]["memory"] == "512m"


@pytest.mark.parametrize("of_container", [[], [contained(ONE)]])
def test_what_is_attached_to_an_image_is_told_everywhere(of_container: list[Record]) -> None:
    attached = {"sbom": OTHER, "provenance": OTHER}
    pushed = records([("push-to-registry", "passed", {"digest": ONE, "attached": attached})])
    found = collect(RELEASE, [*imaged(ONE), *of_container, *pushed])
    for text in (html(markdown.render(found)), in_terminal(found)):
        assert "Attached to the image: provenance, sbom" in text


@pytest.mark.parametrize("step", ["containerize", "push-to-registry"])
def test_an_image_that_never_ran_is_told_and_the_test_of_another_is_not_its_own(step: Step) -> None:
    for before in ([], [contained(OTHER)]):
        found = collect(RELEASE, [*before, *imaged(ONE, step)])
        assert found.verdict == "passed"
        assert found.image is not None
        assert found.image.tested is None
        for text in (html(markdown.render(found)), in_terminal(found)):
            assert f"image {digests.short(ONE)}: not tested in a container" in text
            assert "NOT OK" not in text


def test_the_last_test_of_the_very_image_counts() -> None:
    tests = [contained(ONE), contained(ONE, "passed", reasons=["ok: all"]), contained(OTHER)]
    found = collect(RELEASE, [*imaged(ONE), *tests])
    assert found.verdict == "passed"
    assert [gate.reasons for gate in found.gates if gate.name == "test-container"] == [("ok: all",)]


def test_a_release_without_an_image_has_no_part_of_one() -> None:
    for text in (markdown.render(report(*FULL)), in_terminal(report(*FULL))):
        assert "container" not in text


def test_why_production_let_a_release_in_is_told() -> None:
    reason = "ok: test-container: not required (gates.container is false)"
    found = report(("deploy-production", "passed", DEPLOY | {"reasons": [reason]}))
    assert reason in html(markdown.render(found))
    assert "gates.container is false" in in_terminal(found)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_a_containers_facts_shows_and_does_nothing_else(text: str) -> None:
    def rendered(text: str) -> tuple[str, str]:
        test = contained(ONE, memory=text, differences=[text], reasons=[text])
        found = collect(RELEASE, [*imaged(ONE), test])
        return markdown.render(found), in_terminal(found)

    shown, harmless = rendered(text), rendered("harmless")
    assert tags(html(shown[0])) == tags(html(harmless[0]))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", "".join(shown))


def test_the_container_fits_into_a_narrow_window() -> None:
    text = in_terminal(collect(RELEASE, [*imaged(ONE), contained(ONE)]), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert "…" not in text
