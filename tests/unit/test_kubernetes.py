"""The pure half of the cluster target: objects, the route, reasons, errors, access."""

import ssl
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door
from mlship.adapters.http.retries import Timing
from mlship.adapters.targets.kubernetes import (
    access_review,
    faults,
    manifests,
    pod_status,
    routing,
    waiting,
)
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import Api, door
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.pod_status import (
    Fault,
    is_rolled_out,
    of_deployment,
    of_pod,
)
from mlship.config.layers import from_yaml, resolve
from mlship.config.project import TargetConfig
from mlship.config.targets import AutoscaleConfig, GkeConfig, KubernetesConfig
from mlship.domain.deployment import Artifact, Split, slot_of
from mlship.domain.digests import Digest
from mlship.errors import (
    ConfigError,
    ConflictError,
    CredentialsError,
    IntegrityError,
    MlshipError,
    NotFoundError,
    UnavailableError,
)
from tests.harness.samples import release

TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nobody connects: to read all certificates of the system takes longer than a test."""

GKE = GkeConfig(project="iris-1", location="europe-west1", cluster="staging")
ONE, TWO = slot_of(release("one")), slot_of(release("two"))
SCOPE = Scope(project="iris", target="staging")
DIGEST = Digest("sha256:" + "a" * 64)
IMAGE = Artifact(kind="image", digest=DIGEST, location=f"registry.example/iris@{DIGEST}")


def behind(**settings: Any) -> KubernetesConfig:
    """Return the settings of a target behind a Gateway."""
    return KubernetesConfig(**{"gateway": "gateway/gateway", **settings})


def rendered(replicas: int = 2, **settings: Any) -> dict[str, dict[str, Any]]:
    config = TargetConfig(kind="kubernetes", kubernetes=behind(**settings))
    made = manifests.render(SCOPE, config, release("one"), IMAGE, ONE, replicas)
    return {one["kind"]: one for one in made}


def container(**settings: Any) -> dict[str, Any]:
    pod = rendered(**settings)["Deployment"]["spec"]["template"]["spec"]
    found: dict[str, Any] = pod["containers"][0]
    return found


def test_a_pod_is_nobody_and_can_write_to_its_volumes_only() -> None:
    pod = rendered()["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    secured = pod["containers"][0]["securityContext"]
    assert secured["readOnlyRootFilesystem"] is True
    assert secured["allowPrivilegeEscalation"] is False
    assert secured["capabilities"] == {"drop": ["ALL"]}
    assert [one["emptyDir"] for one in pod["volumes"]] == [{}, {}]


def test_a_pod_has_time_to_drain_before_it_is_killed() -> None:
    pod = rendered(prestop_seconds=7)["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    assert pod["terminationGracePeriodSeconds"] > 7 + TargetConfig().drain_seconds


def test_the_autoscaler_agrees_with_the_number_of_replicas() -> None:
    scaled = rendered(3)["HorizontalPodAutoscaler"]["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (3, 3)
    scaled = rendered(2, max_replicas=8)["HorizontalPodAutoscaler"]["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (2, 8)
    (measure,) = scaled["metrics"]
    assert measure["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}


def test_the_autoscaler_scales_by_requests_in_flight_where_a_metric_is_named() -> None:
    by_cpu = rendered(2, max_replicas=8, autoscale=AutoscaleConfig(cpu_percent=50))
    (measure,) = by_cpu["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert measure["resource"]["target"]["averageUtilization"] == 50
    in_flight = AutoscaleConfig(metric="requests_in_flight", in_flight=4)
    by_metric = rendered(2, max_replicas=8, autoscale=in_flight)
    assert by_metric["HorizontalPodAutoscaler"]["spec"]["metrics"] == [
        {
            "type": "Pods",
            "pods": {
                "metric": {"name": "requests_in_flight"},
                "target": {"type": "AverageValue", "averageValue": "4"},
            },
        }
    ]


def test_a_secret_may_say_where_predictions_go() -> None:
    named = {one["name"] for one in container()["env"]}
    assert named == {"MLSHIP_LOG", "MLSHIP_METRICS_PORT", "MLSHIP_SLOT"}
    own = container(env_from_secret="database", env={"A": "1"})
    assert [one["name"] for one in own["env"]] == ["A", "MLSHIP_METRICS_PORT", "MLSHIP_SLOT"]
    assert own["env"][-1]["value"] == ONE
    assert own["envFrom"] == [{"secretRef": {"name": "database"}}]


def test_api_keys_are_a_file_of_a_secret_without_which_a_server_does_not_start() -> None:
    made = rendered(api_keys_secret="iris-api-keys")
    pod = made["Deployment"]["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if "secret" in each]
    assert volume["secret"] == {"secretName": "iris-api-keys", "optional": True}
    (server,) = pod["containers"]
    (mount,) = [each for each in server["volumeMounts"] if each["name"] == volume["name"]]
    assert mount["readOnly"], "and no subPath, which would not follow the Secret"
    assert set(mount) == {"name", "mountPath", "readOnly"}
    assert server["args"] == ["--api-keys", f"{mount['mountPath']}/api-keys.json"]
    assert "args" not in container()


def test_settings_of_replicas_are_told_to_the_server_where_they_are_set() -> None:
    config = TargetConfig(
        kind="kubernetes",
        kubernetes=behind(env={"A": "1"}),
        workers=4,
        timeout_seconds=2.5,
        cache_rows=9,
    )
    made = manifests.render(SCOPE, config, release("one"), IMAGE, ONE, 2)
    (server,) = made[-1]["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in server["env"]}
    own = [variables[f"MLSHIP_{name}"] for name in ("WORKERS", "TIMEOUT", "CACHE_ROWS")]
    assert own == ["4", "2.5", "9"]
    kept = container(env={"MLSHIP_WORKERS": "2"})["env"]
    assert {"name": "MLSHIP_WORKERS", "value": "2"} in kept
    assert not any(one["name"] == "MLSHIP_WORKERS" for one in container()["env"])


def test_metrics_have_a_port_that_no_service_has() -> None:
    ports = {one["name"]: one["containerPort"] for one in container()["ports"]}
    variables = {one["name"]: one["value"] for one in container()["env"]}
    assert variables["MLSHIP_METRICS_PORT"] == str(ports["metrics"])
    assert [one["targetPort"] for one in rendered()["Service"]["spec"]["ports"]] == ["http"]


def test_an_access_log_is_a_variable_of_the_pod() -> None:
    config = TargetConfig(kind="kubernetes", access_log="json")
    (server,) = manifests.render(SCOPE, config, release("one"), IMAGE, ONE, 2)[-1]["spec"][
        "template"
    ]["spec"]["containers"]
    assert {"name": "MLSHIP_ACCESS_LOG", "value": "json"} in server["env"]


@pytest.mark.parametrize(
    ("claim", "volume"),
    [
        (None, {"emptyDir": {"sizeLimit": "132M"}}),
        ("spools", {"persistentVolumeClaim": {"claimName": "spools"}}),
    ],
)
def test_a_pod_that_spools_has_a_volume_that_is_larger_than_a_full_spool(
    claim: str | None, volume: dict[str, Any]
) -> None:
    config = TargetConfig(kind="kubernetes", kubernetes=behind(spool_claim=claim))
    made = manifests.render(SCOPE, config, release("one"), IMAGE, ONE, 2, spool_mb=100)
    pod = made[-1]["spec"]["template"]["spec"]
    assert pod["volumes"][-1] == {"name": "spool", **volume}
    (server,) = pod["containers"]
    mount = server["volumeMounts"][-1]
    assert mount["name"] == "spool"
    variables = {one["name"]: one["value"] for one in server["env"]}
    assert variables["MLSHIP_SPOOL"] == mount["mountPath"]
    assert variables["MLSHIP_SPOOL_MB"] == "100"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            TargetConfig(kind="gke", gke=GKE, kubernetes=behind()),
            ["HealthCheckPolicy", *manifests.KINDS],
        ),
        (TargetConfig(kind="gke", gke=GKE), [*manifests.KINDS]),
        (
            TargetConfig(
                kind="gke",
                gke=msgspec.structs.replace(GKE, health_check_policy=False),
                kubernetes=behind(),
            ),
            [*manifests.KINDS],
        ),
        (TargetConfig(kind="kubernetes"), [*manifests.KINDS]),
    ],
)
def test_only_googles_gateways_are_told_what_to_ask_the_pods(
    settings: TargetConfig, expected: list[str]
) -> None:
    made = manifests.render(SCOPE, settings, release("one"), IMAGE, ONE, 1)
    assert [one["kind"] for one in made] == expected == [*manifests.kinds(settings)]
    assert {one["metadata"]["name"] for one in made} == {SCOPE.object(ONE)}


@pytest.mark.parametrize("target", ["staging", "a-target-with-a-name-of-forty-characters"])
def test_every_name_and_label_is_short_enough(target: str) -> None:
    scope = Scope(project="p" * 40, target=target)
    config = TargetConfig(kind="kubernetes")
    for one in manifests.render(scope, config, release("one"), IMAGE, ONE, 1):
        metadata = one["metadata"]
        for text in (metadata["name"], *metadata["labels"].values()):
            assert len(text) <= 63
    other = Scope(project="p" * 40, target=target[:-1] + "x")
    assert scope.object(ONE) != other.object(ONE)


def test_the_files_are_yaml_that_reads_back() -> None:
    config = TargetConfig(kind="kubernetes")
    made = manifests.render(SCOPE, config, release("one"), IMAGE, ONE, 1)
    files = manifests.files(made)
    assert [yaml.safe_load(text) for text in files.values()] == made
    assert not any("&id" in text for text in files.values())
    assert next(iter(files)) == f"1-service-iris-staging-{ONE}.yaml"


@pytest.mark.parametrize(
    "artifact",
    [
        Artifact(kind="bundle", digest=DIGEST, location="/bundles/a"),
        Artifact(kind="image", digest=DIGEST, location="registry.example/iris:latest"),
    ],
)
def test_only_images_by_digest_are_run(artifact: Artifact) -> None:
    with pytest.raises(ConfigError, match="by digest"):
        manifests.render(SCOPE, TargetConfig(), release("one"), artifact, ONE, 1)


def as_written(split: Split, parked: frozenset[Any] = frozenset(), **settings: Any) -> Any:
    made = routing.written(SCOPE, behind(**settings), None, split, parked)
    made["metadata"] |= {"uid": "0123456789", "generation": 1}
    return made


@pytest.mark.parametrize(
    "split",
    [
        Split(weights={ONE: 100}),
        Split(weights={ONE: 90, TWO: 10}),
        Split(weights={ONE: 100, TWO: 0}),
        Split(weights={ONE: 100}, shadow=TWO),
    ],
)
def test_a_split_is_read_back_as_it_was_written(split: Split) -> None:
    parked = frozenset({TWO})
    found = routing.read(SCOPE, as_written(split, parked, path="/iris", host="iris.example"))
    assert found.split == split
    assert found.slots == {ONE, TWO}


def test_a_parked_slot_stays_in_the_route_without_traffic() -> None:
    made = as_written(Split(weights={ONE: 100}), frozenset({TWO}))
    backends = made["spec"]["rules"][0]["backendRefs"]
    assert [(one["name"], one["weight"]) for one in backends] == [
        (SCOPE.object(ONE), 100),
        (SCOPE.object(TWO), 0),
    ]


def test_what_others_wrote_into_the_route_is_kept() -> None:
    before = as_written(Split(weights={ONE: 100}))
    before["metadata"]["annotations"]["dns.example/ttl"] = "60"
    before["metadata"]["resourceVersion"] = "7"
    after = routing.written(SCOPE, behind(), before, Split(weights={TWO: 100}), frozenset({ONE}))
    assert after["metadata"]["annotations"]["dns.example/ttl"] == "60"
    assert after["metadata"]["resourceVersion"] == "7"


def test_the_route_of_another_project_is_refused_whatever_is_done_with_it() -> None:
    ada = msgspec.structs.replace(SCOPE, home="github.com/ada/iris")
    bob = msgspec.structs.replace(SCOPE, home="github.com/bob/iris")
    split = Split(weights={ONE: 100})
    unmarked = as_written(split)
    assert routing.read(ada, unmarked).split == split
    made = routing.written(ada, behind(), unmarked, split, frozenset())
    assert routing.read(ada, made).split == split
    with pytest.raises(ConflictError, match=r"HTTPRoute iris-staging.*ada/iris.*bob/iris"):
        routing.read(bob, made)


@pytest.mark.parametrize(
    ("settings", "is_taken"),
    [
        ({}, True),
        ({"path": "/fraud"}, False),
        ({"host": "fraud.example"}, False),
        ({"gateway": "others/gateway"}, False),
    ],
)
def test_a_route_takes_an_address_with_its_gateway_host_and_path(
    settings: dict[str, Any], is_taken: bool
) -> None:
    other = as_written(Split(weights={ONE: 100}))
    assert routing.takes(other, behind(**settings)) is is_taken
    named = as_written(Split(weights={ONE: 100}), host="a.example", path="/a")
    assert routing.takes(named, behind(host="a.example", path="/a"))
    assert not routing.takes(named, behind(path="/a"))


@pytest.mark.parametrize("weights", [(60, 60), (-1, 101)])
def test_a_route_that_is_no_split_is_refused(weights: tuple[int, int]) -> None:
    made = as_written(Split(weights={ONE: 90, TWO: 10}))
    for one, weight in zip(made["spec"]["rules"][0]["backendRefs"], weights, strict=True):
        one["weight"] = weight
    with pytest.raises(IntegrityError, match="HTTPRoute iris-staging"):
        routing.read(SCOPE, made)


def test_a_verdict_from_before_the_change_is_none() -> None:
    made = as_written(Split(weights={ONE: 100}))
    made["metadata"]["generation"] = 2

    def told(generation: int, status: str) -> Any:
        conditions = [
            {
                "type": kind,
                "status": status,
                "observedGeneration": generation,
                "reason": "UnsupportedValue",
                "message": "no mirrors",
            }
            for kind in ("Accepted", "ResolvedRefs")
        ]
        parent = {"parentRef": {"namespace": "gateway", "name": "gateway"}}
        return made | {"status": {"parents": [parent | {"conditions": conditions}]}}

    config = behind()
    assert routing.verdict(made, config) is False
    assert routing.verdict(told(1, "True"), config) is False
    assert routing.verdict(told(2, "True"), config) is True
    assert "no mirrors" in str(routing.verdict(told(2, "False"), config))
    assert routing.verdict(told(2, "True"), behind(gateway="other/one")) is False


def test_a_status_from_before_the_change_is_not_ready() -> None:
    counts = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    deployment = {
        "metadata": {"generation": 4},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 3, **counts},
    }
    assert not is_rolled_out(deployment)
    deployment["status"] = {"observedGeneration": 4, **counts}
    assert is_rolled_out(deployment)
    deployment["status"] = {"observedGeneration": 4, **counts, "updatedReplicas": 1}
    assert not is_rolled_out(deployment)


def pod(state: dict[str, Any], restarts: int = 0, **more: Any) -> dict[str, Any]:
    one = {"image": "iris", "restartCount": restarts, "state": state, **more}
    return {"metadata": {"name": "iris-1"}, "status": {"containerStatuses": [one]}}


def held(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def test_restarts_of_pods_are_counted_with_the_reason_of_the_last() -> None:
    running: dict[str, Any] = {"running": {}}
    pods = [pod(running), pod(running, 2, lastState=KILLED), pod(running, 1, lastState={})]
    assert sum(map(pod_status.restarts, pods)) == 3
    assert list(pod_status.last_ends(pods)) == ["pod iris-1 ended with code 137 (OOMKilled)"]
    assert list(pod_status.last_ends([{"metadata": {"name": "new"}}])) == []


ENDED = {"terminated": {"exitCode": 3, "reason": "Error", "message": "no such column\n"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.mark.parametrize(
    ("found", "fault", "words", "is_final"),
    [
        (pod(held("ErrImagePull", "iris: not found")), "image", "not found", True),
        (pod(held("ImagePullBackOff", "i/o timeout")), "fetch", "i/o timeout", False),
        (pod(held("CreateContainerConfigError", "no secret")), "settings", "no secret", True),
        (
            pod(held("CreateContainerConfigError", "failed to sync secret cache: timed out")),
            "settings",
            "failed to sync",
            False,
        ),
        (pod(ENDED), "crash", "exit code 3:\n  | no such column", False),
        (
            pod(held("ErrImagePull", "failed to authorize: 401 Unauthorized")),
            "pull",
            "401",
            True,
        ),
        (
            pod(held("ImagePullBackOff", "pull access denied, repository does not exist")),
            "pull",
            "access denied",
            True,
        ),
        (pod(held("CrashLoopBackOff"), 2, lastState=ENDED), "crash", "no such column", True),
        (pod({"running": {}}, 2, lastState=ENDED), "crash", "no such column", False),
        (pod(KILLED), "memory", "more memory", True),
        (pod({"running": {}}), "probe", "not ready", False),
    ],
)
def test_the_reason_is_told_and_whether_waiting_helps(
    found: dict[str, Any], fault: str, words: str, is_final: bool
) -> None:
    trouble = of_pod(found)
    assert trouble is not None
    assert (trouble.fault, trouble.is_final) == (fault, is_final)
    assert words in trouble.text


def test_the_output_of_a_pod_is_told_from_the_words_of_the_command() -> None:
    said = "mlship: started\nerror: the model cannot be loaded\n next: see its output above\n"
    ended = {"terminated": {"exitCode": 6, "message": said}}
    trouble = of_pod(pod(held("CrashLoopBackOff"), 2, lastState=ended))
    assert trouble is not None
    assert trouble.text.splitlines() == [
        "it keeps exiting, with exit code 6:",
        "  | mlship: started",
        "  | error: the model cannot be loaded",
        "  |  next: see its output above",
    ]


NAMED = "reg.example:5000/forbidden/authorization-model:1@sha256:" + "a" * 64
MANIFEST = "https://reg.example:5000/v2/forbidden/authorization-model/manifests/1"


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (f'failed to do request: Head "{MANIFEST}": dial tcp: i/o timeout', "fetch"),
        (f"failed to do request: Head {MANIFEST}: dial tcp: i/o timeout", "fetch"),
        (f'failed to resolve reference "{NAMED}": {NAMED}: not found', "image"),
        (f"manifest for {NAMED} not found: manifest unknown", "image"),
        ("initializing source docker://forbidden/authorization-model:1: i/o timeout", "fetch"),
        ("no such host: /forbidden/authorization-model", "fetch"),
        (f'unexpected status from HEAD request to "{MANIFEST}": 403 Forbidden', "pull"),
        (f'failed to resolve "{NAMED}": authorization failed: no basic auth', "pull"),
        ("access to authorization-model-2 was refused: unauthorized", "pull"),
    ],
)
def test_the_name_of_an_image_is_no_reason(message: str, fault: str) -> None:
    found = pod(held("ImagePullBackOff", message))
    found["status"]["containerStatuses"][0]["image"] = NAMED
    trouble = of_pod(found)
    assert trouble is not None
    assert (trouble.fault, trouble.is_final) == (fault, fault != "fetch")
    assert message in trouble.text


def test_a_pod_that_is_being_made_or_ready_has_no_trouble() -> None:
    assert of_pod(pod(held("ContainerCreating"))) is None
    ready = pod({"running": {}})
    ready["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert of_pod(ready) is None


def test_the_gravest_trouble_is_told_first() -> None:
    deployment: dict[str, Any] = {"metadata": {}, "status": {}}
    trouble = of_deployment(deployment, [pod({"running": {}}), pod(KILLED)])
    assert trouble is not None
    assert trouble.fault == "memory"
    message = "pods is forbidden: exceeded quota: small"
    failed = {"type": "ReplicaFailure", "status": "True", "message": message}
    deployment["status"]["conditions"] = [failed]
    trouble = of_deployment(deployment, [])
    assert trouble is not None
    assert trouble.is_final
    assert "exceeded quota" in trouble.text


ENDING = (
    'pods "a" is forbidden: unable to create new content in namespace iris because it is being '
    "terminated"
)


@pytest.mark.parametrize(
    ("message", "fault", "is_final", "hint"),
    [
        ('pods "a" is forbidden: exceeded quota: small', "quota", True, "more quota"),
        (
            'pods "a" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
            "quota",
            True,
            "request less",
        ),
        (ENDING, "namespace", True, "create it with its Role"),
        (
            'pods "a" is forbidden: violates PodSecurity "restricted:latest": seccompProfile',
            "policy",
            True,
            "allow these pods",
        ),
        ('admission webhook "a.b.c" denied the request: sign it', "policy", True, "allow these"),
        (
            "ValidatingAdmissionPolicy 'a' with binding 'a' denied request: sign it",
            "policy",
            True,
            "allow these pods",
        ),
        (
            'pods "a" is forbidden: error looking up service account iris/default: not found',
            "creation",
            False,
            "kubectl describe replicaset",
        ),
        (
            'Internal error occurred: failed calling webhook "a.b.c": connection refused',
            "creation",
            False,
            "kubectl describe replicaset",
        ),
    ],
)
def test_what_keeps_pods_from_being_created_has_a_next_step_of_its_own(
    message: str, fault: Fault, is_final: bool, hint: str
) -> None:
    failed = {"type": "ReplicaFailure", "status": "True", "message": message}
    trouble = of_deployment({"metadata": {}, "status": {"conditions": [failed]}}, [])
    assert trouble is not None
    assert (trouble.fault, trouble.is_final) == (fault, is_final)
    assert message in trouble.text
    assert hint in waiting.HINTS[trouble.fault]


def answer(code: int, message: str = "", reason: str = "Failure") -> httpx.Response:
    if not message:
        return httpx.Response(code, text="404 page not found\n")
    return httpx.Response(code, json={"message": message, "reason": reason})


@pytest.mark.parametrize(
    ("given", "what", "kind", "words"),
    [
        (answer(401, "Unauthorized"), "Pod a", CredentialsError, "the credentials"),
        (
            answer(403, 'pods is forbidden: User "system:anonymous" cannot list resource "pods"'),
            "Pods",
            CredentialsError,
            "the credentials",
        ),
        (
            answer(
                403,
                'pods is forbidden: User "ada" cannot list resource "pods" in API group "" in the '
                'namespace "iris"',
            ),
            "Pods",
            UnavailableError,
            "forbids ada to list pods in namespace iris",
        ),
        (
            answer(
                403,
                'httproutes.gateway.networking.k8s.io "a" is forbidden: User "ada" cannot patch '
                'resource "httproutes" in API group "gateway.networking.k8s.io" in the namespace '
                '"iris"',
            ),
            "HTTPRoute a",
            UnavailableError,
            "ada to patch httproutes.gateway.networking.k8s.io in namespace iris",
        ),
        (
            answer(404, 'namespaces "iris" not found'),
            "Service a",
            NotFoundError,
            "no namespace iris",
        ),
        (answer(403, ENDING), "ConfigMap a", UnavailableError, "namespace iris is being deleted"),
        (answer(404), "HTTPRoute a", UnavailableError, "no Gateway API"),
        (answer(409, "the object has been modified"), "Lease a", ConflictError, "modified"),
        (answer(422, "memory: Invalid value"), "Deployment a", ConfigError, "Invalid value"),
        (answer(500, "etcdserver: timeout"), "Deployment a", UnavailableError, "etcdserver"),
    ],
)
def test_an_answer_of_the_server_is_an_error_with_a_next_step(
    given: httpx.Response, what: str, kind: type[MlshipError], words: str
) -> None:
    error = faults.refused(given, "context staging", what, what.partition(" ")[0])
    assert type(error) is kind
    assert error.message.startswith("context staging")
    assert words in error.message
    assert error.hint


def door_to(
    server: Callable[[httpx.Request], httpx.Response], pause: Callable[[float], None]
) -> Door:
    client = open_client(Reach(transport=httpx.MockTransport(server)), base_url="https://a")
    return door(client, "context a", Timing(pause=pause, chance=lambda: 0.0))


class Server:
    """Answers what it is told to, in turn, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.waits: list[float] = []
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def api(self) -> Api:
        reached = Access(name="context a", server="https://a", trust=TRUST)
        return Api(door_to(self, self.waits.append), reached, "iris")


def thing(kind: str = "Pod", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": "v1", "metadata": {"name": "a"}, **fields}


def busy(seconds: str) -> httpx.Response:
    return httpx.Response(429, headers={"Retry-After": seconds}, json={"message": "busy"})


def test_a_busy_server_is_asked_again() -> None:
    server = Server(busy("7"), httpx.ReadError("reset"), httpx.Response(200, json=thing()))
    assert server.api().get("Pod", "a") == thing()
    assert len(server.asked) == 3
    assert server.waits == [7.0, 0.0]


def test_what_a_pod_answers_through_the_server_is_its_answer() -> None:
    server = Server(httpx.Response(503, text="draining"))
    assert server.api().text("iris-1", "proxy/metrics") == "draining"
    assert len(server.asked) == 1


def test_what_the_server_puts_off_was_not_made_and_is_sent_again() -> None:
    server = Server(busy("1"), httpx.Response(201, json=thing("Lease")))
    assert server.api().create({"kind": "Lease", "metadata": {"name": "a"}}) == thing("Lease")


def test_what_would_be_made_twice_is_not_sent_twice() -> None:
    server = Server(httpx.ReadError("reset"))
    with pytest.raises(UnavailableError, match="does not answer"):
        server.api().create({"kind": "Lease", "metadata": {"name": "a"}})
    assert len(server.asked) == 1


def route_of(share: int, holder: str = "7", version: str = "41", **metadata: str) -> dict[str, Any]:
    marks = {"resourceVersion": version, "annotations": {"mlship.dev/fence": holder}, **metadata}
    return thing("ConfigMap", data={"share": share}) | {"metadata": {"name": "a", **marks}}


def conflict() -> httpx.Response:
    return httpx.Response(409, json={"kind": "Status", "message": "modified"})


def test_a_write_whose_answer_was_lost_conflicts_with_nobody() -> None:
    stored = route_of(20, version="42", uid="u", generation="2")
    server = Server(httpx.ReadError("reset"), conflict(), httpx.Response(200, json=stored))
    assert server.api().replace(route_of(20)) == stored
    assert [request.method for request in server.asked] == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize("stored", [route_of(10, version="42"), route_of(20, holder="8")])
def test_a_write_of_others_after_a_lost_answer_is_a_conflict(stored: dict[str, Any]) -> None:
    server = Server(httpx.ReadError("reset"), conflict(), httpx.Response(200, json=stored))
    with pytest.raises(ConflictError, match="modified"):
        server.api().replace(route_of(20))


def test_a_write_that_was_sent_once_conflicts_without_a_look() -> None:
    server = Server(conflict())
    with pytest.raises(ConflictError, match="modified"):
        server.api().replace(route_of(20))
    assert len(server.asked) == 1


def test_a_silent_server_is_asked_once() -> None:
    server = Server(httpx.ConnectTimeout("timed out"))
    with pytest.raises(UnavailableError, match="timed out"):
        server.api().get("Pod", "a")


def test_a_password_in_the_servers_address_is_not_shown() -> None:
    given = "https://ada:s3cret@a"
    reached = Access(name="context a", server=given, trust=TRUST)
    for answer in (httpx.ConnectTimeout("timed out"), httpx.Response(200, json={})):
        api = Api(door_to(Server(answer), lambda _: None), reached, "iris")
        with pytest.raises(UnavailableError, match="https://a ") as caught:
            api.get("Pod", "a")
        assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"


def test_objects_are_applied_by_the_server_under_our_name() -> None:
    server = Server(httpx.Response(200, json=thing("Service")))
    server.api().apply({"kind": "Service", "metadata": {"name": "a"}})
    (asked,) = server.asked
    assert asked.headers["content-type"] == "application/apply-patch+yaml"
    assert asked.url.params["fieldManager"] == "mlship"
    assert asked.url.path == "/api/v1/namespaces/iris/services/a"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"kind": "\xff"}',
        msgspec.json.encode(thing(kind="")),
        msgspec.json.encode(thing(metadata=None)),
        msgspec.json.encode(thing(items=[{}], status=[])),
    ],
    ids=lambda body: repr(body[:60]),
)
def test_what_is_no_object_of_the_api_is_told_as_another_server(body: bytes) -> None:
    lease = {"kind": "Lease", "metadata": {"name": "a"}}
    asks: list[Callable[[Api], object]] = [
        lambda api: api.get("HTTPRoute", "a"),
        lambda api: api.list("Pod", {}),
        lambda api: api.apply(lease),
        lambda api: api.create(lease),
        lambda api: api.replace(lease),
        lambda api: api.may("Pod", "get", "iris"),
    ]
    for ask in asks:
        with pytest.raises(UnavailableError, match="https://a is not a Kubernetes API server"):
            ask(Server(httpx.Response(200, content=body)).api())
    with pytest.raises(UnavailableError):
        Server(httpx.Response(501, content=body)).api().get("Pod", "a")


@pytest.mark.parametrize(
    "fields",
    [{"metadata": {}}, {"metadata": {"name": "a", "labels": []}}, {"spec": 5}, {"status": "a"}],
)
def test_an_object_of_another_shape_is_told_as_another_server(fields: dict[str, Any]) -> None:
    for asked, found in (("get", thing(**fields)), ("list", thing(items=[thing(**fields)]))):
        api = Server(httpx.Response(200, json=found)).api()
        with pytest.raises(UnavailableError, match="is not a Kubernetes API server"):
            api.get("HTTPRoute", "a") if asked == "get" else api.list("HTTPRoute", {})


def test_settings_that_do_not_fit_together_are_refused() -> None:
    least = "name: iris\ndata: {train: a, test: b}\nmodel: {train: 'a:b'}\ntargets: {staging: {"
    gke = "gke: {project: p, location: l, cluster: c}"
    resolve([from_yaml(f"{least}kind: gke, {gke}}}}}", "mlship.yaml")])
    for text, words in (
        ("kind: gke", "gke"),
        (f"kind: kubernetes, {gke}", "gke"),
        ("kind: kubernetes, sticky_header: user, kubernetes: {gateway: a/b}", "sticky_header"),
        ("kind: kubernetes, port: 80", "port"),
        ("kind: kubernetes, replicas: 3, kubernetes: {max_replicas: 2}", "max_replicas"),
        ("kind: kubernetes, kubernetes: {autoscale: {cpu_percent: 50}}", "max_replicas"),
        ("kind: kubernetes, kubernetes: {max_replicas: 2, autoscale: {metric: a}}", "in_flight"),
        ("kind: kubernetes, kubernetes: {max_replicas: 2, autoscale: {in_flight: 2}}", "metric"),
        ("kind: kubernetes, kubernetes: {gateway: gateway}", "gateway"),
        ("kind: kubernetes, kubernetes: {path: iris}", "path"),
        ("kind: kubernetes, kubernetes: {memory: lots}", "memory"),
        ("kind: kubernetes, kubernetes: {cpu: 2 cores}", "cpu"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            resolve([from_yaml(f"{least}{text}}}}}", "mlship.yaml")])
        assert "targets.staging" in caught.value.message
        assert caught.value.hint


def test_a_manifest_is_the_same_each_time() -> None:
    assert msgspec.json.encode(rendered()) == msgspec.json.encode(rendered())


class Reviewed:
    """A cluster that allows all but some rights, and has a Gateway, or not."""

    def __init__(self, *denied: str, gateway: bool = True, namespace: bool = True) -> None:
        self.denied, self.gateway, self.namespace = denied, gateway, namespace
        self.written: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("selfsubjectaccessreviews"):
            asked = msgspec.json.decode(request.content)["spec"]["resourceAttributes"]
            right = f"{asked['verb']} {asked['resource']}.{asked['group']} in {asked['namespace']}"
            return httpx.Response(201, json=thing(status={"allowed": right not in self.denied}))
        if request.method != "GET" and request.url.params.get("dryRun") != "All":
            self.written.append(request.url.path)
        if not self.namespace:
            return answer(404, 'namespaces "iris" not found', "NotFound")
        if request.url.path.endswith("/gateways/gateway"):
            listener = {"listeners": [{"protocol": "HTTP", "port": 80}]}
            found = thing(spec=listener, status={"addresses": [{"value": "10.0.0.9"}]})
            missing = answer(404, "gateways not found", "NotFound")
            return httpx.Response(200, json=found) if self.gateway else missing
        if request.url.path.endswith(("-router", "/httproutes/iris-staging")):
            return answer(404, "not found", "NotFound")
        is_list = request.method == "GET"
        found = thing("List", metadata={}, items=[]) if is_list else thing()
        return httpx.Response(200, json=found)

    def review(self, gke: GkeConfig | None = None, settings: KubernetesConfig | None = None) -> str:
        reached = Access(name="context a", server="https://a", trust=TRUST)
        own = Api(door_to(self, lambda _: None), reached, "iris")
        return access_review.of(own, SCOPE, TargetConfig(gke=gke, kubernetes=settings or behind()))


def test_a_cluster_is_reviewed_and_nothing_is_written() -> None:
    server = Reviewed()
    assert (
        server.review() == "context a allows deployments to namespace iris; Gateway http://10.0.0.9"
    )
    assert not server.written


def test_each_right_that_is_missing_is_named() -> None:
    denied = (
        "patch deployments.apps in iris",
        "create services. in iris",
        "update leases.coordination.k8s.io in iris",
        "get gateways.gateway.networking.k8s.io in gateway",
    )
    with pytest.raises(UnavailableError) as caught:
        Reviewed(*denied).review()
    assert caught.value.message == (
        "context a forbids: patch deployments in iris; create services in iris; "
        "update leases in iris; get gateways in gateway"
    )
    assert "mlship guide kubernetes" in caught.value.hint


def test_the_rights_for_googles_load_balancers_are_asked_for_where_they_are_needed() -> None:
    denied = "patch healthcheckpolicies.networking.gke.io in iris"
    google = GkeConfig(project="my-project", location="europe-west1", cluster="one")
    Reviewed(denied).review()
    Reviewed(denied).review(msgspec.structs.replace(google, health_check_policy=False))
    with pytest.raises(UnavailableError, match="forbids: patch healthcheckpolicies in iris"):
        Reviewed(denied).review(google)


def test_a_target_without_a_gateway_needs_no_right_on_the_gateway_api() -> None:
    gateway = (
        "get httproutes.gateway.networking.k8s.io in iris",
        "get gateways.gateway.networking.k8s.io in gateway",
    )
    told = Reviewed(*gateway).review(settings=KubernetesConfig())
    assert told.endswith("namespace iris; load balancer comes with the first deployment")
    with pytest.raises(UnavailableError, match="forbids: patch pods in iris; get configmaps"):
        Reviewed("patch pods. in iris", "get configmaps. in iris").review(
            settings=KubernetesConfig()
        )


def test_a_namespace_or_a_gateway_that_is_missing_is_named() -> None:
    with pytest.raises(NotFoundError, match="no namespace iris"):
        Reviewed(namespace=False).review()
    with pytest.raises(NotFoundError, match="gateway/gateway"):
        Reviewed(gateway=False).review()
