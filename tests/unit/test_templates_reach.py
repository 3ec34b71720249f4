"""What the code of a branch can reach is what the guide's table says, in every kind of project."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.config.backends import LedgerConfig
from mlship.config.trust import SignerConfig, TrustConfig
from mlship.domain import sessions
from mlship.domain.storage import storage
from mlship.templates import workflows
from tests.harness.workflows import PROJECTS, SOURCE, committed, config, parsed, rendered

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "pull-requests.md"
OWN = re.compile(r"secrets\.(own_\w+)")
"""Secrets that a step of the user names in the projects of these tests."""

RECORDS = re.compile(
    r"mlship (?:train|test|deploy-|verify-|push-|evaluate|promote|rollback|retire|open-release)"
)
"""Commands that add to the ledger."""

CODE = re.compile(
    r"-r \S*requirements\.txt|mlship (?:train|test|run|verify\S*|serve)\b|^ *make \w", re.MULTILINE
)


class Row(msgspec.Struct, frozen=True):
    """What a job holds."""

    runs_code: bool
    permissions: frozenset[str]
    secrets: frozenset[str]
    environment: str


def table() -> dict[str, Row]:
    """Return the rows of the guide's table by the name of the job."""
    rows = {}
    for line in GUIDE.read_text("utf-8").splitlines():
        if match := re.fullmatch(r"\| `(\w+)` \| (yes|no) \| (.*) \| (.*) \| (.*) \|", line):
            job, code, *cells = match.groups()
            rights, secrets, place = (frozenset(re.findall(r"`(.*?)`", cell)) for cell in cells)
            rows[job] = Row(code == "yes", rights, secrets, "".join(place))
    return rows


def reviewed(texts: dict[str, str]) -> list[dict[str, Any]]:
    """Return the jobs of each workflow that runs for a pull request, by their names."""
    found = [
        parsed(text)["jobs"]
        for name, text in texts.items()
        if re.search(r"(?:^|[/-])(?:feature|release)\.yml$", name)
    ]
    assert found
    return found


def held(job: dict[str, Any]) -> Row:
    """Return what a job of a workflow holds."""
    text = str(job)
    scripts = "\n".join(step.get("run", "") for step in job["steps"])
    # A pin of mlship is in a file with hashes, of the base.
    scripts = re.sub(r"--require-hashes -r \S+", "", scripts)
    return Row(
        bool(CODE.search(scripts)),
        frozenset(f"{right}: {level}" for right, level in job["permissions"].items()),
        frozenset(re.findall(r"secrets\.(\w+)", text)),
        job.get("environment", ""),
    )


@pytest.mark.parametrize("folder", ["", "models/iris"])
@pytest.mark.parametrize("project", PROJECTS)
def test_no_job_of_a_pull_request_holds_more_than_the_guide_says(project: str, folder: str) -> None:
    rows = table()
    for jobs in reviewed(rendered(project, folder)):
        for name, job in jobs.items():
            row, own = held(job), frozenset(OWN.findall(str(job)))
            assert row.runs_code is rows[name].runs_code, name
            assert row.permissions <= rows[name].permissions, name
            assert row.secrets - own <= rows[name].secrets, name
            place = "review" if own else rows[name].environment
            assert row.environment == place, name


def test_the_guide_names_nothing_that_no_job_holds() -> None:
    rows = table()
    seen: dict[str, tuple[set[str], set[str]]] = {name: (set(), set()) for name in rows}
    for project in PROJECTS:
        for jobs in reviewed(rendered(project)):
            for name, job in jobs.items():
                seen[name][0].update(held(job).permissions)
                seen[name][1].update(held(job).secrets - set(OWN.findall(str(job))))
    # Of the storages of DVC, the projects of these tests have some.
    others = {*storage("azure://c/x", {}).secrets, *storage("gs://b/x", {}).secrets}
    assert seen["data"][1] | others == rows["data"].secrets
    del seen["data"], rows["data"]
    assert seen == {name: (set(row.permissions), set(row.secrets)) for name, row in rows.items()}
    assert [name for name, row in rows.items() if row.runs_code] == ["report"]


def test_this_repositorys_own_jobs_are_in_the_table_too() -> None:
    own = {name: text for name, text in committed().items() if "iris_example" in name}
    for jobs in reviewed(own):
        assert set(jobs) <= set(table())
        assert held(jobs["report"]).secrets == frozenset()


SIGN = {
    *("develop.yml", "main.yml", "evaluate.yml", "promote.yml", "rollback.yml", "retire.yml"),
}
"""The workflows whose jobs run reviewed code, or none of the project's."""


def shared(**settings: Any) -> dict[str, str]:
    """Return the workflows of a project whose jobs share a ledger."""
    given = config("one machine")
    own = msgspec.structs.replace(given.workflows, **settings)
    ledger = LedgerConfig(kind="mlflow", uri="https://mlflow.example.org")
    return workflows.render(
        msgspec.structs.replace(given, workflows=own, ledger=ledger), SOURCE, "", ""
    )


def test_only_jobs_of_reviewed_code_get_the_key_of_a_signer() -> None:
    given = config("one machine")
    ledger = LedgerConfig(kind="mlflow", uri="https://mlflow.example.org")
    trust = TrustConfig(signers={"ci": SignerConfig(key=f"ed25519:{'A' * 43}=")})
    changed = msgspec.structs.replace(given, ledger=ledger, trust=trust)
    texts = workflows.render(changed, SOURCE, "", "")
    with_key = {name for name, text in texts.items() if "secrets.MLSHIP_SIGNING_KEY" in text}
    assert not any("MLSHIP_SIGNING_KEY" in text for text in shared().values())
    for jobs in reviewed(texts):
        assert "MLSHIP_SIGNING_KEY" not in str(jobs)
    assert with_key == {name for name in texts if name.split("/")[-1] in SIGN}


def _signing() -> dict[str, str]:
    """Return the workflows of a project whose jobs sign with keys of their own."""
    return rendered("jobs that sign with keys of their own")


def test_only_jobs_of_reviewed_code_have_an_identity_that_signs() -> None:
    texts = _signing()
    for jobs in reviewed(texts):
        for name, job in jobs.items():
            assert not {"id-token", "attestations"} & set(job["permissions"]), name
            assert "keys session" not in str(job), name
    signing = {name for name, text in texts.items() if "actions/attest@" in text}
    assert {name.split("/")[-1] for name in signing} == SIGN
    assert not any("MLSHIP_SIGNING_KEY" in text for text in texts.values())
    assert not any("attest" in text for text in shared().values())


def test_a_job_makes_its_key_before_it_records_anything() -> None:
    found = 0
    for text in _signing().values():
        for name, job in parsed(text)["jobs"].items():
            steps = [str(step.get("run", step.get("uses", ""))) for step in job["steps"]]
            records = [place for place, step in enumerate(steps) if RECORDS.search(step)]
            if not records or job.get("environment") in (None, "review"):
                continue
            found += 1
            makes, attests, takes = (
                next(place for place, step in enumerate(steps) if step.startswith(start))
                for start in ("mlship keys session", "actions/attest@", "mlship keys session --b")
            )
            assert makes < attests < takes < records[0], name
            assert job["permissions"]["id-token"] == "write", name
            assert job["permissions"]["attestations"] == "write", name
            needs = next(step for step in steps if step.startswith("uv pip install"))
            assert "identity" in needs, name
            said = next(step["with"] for step in job["steps"] if "attest@" in str(step))
            assert said["predicate-type"] == sessions.PREDICATE_TYPE, name
    assert found == 11


def test_the_job_with_the_code_keeps_evidence_to_itself_whatever_the_settings_say() -> None:
    for jobs in reviewed(shared()):
        assert jobs["report"]["env"] == {
            "MLSHIP_LEDGER__KIND": "directory",
            "MLSHIP_LEDGER__URI": "null",
            "MLSHIP_STORE__KIND": "directory",
            "MLSHIP_STORE__URI": "null",
            "MLSHIP_TRUST__UNSIGNED": "true",
        }
        assert "vars." not in str(jobs["report"])


def test_a_project_without_a_shared_ledger_has_two_jobs_and_one_with_it_four() -> None:
    assert [list(jobs) for jobs in reviewed(rendered("one machine"))] == [["report", "comment"]] * 2
    for jobs in reviewed(shared()):
        assert list(jobs) == ["ledger", "report", "comment", "record"]
    for jobs in reviewed(shared(claims=False)):
        assert list(jobs) == ["ledger", "report", "comment"]
        assert "export-evidence" not in str(jobs["report"])


def test_what_uses_the_ledger_is_of_the_base_and_the_commit_is_githubs() -> None:
    base = "${{ github.event.pull_request.base.sha || github.event.repository.default_branch }}"
    for jobs in reviewed(shared()):
        for name in ("ledger", "record"):
            job = jobs[name]
            refs = [step["with"]["ref"] for step in job["steps"] if "checkout@" in str(step)]
            assert refs == [base], "a branch's mlship.yaml would send the credentials elsewhere"
            [call] = [step for step in job["steps"] if "--commit=" in step.get("run", "")]
            assert call["env"]["COMMIT"] == (
                "${{ github.event.pull_request.head.sha || github.sha }}"
            )
            assert '--commit="$COMMIT"' in call["run"]
            others = [step for step in job["steps"] if step is not call]
            assert "secrets." not in str(others), "only that step has the credentials"


def test_a_pull_request_that_brings_the_project_or_a_newer_mlship_has_no_evidence() -> None:
    for jobs in reviewed(shared()):
        steps = {step["name"]: step for step in jobs["ledger"]["steps"]}
        for name in ("look for the project", "look for the command"):
            assert steps[name]["continue-on-error"] is True
        for name in ("export-evidence --commit", "hand on the evidence"):
            assert steps[name]["if"] == "${{ steps.command.outcome == 'success' }}"
        getting = {step["name"]: step for step in jobs["report"]["steps"]}["get the evidence"]
        assert getting["if"] == "${{ needs.ledger.outputs.evidence == 'success' }}"


def test_a_release_without_its_champion_fails_and_is_not_skipped() -> None:
    for jobs in reviewed(shared()):
        report = jobs["report"]
        assert report["needs"] == "ledger"
        assert report["if"] == "${{ !cancelled() }}"
        first = report["steps"][0]
        assert first["if"] == (
            "${{ needs.ledger.result != 'success' && needs.ledger.result != 'skipped' }}"
        )
        assert first["run"].endswith("exit 1\n")
        # A fork's ledger is skipped: it has no secrets.
        assert "head.repo.full_name == github.repository" in jobs["ledger"]["if"]


def test_a_champion_is_no_artifact_of_a_public_repository_unless_the_settings_say_so() -> None:
    for public in (False, True):
        for jobs in reviewed(shared(public_data=public)):
            guards = [
                step
                for step in jobs["ledger"]["steps"]
                if step.get("if") == "${{ !github.event.repository.private }}"
            ]
            assert len(guards) == (not public)
            assert all(step["run"].endswith("exit 1\n") for step in guards)


def test_a_secret_of_a_step_of_the_users_own_is_named_by_its_environment() -> None:
    for jobs in reviewed(rendered("data of DVC on S3, and steps of the user")):
        assert OWN.findall(str(jobs["report"])) == ["own_token1"]
        assert jobs["report"]["environment"] == "review"
