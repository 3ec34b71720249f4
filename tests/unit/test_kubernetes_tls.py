"""TLS at the load balancer that mlship runs in a cluster: its objects, and the Secret it needs."""

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlship.adapters.targets.kubernetes import (
    access_review,
    reference,
    router,
    router_manifests,
    router_tls,
)
from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.config.project import TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain.tls import Certified
from mlship.errors import ConfigError, MlshipError, NotFoundError, UnavailableError
from tests.fakes.cluster import IMAGE, SCOPE, FakeApiServer, World, at_once
from tests.harness import certificates
from tests.harness.certificates import DAY
from tests.harness.places import Notes
from tests.harness.samples import release

SECRET = "iris-tls"
ONE, TWO = release("one"), release("two")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeApiServer:
    at_once(monkeypatch)
    return FakeApiServer("blue")


def settings(secret: str | None = SECRET, service: str = "LoadBalancer") -> TargetConfig:
    own: dict[str, Any] = {"namespace": "iris", "service": service}
    return TargetConfig(kind="kubernetes", kubernetes=KubernetesConfig(tls_secret=secret, **own))


def rendered(secret: str | None = SECRET) -> dict[str, Manifest]:
    made = router_manifests.render(SCOPE, settings(secret), IMAGE)
    return {each["kind"]: each for each in made}


def traffic(api: Api, secret: str | None = SECRET, **own: Any) -> router.Traffic:
    return router.Traffic(api, SCOPE, settings(secret, **own))


def deployed(api: Api, secret: str | None = SECRET) -> None:
    """Do what a deployment does with the load balancer."""
    own = traffic(api, secret)
    own.check()
    own.prepare(IMAGE, is_new=True)
    own.wait(Notes())


def ports_of(server: FakeApiServer) -> set[str]:
    spec = server.objects["services", "iris-production-router"]["spec"]
    return {f"{port['name']} {port['port']}" for port in spec["ports"]}


def test_the_service_has_the_port_of_https_alone() -> None:
    (port,) = rendered()["Service"]["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("https", 443, "https")
    (port,) = rendered(None)["Service"]["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("http", 80, "http")


def test_pods_mount_the_secret_and_the_file_that_leads_to_it() -> None:
    template = rendered()["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (volume,) = (each for each in template["spec"]["volumes"] if each["name"] == "tls")
    secret, file = volume["projected"]["sources"]
    assert (secret["secret"]["name"], "optional" in secret["secret"]) == (SECRET, False)
    assert volume["projected"]["defaultMode"] == 0o440
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "tls")
    assert mount["readOnly"] is True
    folder = mount["mountPath"]
    (item,) = file["downwardAPI"]["items"]
    assert router_tls.ANNOTATION in item["fieldRef"]["fieldPath"]
    (resource,) = json.loads(template["metadata"]["annotations"][router_tls.ANNOTATION])[
        "resources"
    ]
    own = resource["tls_certificate"]
    assert own["watched_directory"] == {"path": folder}
    assert own["certificate_chain"] == {"filename": f"{folder}/tls.crt"}
    assert own["private_key"] == {"filename": f"{folder}/tls.key"}
    listeners = bootstrap_of(container)
    for name in ("router", "start"):
        (chain,) = listeners[name]["filter_chains"]
        context = chain["transport_socket"]["typed_config"]["common_tls_context"]
        (source,) = context["tls_certificate_sds_secret_configs"]
        path = source["sds_config"]["path_config_source"]["path"]
        assert (source["name"], path) == (resource["name"], f"{folder}/{item['path']}")
    assert "transport_socket" not in listeners["probe"]["filter_chains"][0]


def bootstrap_of(container: Manifest) -> dict[str, Any]:
    text = container["args"][container["args"].index("--config-yaml") + 1]
    found = json.loads(text)["static_resources"]["listeners"]
    return {each["name"]: each for each in found}


def test_a_pod_without_a_certificate_that_works_never_starts() -> None:
    (container,) = rendered()["Deployment"]["spec"]["template"]["spec"]["containers"]
    names = {port["name"]: port["containerPort"] for port in container["ports"]}
    start = container["startupProbe"]["httpGet"]
    assert (start["scheme"], start["port"]) == ("HTTPS", "start")
    listener = bootstrap_of(container)["start"]["address"]["socket_address"]
    assert listener["port_value"] == names["start"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTP"
    (container,) = rendered(None)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["startupProbe"]["httpGet"]["scheme"] == "HTTP"
    assert set(bootstrap_of(container)) == {"router", "probe"}


def test_the_address_is_that_of_what_runs(server: FakeApiServer, tmp_path: Path) -> None:
    certificates.write(tmp_path)
    server.keep_certificate(tmp_path, SECRET)
    with server.connected() as api:
        deployed(api, None)
        assert traffic(api).endpoint().startswith("http://10.0.0."), "TLS is not deployed yet"
        deployed(api)
        assert traffic(api).endpoint().startswith("https://10.0.0.")
        assert traffic(api, None).endpoint().startswith("https://10.0.0.")
        deployed(api, None)
        assert traffic(api).endpoint().startswith("http://10.0.0.")


@pytest.mark.parametrize(("before", "after"), [(None, SECRET), (SECRET, None)])
def test_the_former_port_is_open_until_the_pods_are_replaced(
    server: FakeApiServer, tmp_path: Path, before: str | None, after: str | None
) -> None:
    certificates.write(tmp_path)
    server.keep_certificate(tmp_path, SECRET)
    with server.connected() as api:
        deployed(api, before)
        own = traffic(api, after)
        own.prepare(IMAGE, is_new=True)
        assert ports_of(server) == {"http 80", "https 443"}
        assert own.altered("") == []
        own.wait(Notes())
        assert ports_of(server) == ({"https 443"} if after else {"http 80"})
        assert own.altered("") == []


def test_a_failed_change_tells_the_scheme_of_the_pods_that_stay(
    server: FakeApiServer, tmp_path: Path
) -> None:
    certificates.write(tmp_path)
    server.keep_certificate(tmp_path, SECRET)
    with server.connected() as api:
        deployed(api, None)
        own = traffic(api)
        former = own.running()
        own.prepare(IMAGE, is_new=True)
        assert own.endpoint().startswith("https://")
        own.restore(former)
        assert own.endpoint().startswith("http://")


def test_a_mount_that_somebody_changed_is_drift(server: FakeApiServer, tmp_path: Path) -> None:
    certificates.write(tmp_path)
    server.keep_certificate(tmp_path, SECRET)
    with server.connected() as api:
        deployed(api)
        assert traffic(api).altered("") == []
        found = server.objects["deployments", "iris-production-router"]
        volumes = found["spec"]["template"]["spec"]["volumes"]
        volumes[-1]["projected"]["sources"][0]["secret"]["name"] = "other"
        altered = traffic(api).altered("")
    assert [each.slot for each in altered] == ["router"]
    assert reference.differences(found)[0].is_adoptable is False


@pytest.mark.parametrize(
    ("since", "until", "kind", "error", "says"),
    [
        (-2 * DAY, -DAY, "kubernetes.io/tls", ConfigError, "tls.crt of Secret iris-tls: .*expired"),
        (DAY, 2 * DAY, "kubernetes.io/tls", ConfigError, "not yet valid"),
        (-DAY, DAY, "Opaque", ConfigError, "is of type Opaque, not kubernetes.io/tls"),
        (-DAY, DAY, "", NotFoundError, "context blue has no Secret iris-tls in namespace iris"),
    ],
)
def test_a_certificate_that_clients_would_refuse_is_not_deployed(
    server: FakeApiServer,
    tmp_path: Path,
    since: timedelta,
    until: timedelta,
    kind: str,
    error: type[MlshipError],
    says: str,
) -> None:
    certificates.write(tmp_path, since=since, until=until)
    if kind:
        server.keep_certificate(tmp_path, SECRET, kind)
    with server.connected() as api:
        with pytest.raises(error, match=says) as refused:
            deployed(api)
        assert server.writes == []
    if error is NotFoundError:
        assert "create secret tls iris-tls" in refused.value.hint


def test_the_key_of_another_certificate_is_refused(server: FakeApiServer, tmp_path: Path) -> None:
    certificates.write(tmp_path)
    other = (tmp_path / "key.pem").read_bytes()
    certificates.write(tmp_path)
    (tmp_path / "key.pem").write_bytes(other)
    server.keep_certificate(tmp_path, SECRET)
    says = "tls.key of Secret iris-tls is not the key of tls.crt of Secret iris-tls"
    with server.connected() as api, pytest.raises(ConfigError, match=says):
        deployed(api)


def test_a_certificate_that_is_deployed_refuses_no_deployment(
    server: FakeApiServer, tmp_path: Path
) -> None:
    certificates.write(tmp_path)
    server.keep_certificate(tmp_path, SECRET)
    with server.connected() as api:
        deployed(api)
        for until, says in ((13 * DAY, "expires at"), (-DAY / 2, "certificate has expired")):
            certificates.write(tmp_path, until=until)
            server.keep_certificate(tmp_path, SECRET)
            own, notes = traffic(api), Notes()
            own.check()
            own.wait(notes)
            assert any("Secret iris-tls" in text and says in text for text in notes.lines)
        with pytest.raises(NotFoundError, match="Secret other"):
            traffic(api, "other").check()


def test_own_requests_trust_the_certificate_of_the_secret(
    server: FakeApiServer, tmp_path: Path
) -> None:
    certificates.write(tmp_path)
    server.keep_certificate(tmp_path, SECRET)
    with server.connected() as api:
        deployed(api)
        # The settings may name none any more, or another one: what runs decides.
        trust = router_tls.trust(api, traffic(api, None).running)
        assert trust().cert_store_stats()["x509"] == 1
        assert not trust().check_hostname
        assert trust().verify_mode == ssl.CERT_REQUIRED
        del server.objects["secrets", SECRET]
        assert trust().check_hostname, "without the Secret, it is the trust of the system"


def test_of_several_clusters_the_parents_has_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_once(monkeypatch)
    text = certificates.write(tmp_path, until=3 * DAY)
    world = World(tls_secret=SECRET)
    with pytest.raises(NotFoundError, match="context blue has no Secret iris-tls"):
        world.deploy(ONE)
    world.servers["blue"].keep_certificate(tmp_path, SECRET)
    world.deploy(ONE)
    world.route((ONE, 100))
    world.deploy(TWO)
    world.route((ONE, 90), (TWO, 10))
    assert world.target.routes().endpoint == "https://iris-production-router.iris.svc"
    assert isinstance(world.target, Certified)
    assert world.target.certificate() == text
    until = world.target.check_certificate()
    assert until is not None
    assert until - datetime.now(UTC) > 2 * DAY
    assert World().target.certificate() is None
    slots = [
        each["spec"]["ports"]
        for server in world.servers.values()
        for (plural, name), each in server.objects.items()
        if plural == "services" and not name.endswith("-router")
    ]
    assert {port["port"] for ports in slots for port in ports} == {80}
    assert len(slots) == 2


def test_the_right_to_read_the_secret_is_asked_for_by_its_name(
    server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def may(_api: Api, kind: str, verb: str, namespace: str, name: str = "") -> bool:
        asked.append((kind, verb, namespace, name))
        return kind != "Secret"

    monkeypatch.setattr(Api, "may", may)
    with server.connected() as api:
        with pytest.raises(UnavailableError, match="forbids: get secrets iris-tls in iris"):
            access_review.of(api, SCOPE, settings())
        assert [right for right in asked if right[0] == "Secret"] == [
            ("Secret", "get", "iris", SECRET)
        ]
        asked.clear()
        access_review.of(api, SCOPE, settings(None))
        access_review.of(api, SCOPE, settings(), balances=False)
    assert not any(right[0] == "Secret" for right in asked)
