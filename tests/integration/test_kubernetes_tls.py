"""TLS at mlship's own load balancer in a cluster: from a Secret, which is renewed under load."""

import base64
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mlship.adapters.targets.kubernetes import review
from mlship.adapters.targets.kubernetes.api import path
from mlship.adapters.targets.kubernetes.router_manifests import ROUTER
from mlship.domain import tls
from mlship.domain.deployment import slot_of
from mlship.errors import ConfigError, MlshipError, NotFoundError, UnavailableError
from tests.harness import asking, certificates, clusters
from tests.harness.clusters import Cluster, until
from tests.harness.load import load
from tests.harness.samples import release
from tests.integration.test_kubernetes_plain import limited

pytestmark = pytest.mark.service("cluster")

SECRET = "iris-tls"
ONE, TWO = release("one"), release("two")
BEHAVIOUR: dict[str, Any] = {"answer_seconds": 0.2, "abrupt": True}


class Encrypted(Cluster):
    """A target whose load balancer has its certificate from a Secret."""

    def __init__(self, plain: Cluster, folder: Path) -> None:
        super().__init__(plain.path, plain.namespace, is_plain=True)
        self.folder = folder
        self.kubernetes = msgspec.structs.replace(self.kubernetes, tls_secret=SECRET)
        self.config = msgspec.structs.replace(self.config, kubernetes=self.kubernetes)
        self.plain, self.target = self.target, self.again()
        # A client that trusts the authority opens connections before and after a renewal.
        self.authority, trusted = certificates.Authority(), folder / "authority.pem"
        self.authority.write(trusted)
        self.trust = tls.client_context(trusted)

    def renew(self, *, is_first: bool = False, fits: bool = True) -> bytes:
        """Write another certificate into the Secret, and return it."""
        text = certificates.write(self.folder, authority=self.authority)
        if not fits:
            certificates.write(self.folder, authority=self.authority)
        key = (self.folder / "key.pem").read_bytes()
        both = {"tls.crt": text, "tls.key": key}
        data = {name: base64.b64encode(content).decode() for name, content in both.items()}
        where = path("Secret", self.namespace)
        secret = {"type": "kubernetes.io/tls", "metadata": {"name": SECRET}, "data": data}
        if is_first:
            self.kubectl("POST", where, json=secret)
        else:
            self.kubectl("PUT", f"{where}/{SECRET}", json=secret)
        return text

    @property
    def url(self) -> httpx.URL:
        return httpx.URL(self.target.routes().endpoint)

    def shown(self) -> set[bytes]:
        """Return the certificates that clients get, by a connection each."""
        host = self.url.host
        return {ssl.get_server_certificate((host, 443), timeout=10).encode() for _ in range(10)}

    def routers(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.pods(ROUTER)}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Encrypted]:
    with clusters.cluster(is_plain=True) as found:
        yield Encrypted(found, tmp_path)


def test_a_deployment_and_a_renewal_fail_no_request(place: Encrypted) -> None:
    with pytest.raises(NotFoundError, match=f"has no Secret {SECRET}"):
        place.deploy(ONE)
    first = place.renew(is_first=True)
    one = place.deploy(ONE, replicas=2, **BEHAVIOUR)
    place.route({one: 100})
    url = place.url
    assert (url.scheme, url.port, place.shown()) == ("https", None, {first})
    assert f"load balancer {url}, 2 of 2" in review(place.scope, place.config, place.access)
    for plain in (f"http://{url.host}", f"http://{url.host}:443"):
        with pytest.raises(httpx.TransportError):
            asking.get(f"{plain}{url.path}/v2/health/live", timeout=5)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        asking.get(f"{url}/v2/health/live")
    routers = place.routers()
    with load(f"{url}/predict", 50, trust=place.trust) as requests:
        two = place.deploy(TWO, replicas=2, **BEHAVIOUR)
        place.route({one: 50, two: 50})
        place.route({two: 100})
        place.target.remove(one)
        fresh = place.renew()
        until(lambda: place.shown() == {fresh}, seconds=150)
        time.sleep(1)
    assert sum(requests.answers.values()) > 300
    assert requests.failed == {}, requests.answers
    assert place.routers() == routers
    kept = place.folder / "kept.pem"
    kept.write_bytes(place.target.certificate() or b"")
    with httpx.Client(verify=tls.client_context(kept)) as client:
        assert client.post(f"{url}/predict", json={}).status_code == 200


def test_tls_is_switched_on_and_off_without_losing_an_accepted_request(place: Encrypted) -> None:
    place.renew(is_first=True)
    secured, place.target = place.target, place.plain
    one = place.deploy(ONE, replicas=2, **BEHAVIOUR)
    place.route({one: 100})
    artifact = place.artifact(one, **BEHAVIOUR)
    for target, trust in ((secured, True), (place.plain, place.trust)):
        former = place.url
        with load(f"{former}/predict", 50, trust=trust) as requests:
            time.sleep(1)
            target.deploy(ONE, artifact, one, replicas=2)
            time.sleep(1)
        # The scheme of these clients ends: a connection is refused, no request is lost.
        assert set(requests.failed) <= {"ConnectError", "ConnectTimeout"}, requests.answers
        assert requests.answers["200"] > 50
        place.target = target
        assert place.url == former.copy_with(scheme="http" if former.scheme == "https" else "https")
        with httpx.Client(verify=place.trust) as client:
            assert client.post(f"{place.url}/predict", json={}).status_code == 200
        with place.api() as api:
            service = api.get("Service", place.scope.object(ROUTER))
        assert service is not None
        assert [port["name"] for port in service["spec"]["ports"]] == [place.url.scheme]
        assert place.target.altered() == []


def test_the_guides_role_reads_this_secret_and_no_other(place: Encrypted, tmp_path: Path) -> None:
    text = place.renew(is_first=True)
    account = Cluster(limited(place, tmp_path), place.namespace, is_plain=True)
    least = Encrypted(account, tmp_path)
    assert "comes with the first deployment" in review(least.scope, least.config, least.access)
    least.deploy(ONE)
    assert least.target.routes().endpoint.startswith("https://")
    assert least.target.certificate() == text
    with pytest.raises(UnavailableError, match=r"forbids .* to get secrets"):
        least.again(kubernetes_tls_secret="other").certificate()


def test_a_certificate_that_does_not_work_leaves_what_runs(place: Encrypted) -> None:
    place.renew(is_first=True, fits=False)
    with pytest.raises(ConfigError, match="is not the key of"):
        place.deploy(ONE)
    first = place.renew()
    one = place.deploy(ONE, **BEHAVIOUR)
    place.route({one: 100})
    place.renew(fits=False)
    target = place.again(ready_seconds=15, drain_seconds=4)
    artifact = place.artifact(slot_of(TWO), **BEHAVIOUR)
    # Other settings replace the pods of the load balancer, and the new ones cannot start.
    with (
        load(f"{place.url}/predict", 50, trust=place.trust) as requests,
        pytest.raises(MlshipError),
    ):
        target.deploy(TWO, artifact, slot_of(TWO), replicas=1)
    assert requests.failed == {}, requests.answers
    assert place.shown() == {first}
    assert set(place.target.inspect()) == {one}
