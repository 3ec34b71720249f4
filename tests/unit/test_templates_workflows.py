"""The workflows as text: pinned, with few rights, and with no way in for what users write."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.config.backends import LedgerConfig, ObservationsConfig, StoreConfig
from mlship.config.layers import from_yaml, resolve
from mlship.config.project import GatesConfig, TargetConfig
from mlship.config.workflows import BranchesConfig
from mlship.domain.policy import Occupied
from mlship.errors import ConfigError
from mlship.templates import workflows
from tests.harness.workflows import PROJECTS, SOURCE, committed, config, parsed, rendered

PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
NODE = "820762786026740c76f36085b0efc47a31fe5020"
FOREIGN = re.compile(r"\$\{\{.*?\b(github\.(event|head_ref|ref|ref_name|actor)|inputs)\b.*?\}\}")
ALL = [(project, name, text) for project in PROJECTS for name, text in rendered(project).items()]
ALL += [("this repository", name, text) for name, text in committed().items()]

texts = pytest.mark.parametrize(
    "text",
    [text for _, _, text in ALL],
    ids=[f"{project}-{name[18:-4]}" for project, name, _ in ALL],
)


def jobs(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from parsed(text)["jobs"].items()


def steps(text: str) -> Iterator[dict[str, Any]]:
    for _, job in jobs(text):
        yield from job["steps"]


def commands(text: str) -> list[str]:
    return [step["run"] for step in steps(text) if "run" in step]


def ticks(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the jobs of schedules, of which there are some."""
    found = [(name, job) for name, job in jobs(text) if name.startswith("tick-")]
    assert found
    return found


def foreign(text: str) -> list[str]:
    """Return the scripts of a workflow that an event's text becomes a part of."""
    return [run for run in commands(text) if FOREIGN.search(run)]


def bare(text: str) -> list[str]:
    """Return the scripts in which a variable could be taken for an option, or split."""
    told = [
        (run, match) for run in commands(text) for match in re.finditer(r"\$\w+|\$\{(?!\{)", run)
    ]
    return [
        run
        for run, match in told
        if run.startswith("mlship") and not re.search(r'(--[a-z-]+=| -- )"$', run[: match.start()])
    ]


@texts
def test_actions_are_pinned_by_hash(text: str) -> None:
    used = re.findall(r"uses: (.*)", text)
    assert used
    # A step of the user has no comment: YAML does not keep them.
    own = f"actions/setup-node@{NODE}"
    assert not [one for one in used if not PINNED.fullmatch(one) and one != own]


@texts
def test_no_right_is_given_to_all_jobs_and_each_has_a_limit(text: str) -> None:
    assert parsed(text)["permissions"] == {}
    for name, job in jobs(text):
        level = "write" if name == "comment" and "--pictures" in text else "read"
        assert job["permissions"].get("contents", "read") == level, name
        assert job["timeout-minutes"] <= 45, name
    for step in steps(text):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@texts
def test_no_event_and_no_input_becomes_part_of_a_script(text: str) -> None:
    assert not foreign(text)
    assert not bare(text)
    assert "pull_request_target" not in text
    assert "workflow_run" not in text


def test_a_script_with_an_events_text_in_it_would_be_found() -> None:
    text = rendered("Google")[".github/workflows/promote.yml"]
    for evil in (
        "${{ inputs.release }}",
        "${{ github.event.pull_request.title }}",
        "${{ github.head_ref }}",
        "${{ format('{0}', github.ref_name) }}",
    ):
        assert foreign(text.replace('-- "$RELEASE"', evil))
    for loose in ('"$RELEASE"', "-- $RELEASE"):
        assert bare(text.replace('-- "$RELEASE"', loose))
    assert bare(text.replace('request="$PULL', 'request "$PULL'))


@texts
def test_nothing_is_restored_from_a_cache(text: str) -> None:
    assert "cache" not in text.replace("enable-cache: false", "")
    for step in steps(text):
        if step.get("uses", "").startswith("astral-sh/setup-uv@"):
            assert step["with"]["enable-cache"] is False


@texts
def test_packages_are_installed_by_uv_for_the_python_that_the_settings_name(text: str) -> None:
    for name, job in jobs(text):
        if name == "test":  # this repository's own tests
            continue
        if name == "data":  # and DVC, in an environment of its own
            assert job["env"] == {"UV_NO_CONFIG": "1"}
        other = "install DVC" if name == "data" else ""
        own = [step for step in job["steps"] if step.get("name") != other]
        uses = {step["uses"].partition("@")[0]: step for step in own if "uses" in step}
        [installed] = [step["run"] for step in own if "uv pip" in step.get("run", "")]
        assert installed.startswith("uv pip install "), name
        versions = [
            uses[action]["with"]["python-version"]
            for action in ("actions/setup-python", "astral-sh/setup-uv")
        ]
        assert len(set(versions)) == 1, name


@texts
def test_a_job_with_credentials_runs_no_code_of_the_project(text: str) -> None:
    for name, job in jobs(text):
        rights = {right for right, level in job["permissions"].items() if level == "write"}
        scripts = "\n".join(step.get("run", "") for step in job["steps"])
        # A pin of mlship is in a file with hashes for all packages.
        scripts = re.sub(r"--require-hashes -r \S+", "", scripts)
        secret = set(re.findall(r"secrets\.(\w+)", str(job)))
        secret -= {"REGISTRY_READER", "REGISTRY_READER_PASSWORD"}
        holds = rights & {"id-token", "packages"} or any(
            one.endswith("KUBECONFIG") or one.startswith(("REGISTRY", "DVC_")) for one in secret
        )
        runs = re.search(r"requirements\.txt|mlship (train|test|verify)|make test", scripts)
        # Reviewed code may run where a ledger in a registry is written; other code may not.
        # It may also where the job signs what it records.
        writes = "MLSHIP_LEDGER__WRITES" in job.get("env", {}) or "actions/attest@" in str(job)
        is_reviewed = "pull_request" not in parsed(text)[True]
        assert not (holds and runs and not (writes and is_reviewed)), name
        assert not (runs and "KUBECONFIG" in str(job)), name


BASE = "${{ github.event.pull_request.base.sha || github.event.repository.default_branch }}"


@texts
def test_the_token_that_may_comment_is_in_no_job_with_code_of_a_pull_request(text: str) -> None:
    if "pull_request" not in parsed(text)[True]:
        return
    for name, job in jobs(text):
        if name == "test":  # this repository's own tests
            continue
        rights = {right for right, level in job["permissions"].items() if level == "write"}
        if name == "data":  # it runs no code of the branch
            assert rights <= {"id-token"}
            continue
        if name != "comment":
            assert rights == set(), name
            reads = job["permissions"].get("packages") == "read"
            assert not reads or name == "ledger", "it runs no code of the project"
            named = [
                key
                for step in job["steps"]
                for key, value in step.get("env", {}).items()
                if "GITHUB_TOKEN" in value
            ]
            assert named == (["MLSHIP_REGISTRY_PASSWORD"] if reads else []), name
            assert "GITHUB_TOKEN" not in str(job.get("env"))
            continue
        assert rights <= {"contents", "pull-requests"}
        assert set(re.findall(r"(?:secrets|vars)\.(\w+)", str(job))) == {"GITHUB_TOKEN"}
        checkouts = [one for one in job["steps"] if "checkout@" in one.get("uses", "")]
        assert all(one["with"]["ref"] == BASE for one in checkouts), "nothing of the branch"
        assert "environment" not in job
        runs = [one["run"] for one in job["steps"] if "run" in one]
        assert [run.split()[:3] for run in runs] == [
            ["uv", "pip", "install"],
            ["mlship", "report", '--from="$FOLDER"'],
        ]


@pytest.mark.parametrize(
    ("project", "needs"),
    [
        ("one machine", f"mlship-cd @ {SOURCE}"),
        ("one machine, an image by Docker", "--require-hashes -r requirements.txt"),
    ],
)
def test_the_job_that_comments_checks_out_what_was_reviewed_or_nothing(
    project: str, needs: str
) -> None:
    for folder in ("", "models/iris"):
        texts = rendered(project, folder)
        [text] = [text for name, text in texts.items() if name.endswith("feature.yml")]
        job = dict(jobs(text))["comment"]
        uses = [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]
        is_local = "://" not in needs
        assert ("actions/checkout" in uses) == is_local
        [line] = [step["run"] for step in job["steps"] if "install" in step.get("run", "")]
        assert shlex.split(line)[3:] == ([needs] if not is_local else needs.split())
        # Without a checkout there is no folder of the project to run in.
        moves = job.get("defaults", {}).get("run", {}).get("working-directory")
        assert (moves == ".") == (bool(folder) and not is_local)


def test_pictures_are_left_out_where_the_settings_say_so() -> None:
    given = config("one machine")
    without = msgspec.structs.replace(given.workflows, pictures=False)
    texts = workflows.render(msgspec.structs.replace(given, workflows=without), SOURCE)
    for name in ("feature", "release"):
        text = texts[f".github/workflows/{name}.yml"]
        assert "--pictures" not in text
        assert dict(jobs(text))["comment"]["permissions"] == {"pull-requests": "write"}
        assert "--pictures" in rendered("one machine")[f".github/workflows/{name}.yml"]


@texts
def test_a_deployment_is_never_cut_off(text: str) -> None:
    whole = parsed(text).get("concurrency")
    # In the group of a whole workflow, one schedule's tick would cancel another's that waits.
    for queue in [whole] if whole else [job["concurrency"] for _, job in ticks(text)]:
        # GitHub's groups are those of a whole repository: a user's own may be `main`.
        assert queue["group"].startswith("mlship-" if workflows.is_ours(text) else "ci-")
        if "deploy-" in text or "mlship promote" in text or not whole:
            assert queue["cancel-in-progress"] is False


@pytest.mark.parametrize("project", [name for name in PROJECTS if "main alone" not in name])
def test_develop_and_main_deploy_to_staging_one_after_the_other(project: str) -> None:
    names, queues, shared = rendered(project), [], []
    for name in ("develop", "main"):
        text = names[f".github/workflows/{name}.yml"]
        queues.append(parsed(text)["concurrency"]["group"])
        shared += [
            job.get("concurrency")
            for _, job in jobs(text)
            if any("mlship deploy-staging" in step.get("run", "") for step in job["steps"])
        ]
    is_local = config(project).targets.get("staging", TargetConfig()).kind == "local"
    # A local one ends with its job.
    group = None if is_local else {"group": "mlship-staging", "cancel-in-progress": False}
    assert shared == [group, group]
    # A third that waits for the shared group would have the second cancelled.
    assert len({*queues, "mlship-staging"}) == 3


@texts
def test_one_command_of_mlship_a_step(text: str) -> None:
    assert not [
        run for run in commands(text) if len(re.findall(r"^ *mlship ", run, re.MULTILINE)) > 1
    ]


@pytest.mark.parametrize(
    ("policy", "option"),
    [("wait", " --wait"), ("queue", " --queue"), ("replace", " --replace"), ("refuse", "")],
)
def test_a_merge_while_a_challenger_runs_does_what_the_project_says(
    policy: Occupied, option: str
) -> None:
    settings = config("Google")
    own = msgspec.structs.replace(settings.workflows, challenger=policy)
    texts = workflows.render(msgspec.structs.replace(settings, workflows=own), SOURCE)
    (deploys,) = [
        run
        for run in commands(texts[".github/workflows/main.yml"])
        if run.startswith("mlship deploy-production")
    ]
    assert deploys == f'mlship deploy-production{option} -- "$RELEASE"'
    for name in ("promote", "retire"):
        text = texts[f".github/workflows/{name}.yml"]
        assert ("mlship deploy-production --next" in text) is (policy in ("wait", "queue"))


def triggers(project: str, **branches: str | None) -> dict[str, Any]:
    """Return the events of each workflow of a project with other branches."""
    settings = config(project)
    own = msgspec.structs.replace(settings.workflows, branches=BranchesConfig(**branches))  # type: ignore[arg-type]
    texts = workflows.render(msgspec.structs.replace(settings, workflows=own), SOURCE)
    # YAML reads the key `on` as true.
    return {Path(name).stem: parsed(text)[True] for name, text in texts.items()}


def test_a_repository_may_have_main_alone() -> None:
    found = triggers("Google", develop=None, main="master", feature="*/work-*")
    assert set(found) == {"feature", "main", "evaluate", "promote", "rollback", "retire"}
    assert found["feature"]["push"]["branches"] == ["*/work-*"]
    assert found["feature"]["pull_request"]["branches"] == ["master"]
    assert found["main"]["push"]["branches"] == ["master"]


@pytest.mark.parametrize(
    ("branches", "pushed"),
    [
        ({"feature": "**"}, ["**", "!develop", "!main"]),
        ({"feature": "*"}, ["*", "!develop", "!main"]),
        ({"feature": "d*"}, ["d*", "!develop"]),
        ({"feature": "**", "develop": None, "main": "trunk"}, ["**", "!trunk"]),
        ({"feature": "**", "release": "rc/*"}, ["**", "!rc/*", "!main", "develop"]),
        ({"feature": "rc/**", "release": "rc/v*"}, ["rc/**", "!rc/v*", "develop"]),
        ({"feature": "work/**", "release": "rc/*"}, ["work/**", "develop"]),
    ],
)
def test_no_branch_runs_two_workflows_for_one_push(
    branches: dict[str, str | None], pushed: list[str]
) -> None:
    found = triggers("Google", **branches)
    assert found["feature"]["push"]["branches"] == pushed


def test_a_repository_may_offer_release_branches() -> None:
    found = triggers("one machine", release="release/**")
    assert found["feature"]["push"]["branches"] == ["feature/**", "develop"]
    assert found["feature"]["pull_request"]["branches"] == ["develop"]
    assert found["develop"]["push"]["branches"] == ["release/**"]
    assert found["release"]["pull_request"]["branches"] == ["main"]


def test_the_pipeline_is_whole_and_in_order() -> None:
    names = rendered("Google")
    assert [name[18:-4] for name in names] == [
        "feature",
        "develop",
        "release",
        "main",
        "evaluate",
        "promote",
        "rollback",
        "retire",
    ]
    ran = [run for run in commands(names[".github/workflows/main.yml"]) if "mlship " in run]
    order = [
        match[1] for run in ran if (match := re.match(r"mlship ([a-z-]+( --container)?)", run))
    ]
    assert [one for one in order if one != "report"] == [
        "train",
        "test",
        "containerize",
        "test --container",
        "push-to-registry",
        "deploy-staging",
        "verify-staging-workload",
        "deploy-production",
    ]
    assert "open-release-pr" in names[".github/workflows/develop.yml"]


def test_a_container_test_that_is_not_asked_for_is_in_no_workflow() -> None:
    asked = rendered("Google")
    left_out = workflows.render(
        msgspec.structs.replace(config("Google"), gates=GatesConfig(container=False)), SOURCE
    )
    main = ".github/workflows/main.yml"
    assert "mlship test --container" in asked[main]
    assert "images,docker]" in asked[main]
    assert not any("test --container" in text or "docker]" in text for text in left_out.values())
    assert "mlship containerize" in left_out[main]


@pytest.mark.parametrize("project", PROJECTS)
def test_what_docker_builds_goes_from_job_to_job_as_a_file_and_nothing_else_does(
    project: str,
) -> None:
    travels = "Docker" in project and "one machine" not in project
    for name in ("main",) if "main alone" in project else ("develop", "main"):
        kept, got = [], []
        for job, one in jobs(rendered(project)[f".github/workflows/{name}.yml"]):
            steps = [step.get("uses", step.get("run", "")) for step in one["steps"]]
            made = [step for step in steps if step.startswith("mlship containerize")]
            pushed = [step for step in steps if step.startswith("mlship push-to-registry")]
            kept += [job for step in one["steps"] if step.get("name") == "keep the image"]
            got += [job for step in steps if step.startswith("actions/download-artifact@")]
            assert all(("--to=" in step) == travels for step in made)
            assert all(("--from=" in step) == travels for step in pushed)
        assert bool(kept) == travels
        others = {job for job, _ in jobs(rendered(project)[f".github/workflows/{name}.yml"])}
        assert set(got) <= others - set(kept), "another job than the one that made it"


def test_docker_that_builds_is_installed_where_no_container_is_tested() -> None:
    text = rendered("GKE and images by Docker, staging in the job")[".github/workflows/main.yml"]
    assert "mlship-cd[train,mlflow,local,docker]" in text
    assert "mlship-cd[kubernetes,gcp]" in text
    order = [text.index(one) for one in ("get the image", "mlship push-to-registry --from=")]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("project", "workflow", "job", "extras"),
    [
        ("one machine", "feature", "report", "train"),
        ("one machine", "main", "release", "train,mlflow,local"),
        (
            "one machine, without CML, an image",
            "main",
            "release",
            "train,mlflow,local,images,docker",
        ),
        ("Google", "main", "release", "train,mlflow,images,docker"),
        ("Google", "main", "verify", "train"),
        ("Google", "main", "production", "kubernetes,gcp"),
        ("Kubernetes and a registry", "main", "staging", "kubernetes,images"),
        ("Kubernetes and a registry", "main", "production", "kubernetes"),
        ("Kubernetes and images by Docker", "main", "staging", "kubernetes"),
        ("Kubernetes and a registry", "promote", "promote", "kubernetes"),
        ("Kubernetes and a registry", "feature", "report", "train"),
        ("Kubernetes and images by Docker", "main", "release", "train,mlflow,docker"),
    ],
)
def test_a_job_installs_the_extras_of_what_it_does(
    project: str, workflow: str, job: str, extras: str
) -> None:
    found = dict(jobs(rendered(project)[f".github/workflows/{workflow}.yml"]))[job]
    [line] = [step["run"] for step in found["steps"] if "pip install" in step.get("run", "")]
    assert f"mlship-cd[{extras}]" in line
    assert ("requirements.txt" in line) == ("train" in extras)


def test_a_base_image_in_googles_registry_is_pulled_with_googles_credentials() -> None:
    given = config("Kubernetes and a registry")
    image = msgspec.structs.replace(given.image, base="europe-docker.pkg.dev/p/r/python:3.11")
    texts = workflows.render(msgspec.structs.replace(given, image=image), SOURCE)
    assert "mlship-cd[train,images,docker,gcp]" in texts[".github/workflows/main.yml"]


def test_a_shared_database_of_mlflows_is_reached_by_its_library() -> None:
    store = StoreConfig(kind="mlflow", uri="postgresql://db/mlflow")
    given = msgspec.structs.replace(config("Google"), store=store)
    texts = workflows.render(given, SOURCE)
    assert "mlship-cd[kubernetes,gcp,mlflow]" in texts[".github/workflows/promote.yml"]
    assert "mlship-cd[mlflow]" in texts[".github/workflows/evaluate.yml"]


def test_predictions_in_a_database_are_read_by_the_job_that_evaluates() -> None:
    observations = ObservationsConfig(kind="postgres", url="postgresql://db/iris")
    given = msgspec.structs.replace(config("Google"), observations=observations)
    installed = [
        name for name, text in workflows.render(given, SOURCE).items() if "postgres]" in text
    ]
    assert installed == [".github/workflows/evaluate.yml"]


def test_reports_are_posted_by_cml_unless_the_settings_leave_it_out() -> None:
    for name in ("feature", "release"):
        job = dict(jobs(rendered("one machine")[f".github/workflows/{name}.yml"]))["comment"]
        [cml] = [step for step in job["steps"] if "setup-cml@" in step.get("uses", "")]
        assert cml["with"] == {"version": "0.20.6", "vega": False}
        assert cml["continue-on-error"] is True
        assert '--from="$FOLDER" --publish cml --pictures' in str(job)
    for text in rendered("one machine, without CML, an image").values():
        assert "cml" not in text


def test_a_production_on_one_machine_is_left_to_that_machine() -> None:
    names = rendered("one machine")
    assert len(names) == 4
    assert not any(
        "mlship deploy-production" in run for text in names.values() for run in commands(text)
    )
    assert any(
        "mlship verify-staging-workload" in run
        for run in commands(names[".github/workflows/main.yml"])
    )


def test_each_registry_and_each_target_gets_its_own_credentials() -> None:
    def asked(project: str) -> set[str]:
        found = rendered(project).values()
        return {*workflows.asked_for(found, "vars"), *workflows.asked_for(found, "secrets")}

    google = {f"GCP_{name}_SERVICE_ACCOUNT" for name in ("STAGING", "PRODUCTION")}
    kubernetes = {"STAGING_KUBECONFIG", "PRODUCTION_KUBECONFIG"}
    assert google <= asked("Google")
    assert not kubernetes & asked("Google")
    assert kubernetes | {"REGISTRY_USER", "REGISTRY_PASSWORD"} <= asked("Kubernetes and a registry")
    assert not google & asked("Kubernetes and a registry")
    assert "REGISTRY_USER" not in asked("Kubernetes and GitHub's registry")
    assert "GITHUB_TOKEN" not in asked("Kubernetes and GitHub's registry")
    assert "GCP_STAGING_SERVICE_ACCOUNT" in asked("Kubernetes and Google's registry")


def test_a_ledger_in_a_registry_is_written_after_a_review_and_read_before() -> None:
    texts = rendered("GitHub's registry for all")
    assert "MLFLOW" not in "".join(texts.values())
    assert "MLSHIP_IMAGE__REPOSITORY" not in "".join(texts.values())
    for name, text in texts.items():
        for job, found in jobs(text):
            if job == "comment":
                continue
            is_pull_request = name.endswith(("feature.yml", "release.yml"))
            if is_pull_request and job == "report":
                assert "packages" not in found["permissions"]
                assert "REGISTRY" not in str(found)
                continue
            right = "read" if is_pull_request else "write"
            assert found["permissions"]["packages"] == right, (name, job)
            where = "local" if is_pull_request else "shared"
            [reading] = [step for step in found["steps"] if "--commit" in str(step)] or [{}]
            held, other = reading.get("env", {}), found.get("env", {})
            held, other = (held, other) if is_pull_request else (other, held)
            for section in ("LEDGER", "STORE"):
                assert held[f"MLSHIP_{section}__WRITES"] == where, (name, job)
            assert "MLSHIP_REGISTRY_PASSWORD" in held
            assert "MLSHIP_REGISTRY_PASSWORD" not in other


def test_a_pull_request_has_no_identity_of_google_for_a_ledger_in_its_registry() -> None:
    texts = rendered("Google's registry for all")
    job = dict(jobs(texts[".github/workflows/feature.yml"]))["report"]
    assert job["permissions"] == {"contents": "read"}
    assert job["env"]["MLSHIP_LEDGER__KIND"] == job["env"]["MLSHIP_STORE__KIND"] == "directory"
    assert "authenticate" not in str(job)
    for workflow, job_name in (("main", "release"), ("main", "verify"), ("evaluate", "evaluate")):
        job = dict(jobs(texts[f".github/workflows/{workflow}.yml"]))[job_name]
        assert job["permissions"]["id-token"] == "write"
        assert "vars.GCP_BUILD_SERVICE_ACCOUNT" in str(job)
        assert "gcp" in str(job["steps"])


def test_jobs_log_in_to_one_registry() -> None:
    given = config("GitHub's registry for all")
    ledger = LedgerConfig(kind="registry", uri="registry.example.org/iris")
    with pytest.raises(ConfigError, match=r"ghcr\.io, registry\.example\.org"):
        workflows.render(msgspec.structs.replace(given, ledger=ledger), SOURCE)


def test_only_what_init_wrote_itself_counts_as_untouched() -> None:
    text = rendered("one machine")[".github/workflows/main.yml"]
    assert workflows.is_untouched(text)
    assert not workflows.is_untouched(text.replace("45", "46"))
    assert not workflows.is_untouched(text.partition("\n")[2])


def test_nothing_is_evaluated_where_no_outcomes_are_compared() -> None:
    base = "name: iris\ndata: {train: a.csv, split: {}}\nmodel: {train: 'pipeline:train'}\n"
    base += "image: {repository: example.org/iris}\ntargets: {production: {kind: kubernetes}}\n"
    none = from_yaml(base + "gates: {promote: {metric: none}}", "mlship.yaml")
    kinds = workflows.kinds(resolve([none]).config)
    assert {"promote", "rollback"} <= set(kinds)
    assert "evaluate" not in kinds
    assert "evaluate" in workflows.kinds(resolve([from_yaml(base, "mlship.yaml")]).config)


def test_schedules_have_a_job_each_that_runs_what_main_has() -> None:
    project = "schedules, and data of DVC on S3"
    text = rendered(project)[".github/workflows/ticks.yml"]
    # YAML reads the key `on` as true.
    events = parsed(text)[True]
    assert events["schedule"] == [{"cron": "30 4 * * *"}, {"cron": "0 3 * * 1"}]
    options = events["workflow_dispatch"]["inputs"]["schedule"]["options"]
    assert options == ["daily", "nightly", "weekly"]
    found = dict(ticks(text))
    assert set(found) == {f"tick-{name}" for name in options}
    for name in options:
        job = found[f"tick-{name}"]
        assert f"mlship schedules run {name}" in [step.get("run") for step in job["steps"]]
        assert f"inputs.schedule == '{name}'" in job["if"]
        assert job["concurrency"]["group"] == f"mlship-tick-{name}"
        [checkout] = [step for step in job["steps"] if "checkout@" in step.get("uses", "")]
        assert checkout["with"]["ref"] == "main"
    weekly, daily = found["tick-weekly"], found["tick-daily"]
    assert (weekly["needs"], weekly["environment"], weekly["timeout-minutes"]) == (
        *("data", "build"),
        40,
    )
    assert "needs" not in daily
    assert daily["environment"] == "evaluate"
    assert "PREDICTIONS_PASSWORD" in str(daily)
    assert "PREDICTIONS_PASSWORD" not in str(weekly)
    # What DVC keeps is fetched for the training only.
    data = dict(jobs(text))["data"]
    assert data["if"] == weekly["if"]
    assert "30 4" not in data["if"]


def test_without_a_schedule_there_is_no_workflow_for_them() -> None:
    assert ".github/workflows/ticks.yml" not in rendered("one machine")
    assert ".github/workflows/ticks.yml" in rendered("schedules alone")
