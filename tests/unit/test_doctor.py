"""doctor on fakes: what each kind of project is asked for, and what is said of each fault."""

import dataclasses
import importlib.machinery
import importlib.util
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec
import pytest

from mlship.adapters.forges.github.detect import look
from mlship.config.access import TlsConfig
from mlship.config.backends import LedgerConfig, ObservationsConfig, StoreConfig
from mlship.config.installation import Installation, Origin
from mlship.config.project import GatesConfig, ImageConfig, TargetConfig
from mlship.config.stream import StreamConfig
from mlship.config.targets import GkeConfig, KubernetesConfig
from mlship.config.workflows import WorkflowsConfig
from mlship.domain.api_keys import ApiKeys
from mlship.domain.policy import Bound
from mlship.domain.signatures import Signatures
from mlship.domain.trust import Signer, Trust
from mlship.errors import MlshipError, NotFoundError, UnavailableError
from mlship.steps.diagnosis import Check, Surroundings
from mlship.steps.doctor import doctor, extras_of
from tests.fakes.ports import CONFIG, World, world
from tests.fakes.registry import FakeRegistry
from tests.fakes.target import FakeTarget
from tests.harness import certificates
from tests.harness.certificates import DAY
from tests.harness.images import Project
from tests.harness.signing import key
from tests.harness.workflows import SOURCE

LOCAL = {"staging": TargetConfig(), "production": TargetConfig()}
SECURED = TargetConfig(tls=TlsConfig(certificate="certificate.pem", key="key.pem"))
WEB = ApiKeys(keys=()).with_key("web", "token", datetime(2026, 1, 1, tzinfo=UTC))
CLUSTER = TargetConfig(kind="kubernetes")
GKE = TargetConfig(kind="gke", gke=GkeConfig(project="p", location="l", cluster="c"))
CLUSTERS = {"staging": CLUSTER, "production": CLUSTER}
PUSHED = ImageConfig(repository="ghcr.io/ada/iris")
SERVER = StoreConfig(uri="http://mlflow.example:5000")
BY_DOCKER = ImageConfig(builder="docker")
HERE = Installation(
    origin=Origin(kind="folder", version="0.1.0", url="/home/ada/mlship", is_editable=True),
    source=SOURCE,
)
WELL = Surroundings(
    functions=lambda: 1,
    heads=lambda: None,
    ignored=tuple,
    installed=lambda: HERE,
    workflows=dict,
    registry=lambda: "ghcr.io/ada/iris answers",
    engine=lambda: "Docker 27.1",
    cluster=lambda name: f"context {name} lets us",
    forge=lambda: "",
)
ALWAYS = [
    "installation",
    "packages",
    "git",
    "data and code",
    "ledger",
    "signatures",
    "observations",
    "store",
]
TARGETS = ["target staging", "target production"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    spec = importlib.machinery.ModuleSpec("there", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return world(tmp_path)


def checks(here: World, around: Surroundings = WELL, **changes: Any) -> dict[str, Check]:
    config = msgspec.structs.replace(CONFIG, **changes)
    pipeline = dataclasses.replace(here.pipeline, config=config)
    return {one.name: one for one in doctor(pipeline, around)}


@pytest.mark.parametrize(("digest", "state"), [("", "warning"), (f"@sha256:{'a' * 64}", "right")])
def test_a_base_image_that_can_move_is_warned_of(here: World, digest: str, state: str) -> None:
    image = msgspec.structs.replace(PUSHED, base=f"python:3.11-slim{digest}")
    check = checks(here, targets=LOCAL, image=image)["base image"]
    assert check.state == state
    assert ("mlship images update" in check.hint) == (state == "warning")


@pytest.mark.parametrize(
    ("changes", "also"),
    [
        ({"targets": LOCAL}, []),
        ({"targets": {}}, []),
        ({"targets": LOCAL, "image": PUSHED}, ["registry", "base image"]),
        ({"targets": CLUSTERS}, ["registry", "base image", "engine"]),
        ({"targets": CLUSTERS, "gates": GatesConfig(container=False)}, ["registry", "base image"]),
        (
            {"targets": CLUSTERS, "gates": GatesConfig(container=False), "image": BY_DOCKER},
            ["registry", "base image", "engine"],
        ),
        ({"targets": LOCAL | {"production": GKE}}, ["registry", "base image", "engine"]),
    ],
)
def test_only_what_the_configuration_needs_is_looked_at(
    here: World, changes: dict[str, Any], also: list[str]
) -> None:
    found = checks(here, **changes)
    access = [name for name in found if name.startswith("access to ")]
    assert [name for name in found if name not in access] == [*ALWAYS, *also, *TARGETS]
    expected = {"observations", "signatures", "base image", *access}
    assert {one.state for name, one in found.items() if name not in expected} == {"right"}


@pytest.mark.parametrize(
    ("since", "until", "state", "says"),
    [
        (-DAY, 15 * DAY, "right", "certificate.pem is valid until "),
        (-DAY, 13 * DAY, "warning", "certificate.pem expires at "),
        (-2 * DAY, -DAY, "wrong", "certificate.pem: certificate has expired"),
        (DAY, 2 * DAY, "wrong", "certificate.pem: certificate is not yet valid"),
    ],
)
def test_the_certificate_of_a_local_target_is_looked_at(
    here: World, since: timedelta, until: timedelta, state: str, says: str
) -> None:
    certificates.write(here.pipeline.root, since=since, until=until)
    here.clock.now = datetime.now(UTC)
    found = checks(here, targets=LOCAL | {"production": SECURED})
    told = found["certificate of production"]
    assert (told.state, told.exit_code) == (state, 2 if state == "wrong" else 0)
    assert says in told.detail
    assert ("renew it" in told.hint) == (state != "right")
    assert "certificate of staging" not in found


@pytest.mark.parametrize(
    ("content", "state", "says"),
    [
        (None, "wrong", "cannot read the API keys in "),
        (b"{}", "wrong", "api-keys.json is not a file of API keys"),
        (b'{"keys": []}', "warning", "api-keys.json has no key, so that nobody is answered"),
        (WEB.encoded(), "right", "api-keys.json has the keys web"),
    ],
)
def test_the_api_keys_of_a_local_target_are_looked_at(
    here: World, content: bytes | None, state: str, says: str
) -> None:
    if content is not None:
        (here.pipeline.root / "api-keys.json").write_bytes(content)
    found = checks(here, targets=LOCAL | {"production": TargetConfig(api_keys="api-keys.json")})
    told = found["API keys of production"]
    assert (told.state, told.exit_code) == (state, 2 if state == "wrong" else 0)
    assert says in told.detail
    assert "API keys of staging" not in found


@pytest.mark.parametrize(
    ("email", "character"),
    [
        ("ad\u0430@example.org", "U+0430 (CYRILLIC SMALL LETTER A)"),
        ("ada\u2800@example.org", "U+2800 (BRAILLE PATTERN BLANK)"),
    ],
)
def test_an_address_that_may_look_like_another_one_is_warned_of(
    here: World, email: str, character: str
) -> None:
    ci, ada = Signer(name="ci", key=key().public), Signer(name="ada", key=key().public)

    def told(*emails: str) -> Check:
        signers = (ci, msgspec.structs.replace(ada, emails=emails))
        signatures = Signatures(trust=lambda: Trust(signers=signers, unsigned=False))
        pipeline = dataclasses.replace(here.pipeline, signatures=signatures)
        return checks(dataclasses.replace(here, pipeline=pipeline))["signatures"]

    assert told("ada@example.org").state == "right"
    found = told("ada@example.org", email)
    assert found.state == "warning"
    assert found.detail == f"look at it: {email!a} has {character}"


def test_a_certificate_whose_key_does_not_fit_is_wrong(here: World) -> None:
    root = here.pipeline.root
    certificates.write(root)
    other = (root / "key.pem").read_bytes()
    certificates.write(root)
    (root / "key.pem").write_bytes(other)
    told = checks(here, targets=LOCAL | {"production": SECURED})["certificate of production"]
    assert told.state == "wrong"
    assert "key.pem is not the key of" in told.detail
    (root / "key.pem").unlink()
    told = checks(here, targets=LOCAL | {"production": SECURED})["certificate of production"]
    assert told.state == "wrong"
    assert "cannot read" in told.detail


class Encrypted(FakeTarget):
    """A target in a cluster whose certificate is in a Secret."""

    def __init__(self, until: datetime | MlshipError) -> None:
        super().__init__()
        self.until = until

    def certificate(self) -> bytes | None:
        return b""

    def check_certificate(self) -> datetime | None:
        if isinstance(self.until, MlshipError):
            raise self.until
        return self.until


@pytest.mark.parametrize(
    ("until", "state", "says"),
    [
        (15 * DAY, "right", "Secret iris-tls is valid until "),
        (13 * DAY, "warning", "Secret iris-tls expires at "),
        (NotFoundError("context a has no Secret iris-tls", hint="create it"), "wrong", "has no "),
    ],
)
def test_the_certificate_in_a_secret_is_looked_at(
    here: World, until: timedelta | MlshipError, state: str, says: str
) -> None:
    now = here.pipeline.clock()
    target = Encrypted(until if isinstance(until, MlshipError) else now + until)
    here.targets["production"] = target
    secured = TargetConfig(
        kind="kubernetes", kubernetes=KubernetesConfig(tls_secret="iris-tls", api_keys_secret="k")
    )
    found = checks(here, targets=LOCAL | {"production": secured})
    told = found["certificate of production"]
    assert (told.state, says in told.detail) == (state, True)
    assert bool(told.hint) == (state != "right")


def test_who_may_ask_a_target_in_a_cluster_is_told(here: World) -> None:
    keyed = TargetConfig(
        kind="kubernetes", kubernetes=KubernetesConfig(api_keys_secret="iris-api-keys")
    )
    found = checks(here, targets={"staging": keyed, "production": CLUSTER})
    assert found["access to staging"].state == "right"
    assert "Secret iris-api-keys" in found["access to staging"].detail
    is_open = found["access to production"]
    assert (is_open.state, is_open.exit_code) == ("warning", 0)
    assert is_open.detail.endswith("without an API key")
    assert "targets.production.kubernetes.api_keys_secret" in is_open.hint
    assert not any(name.startswith("access") for name in checks(here, targets=LOCAL))


@pytest.mark.parametrize(
    ("changes", "extras"),
    [
        ({"targets": LOCAL, "store": StoreConfig(kind="directory")}, ["train", "local"]),
        ({"targets": {}}, ["train", "local", "mlflow"]),
        ({"store": SERVER}, ["train", "local"]),
        ({"store": SERVER, "ledger": LedgerConfig(kind="mlflow")}, ["train", "local"]),
        (
            {"store": SERVER, "ledger": LedgerConfig(kind="mlflow", uri="postgresql://db/mlflow")},
            ["train", "local", "mlflow"],
        ),
        (
            {"ledger": LedgerConfig(kind="mlflow", uri="https://mlflow.example")},
            ["train", "local", "mlflow"],
        ),
        ({"targets": CLUSTERS}, ["train", "mlflow", "images", "docker"]),
        (
            {"targets": CLUSTERS, "gates": GatesConfig(container=False)},
            ["train", "mlflow", "images"],
        ),
        (
            {"targets": CLUSTERS, "image": BY_DOCKER},
            ["train", "mlflow", "docker"],
        ),
        (
            {"targets": CLUSTERS | {"staging": TargetConfig()}},
            ["train", "local", "mlflow", "images", "docker"],
        ),
        (
            {"targets": {"staging": GKE, "production": GKE}},
            ["train", "mlflow", "images", "docker", "gcp"],
        ),
        (
            {"image": ImageConfig(repository="europe-docker.pkg.dev/p/r/iris")},
            ["train", "local", "mlflow", "images", "gcp"],
        ),
        ({"image": PUSHED}, ["train", "local", "mlflow", "images"]),
        (
            {
                "store": StoreConfig(kind="directory"),
                "ledger": LedgerConfig(kind="mlflow"),
                "observations": ObservationsConfig(kind="postgres", url="postgresql://db/iris"),
            },
            ["train", "local", "mlflow", "postgres"],
        ),
        (
            {
                "store": StoreConfig(kind="registry", uri="europe-docker.pkg.dev/p/r/iris"),
                "ledger": LedgerConfig(kind="registry"),
            },
            ["train", "local", "gcp"],
        ),
    ],
)
def test_the_extras_follow_from_the_configuration(
    here: World, changes: dict[str, Any], extras: list[str]
) -> None:
    config = msgspec.structs.replace(CONFIG, **changes)
    assert extras_of(dataclasses.replace(here.pipeline, config=config)) == extras


def test_missing_packages_are_named_with_the_command(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> None:
        if name.startswith("google."):
            raise ModuleNotFoundError("No module named 'google'")

    monkeypatch.setattr(importlib.util, "find_spec", find)
    found = checks(here, targets={"staging": GKE, "production": GKE})["packages"]
    assert (found.state, found.exit_code) == ("wrong", 2)
    assert "[train,mlflow,images,docker,gcp]" in found.hint


def test_where_mlship_came_from_and_where_jobs_get_it_is_told(here: World) -> None:
    found = checks(here)["installation"]
    assert (found.state, found.detail) == (
        "right",
        f"mlship-cd 0.1.0 from /home/ada/mlship, editable; jobs install {SOURCE}",
    )


JOBS = {".github/workflows/main.yml": "env: {MLFLOW_TRACKING_URI: '${{ vars.X }}'}\n"}
BY_MLFLOW = LedgerConfig(kind="mlflow")


@pytest.mark.parametrize(
    ("changes", "ledger", "store"),
    [
        ({"ledger": BY_MLFLOW}, "MLFLOW_TRACKING_URI is not set here", "MLFLOW_TRACKING_URI is"),
        ({"targets": CLUSTERS}, "in this folder, and jobs share none", "MLFLOW_TRACKING_URI is"),
        (
            {"targets": CLUSTERS, "store": StoreConfig(kind="directory")},
            "evidence is kept in this folder",
            "models are kept in this folder",
        ),
        ({"targets": CLUSTERS, "store": SERVER}, "evidence is kept in this folder", ""),
        ({"ledger": BY_MLFLOW, "store": SERVER, "targets": CLUSTERS}, "", ""),
        ({"ledger": LedgerConfig(kind="mlflow", uri="http://a"), "store": SERVER}, "", ""),
        ({"ledger": LedgerConfig(kind="registry"), "store": StoreConfig(kind="registry")}, "", ""),
        ({"targets": LOCAL}, "", ""),
    ],
)
def test_a_ledger_and_a_store_that_jobs_do_not_have_are_warned_of(
    here: World, changes: dict[str, Any], ledger: str, store: str
) -> None:
    around = dataclasses.replace(WELL, workflows=lambda: JOBS)
    found = checks(here, around, **changes)
    for name, says in (("ledger", ledger), ("store", store)):
        assert says in found[name].detail
        assert found[name].state == ("warning" if says else "right")
        assert ("without-a-server" in found[name].hint) is bool(says)
    assert {checks(here, **changes)[name].state for name in ("ledger", "store")} == {"right"}


def test_a_ledger_of_a_cluster_that_is_on_this_machine_alone_is_warned_of_without_workflows(
    here: World,
) -> None:
    found = checks(here, targets=CLUSTERS, ledger=BY_MLFLOW)
    assert [found[name].state for name in ("ledger", "store")] == ["warning"] * 2
    found = checks(here, targets=CLUSTERS, ledger=BY_MLFLOW, store=SERVER)
    assert [found[name].state for name in ("ledger", "store")] == ["right"] * 2


def test_workflows_that_nobody_can_renew_are_warned_of(here: World) -> None:
    lost = Installation(origin=Origin(kind="index", version="0.1.0"), reason="no hash is known")
    around = dataclasses.replace(WELL, installed=lambda: lost)
    assert checks(here, around)["installation"].state == "right", "nothing to renew"
    around = dataclasses.replace(around, workflows=lambda: {"main.yml": "jobs: {}"})
    found = checks(here, around)["installation"]
    assert found.state == "warning"
    assert "no hash is known" in found.detail
    assert "workflows.mlship" in found.hint


def test_another_distribution_that_provides_the_module_is_wrong(here: World) -> None:
    both = msgspec.structs.replace(HERE, others=("mlship",))
    found = checks(here, dataclasses.replace(WELL, installed=lambda: both))["installation"]
    assert (found.state, found.exit_code) == ("wrong", 2)
    assert found.detail == "mlship also provides the module or the command mlship"
    assert found.hint.startswith("pip uninstall mlship; then pip install -e")


def test_lines_that_do_not_verifiably_install_this_mlship_are_wrong(here: World) -> None:
    workflow = {".github/workflows/main.yml": "run: pip install 'mlship[all]==0.1.0'\n"}
    around = dataclasses.replace(WELL, workflows=lambda: workflow)
    found = checks(here, around)["installation"]
    assert found.state == "wrong"
    assert found.detail.startswith(".github/workflows/main.yml installs an unrelated package")
    setting = WorkflowsConfig(mlship="git+https://example.org/mlship@main")
    assert "branches and tags can move" in checks(here, workflows=setting)["installation"].detail
    (here.pipeline.root / "requirements.txt").write_text("pandas\nmlship[all]\n")
    found = checks(here)["installation"]
    assert found.state == "wrong"
    assert found.detail.startswith("requirements.txt:2: ")


@pytest.mark.parametrize(
    ("name", "failing"),
    [("registry", "registry"), ("engine", "engine"), ("GitHub", "forge")],
)
def test_a_fault_is_told_with_the_next_action_and_ends_no_other_look(
    here: World, name: str, failing: str
) -> None:
    def fail(_: str = "") -> NoReturn:
        raise UnavailableError("it is silent", hint="start it")

    around = dataclasses.replace(WELL, **{failing: fail})
    found = checks(here, around, targets=CLUSTERS)
    one = found[name]
    assert (one.state, one.detail, one.hint, one.exit_code) == (
        "wrong",
        "it is silent",
        "start it",
        4,
    )
    assert [other.name for other in found.values() if other.state == "wrong"] == [name]


def test_a_cluster_that_lacks_something_is_wrong_and_the_other_is_not(here: World) -> None:
    def cluster(name: str) -> str:
        if name == "production":
            raise NotFoundError("no namespace iris", hint="`kubectl create namespace iris`")
        return "context staging lets us"

    found = checks(here, dataclasses.replace(WELL, cluster=cluster), targets=CLUSTERS)
    assert found["target production"].hint == "`kubectl create namespace iris`"
    assert found["target staging"].detail == "context staging lets us; nothing is deployed yet"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"targets": LOCAL}, "right"),
        ({"targets": LOCAL | {"staging": CLUSTER}}, "right"),
        ({"targets": LOCAL | {"production": CLUSTER}}, "warning"),
        (
            {
                "targets": CLUSTERS,
                "observations": ObservationsConfig(kind="postgres", url="postgresql://db/iris"),
            },
            "right",
        ),
    ],
)
def test_predictions_that_go_with_their_pods_are_warned_of(
    here: World, changes: dict[str, Any], state: str
) -> None:
    found = checks(here, **changes)["observations"]
    assert found.state == state
    assert ("PostgreSQL" in found.hint) == (state == "warning")
    assert found.exit_code == 0


@pytest.mark.parametrize(
    ("environment", "remote", "said"),
    [
        ({}, "", ""),
        ({}, "git@gitlab.com:ada/iris.git\n", ""),
        ({}, "https://github.com.example.org/ada/iris", ""),
        ({}, "git@github.com:ada/iris.git\n", "repository ada/iris; GITHUB_TOKEN is not"),
        ({}, "https://github.com/ada/iris", "repository ada/iris; GITHUB_TOKEN is not"),
        ({}, "ssh://git@github.com/ada/iris.git/", "repository ada/iris; GITHUB_TOKEN is not"),
        (
            {"GITHUB_TOKEN": "t"},
            "git@github.com:ada/i.ris.git",
            "repository ada/i.ris, GITHUB_TOKEN is set",
        ),
        ({"GITHUB_REPOSITORY": "a/b"}, "", "repository a/b; GITHUB_TOKEN is not"),
        ({"GITHUB_REPOSITORY": "a/b", "GITHUB_TOKEN": " "}, "", "repository a/b; GITHUB_TOKEN is"),
        ({"GITHUB_TOKEN": "t"}, "", ""),
    ],
)
def test_github_is_told_of_where_it_is_in_sight(
    environment: Mapping[str, str], remote: str, said: str
) -> None:
    found = look(environment, remote)
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


def test_a_registry_is_asked_as_one_who_would_push_and_nothing_is_written(
    fake: FakeRegistry, tmp_path: Path
) -> None:
    project = Project(tmp_path, fake)
    assert project.registries.reach() == "localhost:5000/iris answers and has nothing yet"
    fake.manifests["iris"] = {"one": (b"{}", "application/json")}
    assert project.registries.reach() == "localhost:5000/iris answers"
    assert set(fake.requests) == {"GET"}


def test_a_registry_that_wants_a_password_is_asked_for_the_right_to_push(
    fake: FakeRegistry, tmp_path: Path
) -> None:
    fake.password = "secret"
    with pytest.raises(UnavailableError, match="denied the push to iris") as caught:
        Project(tmp_path, fake).registries.reach()
    assert "docker login" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, text="<html>"), "is not a container registry"),
        (httpx.Response(200, json=["tags"]), "is not a container registry"),
        (httpx.Response(200, content=b'{"tags": ["\xff"]}'), "is not a container registry"),
        (httpx.Response(503), "answered 503"),
    ],
)
def test_what_is_no_registry_is_told_at_once(
    tmp_path: Path, answer: httpx.Response, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[httpx.Request] = []

    def server(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer

    fake = FakeRegistry()
    monkeypatch.setattr(FakeRegistry, "transport", httpx.MockTransport(server))
    with pytest.raises(UnavailableError, match=said):
        Project(tmp_path, fake).registries.reach()
    assert len(asked) == 1


def test_a_registry_that_is_down_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(FakeRegistry, "transport", httpx.MockTransport(server))
    project = Project(tmp_path, FakeRegistry())
    with pytest.raises(UnavailableError, match="connection refused"):
        project.registries.reach()
    assert not project.waits


def test_a_gate_on_a_metric_that_no_task_has_is_wrong(here: World) -> None:
    found = checks(here, gates=GatesConfig(test={"acuracy": Bound(min=0.9)}))["data and code"]
    assert (found.state, found.exit_code) == ("wrong", 2)
    assert found.hint == "did you mean accuracy?"


def test_what_a_clone_does_not_have_is_a_warning(here: World) -> None:
    assert checks(here)["data and code"].state == "right"
    around = dataclasses.replace(WELL, ignored=lambda: ("mlship.yaml", "data/train.csv"))
    found = checks(here, around)["data and code"]
    assert found.state == "warning"
    assert "git ignores mlship.yaml, data/train.csv, which a clone does not have" in found.detail
    assert ".gitignore" in found.hint


def test_a_state_that_other_users_may_enter_is_told(here: World) -> None:
    state = here.pipeline.state
    state.mkdir()
    state.chmod(0o755)
    found = checks(here, targets=LOCAL)["observations"]
    assert (found.state, found.hint) == ("warning", f"chmod 700 {state}")
    assert found.detail == f"0 outcomes; other users of this machine may enter {state} (0755)"
    state.chmod(0o700)
    assert checks(here, targets=LOCAL)["observations"].state == "right"


def test_a_stream_is_checked_where_the_project_has_one(here: World) -> None:
    def fail() -> str:
        raise NotFoundError("topic in does not exist at one:9092", hint="create it")

    stream = StreamConfig(brokers="one:9092", input="in", output="out")
    found = checks(here, dataclasses.replace(WELL, stream=fail), stream=stream)
    assert found["stream"].detail == "topic in does not exist at one:9092"
    assert found["stream"].exit_code == 5
    assert "stream" not in checks(here)
