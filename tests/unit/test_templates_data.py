"""Data of DVC and steps of the user in generated workflows."""

import copy
import re
from typing import Any

import msgspec
import pytest
import yaml

from mlship.config.layers import from_yaml, resolve
from mlship.config.own_steps import OWN_IDS
from mlship.config.project import Config
from mlship.domain.storage import DVC, Kept, storage
from mlship.errors import ConfigError
from mlship.templates import workflows
from tests.harness.workflows import KEPT, PROJECTS, SOURCE, config, parsed, rendered

S3 = "data of DVC on S3, and steps of the user"
NODE = "actions/setup-node@820762786026740c76f36085b0efc47a31fe5020"
HANDED_ON = ("feature", "develop", "release", "main")


def jobs(project: str, workflow: str, folder: str = "") -> dict[str, Any]:
    prefix = f"{folder.rpartition('/')[2]}-" if folder else ""
    text = rendered(project, folder)[f".github/workflows/{prefix}{workflow}.yml"]
    found: dict[str, Any] = parsed(text)["jobs"]
    return found


def step(job: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [step for step in job["steps"] if step.get("name") == name]
    return dict(found)


def scripts(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def own(text: str, kept: Kept = KEPT[S3], source: str = SOURCE) -> dict[str, str]:
    base = "name: iris\ndata: {train: a.csv, split: {}}\nmodel: {train: 'pipeline:train'}\n"
    return workflows.render(read(base + text), source, "", "", kept)


def read(text: str) -> Config:
    return resolve([from_yaml(text, "mlship.yaml")]).config


@pytest.mark.parametrize("project", KEPT)
@pytest.mark.parametrize("workflow", HANDED_ON)
def test_only_the_job_that_fetches_has_the_storages_credentials(
    project: str, workflow: str
) -> None:
    found = jobs(project, workflow)
    assert next(iter(found)) == "data"
    for name, job in found.items():
        assert bool(re.search(r"secrets\.DVC_|GCP_DATA", str(job))) == (name == "data"), name
    data = found["data"]
    assert not re.search(r"mlship (?!fetch-data)|requirements\.txt", scripts(data)) or (
        "hashes" in project
    )
    assert data["environment"] == "data"
    upload = step(data, "hand on the data")["with"]
    assert upload["retention-days"] == 1
    assert upload["include-hidden-files"] is True
    trains = found["report" if workflow in ("feature", "release") else "release"]
    needs = trains["needs"]
    assert "data" in ([needs] if isinstance(needs, str) else needs)
    order = [step.get("name") for step in trains["steps"]]
    assert order.index("check out") < order.index("get the data") < order.index("train")
    assert step(trains, "get the data")["with"]["name"] == upload["name"] == "data"


@pytest.mark.parametrize("workflow", ["feature", "release"])
def test_a_pull_request_is_never_passed_by_a_skipped_job(workflow: str) -> None:
    report = jobs(S3, workflow)["report"]
    assert report["if"] == "${{ !cancelled() }}"
    assert step(report, "get the data")["if"] == "${{ needs.data.result == 'success' }}"
    assert "if" not in jobs(S3, "main")["release"]


@pytest.mark.parametrize(
    ("project", "extra", "asked"),
    [
        (S3, "dvc[s3]", {"DVC_ACCESS_KEY_ID", "DVC_SECRET_ACCESS_KEY"}),
        ("data of DVC on Google Cloud", "dvc[gs]", {"GCP_DATA_SERVICE_ACCOUNT"}),
        ("data of DVC, mlship pinned with hashes", "dvc", {"DVC_PASSWORD"}),
        ("data of DVC, mlship in the repository", "dvc[ssh]", {"DVC_SSH_KEY"}),
    ],
)
def test_each_storage_has_its_extra_and_its_credentials(
    project: str, extra: str, asked: set[str]
) -> None:
    texts = rendered(project).values()
    names = {*workflows.asked_for(texts, "vars"), *workflows.asked_for(texts, "secrets")}
    assert {name for name in names if "DATA" in name or name.startswith("DVC_")} == asked
    data = jobs(project, "feature")["data"]
    assert step(data, "install DVC")["run"] in (
        f"uv tool install '{extra}=={DVC}'",
        f"uv tool install {extra}=={DVC}",
    )
    is_google = "Google" in project
    assert ("id-token" in data["permissions"]) == is_google


def test_google_without_workload_identity_takes_a_secret() -> None:
    texts = own("", Kept(files=("a.csv",), storage=storage("gs://bucket", {})))
    assert "DVC_GOOGLE_CREDENTIALS" in workflows.asked_for(texts.values(), "secrets")
    assert not any("id-token" in text for text in texts.values())


def test_google_with_a_cluster_and_another_registry_takes_workload_identity() -> None:
    project = "data of DVC on Google Cloud"
    given = config(project)
    image = msgspec.structs.replace(given.image, repository="ghcr.io/ada/iris")
    elsewhere = msgspec.structs.replace(given, image=image)
    data = workflows.settings_of(elsewhere, SOURCE, "", "", KEPT[project], ()).data
    assert data is not None
    assert (data.identity, data.secrets) == (True, ())


def test_private_data_stay_out_of_public_artifacts() -> None:
    name = "keep private data out of a public repository's artifacts"
    assert (
        step(jobs(S3, "feature")["data"], name)["if"] == "${{ !github.event.repository.private }}"
    )
    public = Kept(files=("a.csv",), storage=storage("https://data.example.org", {}))
    for texts in (own("workflows: {public_data: true}"), own("", public)):
        assert "fetch-data" in texts[".github/workflows/main.yml"]
        assert not any(name in text for text in texts.values())


@pytest.mark.parametrize("folder", ["", "models/iris"])
def test_a_branchs_own_mlship_is_not_installed_beside_credentials(folder: str) -> None:
    up = "../../" if folder else ""
    tools = f"{up or './'}reviewed-mlship/tools/mlship"
    hashed = (
        f"--require-hashes -r {up}reviewed-mlship/{folder + '/' if folder else ''}requirements.txt"
    )
    for project, needs in (
        ("data of DVC, mlship in the repository", tools),
        ("data of DVC, mlship pinned with hashes", hashed),
    ):
        data = jobs(project, "feature", folder)["data"]
        assert step(data, "install mlship")["run"] == f"uv pip install {needs}"
        reviewed = step(data, "check out the reviewed mlship")["with"]
        assert reviewed["ref"] == "${{ github.event.repository.default_branch }}"
        assert reviewed["path"] == "reviewed-mlship"
        merged = jobs(project, "develop", folder)["data"]
        assert "reviewed-mlship" not in str(merged)
    assert "reviewed-mlship" not in str(jobs(S3, "feature", folder))


def test_the_job_that_replays_the_workload_gets_it() -> None:
    assert step(jobs(S3, "main")["verify"], "get the data")
    one = msgspec.structs.replace(KEPT[S3], files=("data/train.csv",))
    text = workflows.render(config(S3), SOURCE, "", "", one)[".github/workflows/main.yml"]
    assert "get the data" not in str(parsed(text)["jobs"]["verify"])


def test_no_job_fetches_what_git_has_or_what_is_left_to_the_user() -> None:
    for project in set(PROJECTS) - set(KEPT):
        assert not any("fetch-data" in text for text in rendered(project).values())
    texts = own("workflows: {dvc: false}")
    assert not any("dvc" in text.lower() for text in texts.values())
    nowhere = Kept(files=("a.csv",), reason="DVC has no remote")
    assert not any("fetch-data" in text for text in own("", nowhere).values())
    for value in ("true", "[words.txt]"):
        with pytest.raises(ConfigError, match=r"workflows\.dvc: DVC has no remote"):
            own(f"workflows: {{dvc: {value}}}", nowhere)


STEPS = """
workflows:
  steps:
    before_train:
    - {before}
    after_test:
    - {after}
"""


@pytest.mark.parametrize("workflow", HANDED_ON)
def test_steps_of_the_user_are_in_the_jobs_that_train_and_in_no_other(workflow: str) -> None:
    found = jobs(S3, workflow)
    for name, job in found.items():
        trains = "mlship train" in scripts(job)
        assert ("make more" in scripts(job)) == trains, name
        assert ("setup-node" in str(job)) == trains, name
        if trains:
            assert not set(job["permissions"]) & {"id-token", "packages"}
            assert not re.search(r"KUBECONFIG|REGISTRY_|DVC_", str(job))
            order = [step.get("name", step.get("id", "")) for step in job["steps"]]
            places = [order.index(one) for one in ("packages: of the system", "train", "test")]
            assert [*places, order.index("extra")] == sorted([*places, order.index("extra")])
    if workflow in ("feature", "main"):
        [script] = [
            step["run"]
            for job in found.values()
            for step in job["steps"]
            if step.get("name") == "packages: of the system"
        ]
        # Its blank line too.
        assert script == config(S3).workflows.steps.before_train[0].run
        assert "\n\ncat <<END\n  run: mlship status\nEND\n" in script


def test_no_step_is_in_the_jobs_of_production_and_none_makes_a_workflow_edited() -> None:
    for name, text in rendered(S3).items():
        assert workflows.is_untouched(text), name
        if name.endswith(("evaluate.yml", "promote.yml")):
            assert "make more" not in text
    asked = workflows.asked_for(rendered(S3).values(), "secrets")
    assert "own_token1" in asked


@pytest.mark.parametrize(
    "value",
    [
        "a: b # c",
        "- x",
        "yes",
        "1e3",
        "0o14",
        "~",
        "null",
        "2024-01-01",
        "${{ github.sha }}",
        "  led and trailed  ",
        "tab\tin it",
        "x" * 300 + " " + "y" * 300,
        "two\n\n  lines: # and more\n",
        "trailing space \nnext",
        "no end\nof the last line",
        "\n\nat the start\n\n",
        "...\n...\n",
        "a\n...",
        "a\n---\n...\n\n",
        "größe 🚢 \u2028 \x85",
        "      # after_test\n",
        "jobs:\n  evil:\n    runs-on: x\n",
        "'\"`\\",
    ],
)
def test_a_text_stays_the_text_that_it_is(value: str) -> None:
    given = {"name": value, "env": {"A": value}, "run": value}
    base = {"name": "iris", "data": {"train": "a.csv", "split": {}}}
    document = base | {"model": {"train": "pipeline:train"}}
    plain = read(yaml.safe_dump(document))
    document |= {"workflows": {"steps": {"before_train": [given], "after_test": [given]}}}
    texts = workflows.render(read(yaml.safe_dump(document)), SOURCE)
    without = workflows.render(plain, SOURCE)
    for name, text in texts.items():
        found, expected = copy.deepcopy(parsed(text)), parsed(without[name])
        for job in found["jobs"].values():
            added = [step for step in job["steps"] if step.get("env") == {"A": value}]
            assert added in ([], [given, given])
            job["steps"] = [step for step in job["steps"] if step not in added]
        assert found == expected, name
        assert any("mlship train" in str(job) for job in expected["jobs"].values())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "needs exactly one of `run` and `uses`"),
        (f"{{run: x, uses: '{NODE}'}}", "needs exactly one of `run` and `uses`"),
        ("{run: x, wiht: {}}", "unknown field `wiht`"),
        ("{uses: actions/setup-node@v4}", "is not pinned"),
        ("{uses: actions/setup-node}", "is not pinned"),
        ("{uses: ../outside}", "is not pinned"),
        ("{uses: 'docker://alpine:3'}", "is not pinned"),
        ("{run: x, with: {a: b}}", "`with` is for a step with `uses`"),
        (f"{{uses: '{NODE}', shell: bash}}", "are for a step with `run`"),
        ("{run: x, id: train}", "belongs to a step of mlship"),
        ("{run: x, id: 'a b'}", "in another format"),
        ("{run: x, env: {'A: evil': b}}", "env: invalid name 'A: evil'"),
        ("{run: [x]}", "expected"),
        ("make", "expected"),
    ],
)
def test_what_is_no_step_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        own(STEPS.format(before=text, after="{run: x}"))
    assert reason in caught.value.message
    assert "workflows.steps.before_train" in caught.value.message
    assert caught.value.hint


def test_the_ids_of_mlships_own_steps_are_refused() -> None:
    taken = {
        step["id"]
        for text in (*own("").values(), *rendered("jobs that sign with keys of their own").values())
        for job in parsed(text)["jobs"].values()
        if "mlship train" in scripts(job)
        for step in job["steps"]
        if "id" in step
    }
    assert taken == set(OWN_IDS)


def test_two_steps_have_two_ids() -> None:
    with pytest.raises(ConfigError, match="two steps have the id a"):
        own(STEPS.format(before="{run: x, id: a}", after="{run: x, id: a}"))


def test_actions_of_the_repository_and_of_containers_may_be_used() -> None:
    for uses in ("./.github/actions/own", f"docker://ghcr.io/ada/x@sha256:{'0' * 64}"):
        assert uses in str(own(STEPS.format(before=f"{{uses: '{uses}'}}", after="{run: x}")))
