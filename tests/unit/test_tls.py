"""Certificates of a local target: which are refused, and what clients trust."""

import codecs
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from mlship.adapters.targets.local import envoy
from mlship.adapters.targets.local.certificates import NAME, Certificates
from mlship.adapters.targets.local.state import State, Tls
from mlship.config import access
from mlship.config.layers import from_yaml, resolve
from mlship.config.project import TargetConfig
from mlship.domain import tls
from mlship.errors import ConfigError
from tests.harness import certificates

YEAR = timedelta(days=365)
CLUSTERS = """{a: {gke: {project: p, location: l, cluster: a}},
    b: {gke: {project: p, location: l, cluster: b}}}"""
OF_SECRET = "kubernetes: {tls_secret: t}"
GOOGLE = "{url_map: m, address: 'https://x'}"
PROJECT = """
name: iris
data: {train: train.csv, test: test.csv}
model: {train: "pipeline:train"}
targets:
  production: {tls: {certificate: c.pem, key: k.pem}, %s}
"""


def pair(folder: Path) -> tuple[Path, Path]:
    return folder / "certificate.pem", folder / "key.pem"


def wanted(folder: Path) -> Tls:
    certificate, key = pair(folder)
    return Tls(certificate=str(certificate), key=str(key))


def test_a_valid_pair_is_accepted(tmp_path: Path) -> None:
    certificates.write(tmp_path)
    tls.check(*pair(tmp_path))


@pytest.mark.parametrize(
    ("since", "until", "says"),
    [(-2 * YEAR, -YEAR, "certificate has expired"), (YEAR, 2 * YEAR, "not yet valid")],
)
def test_a_certificate_that_clients_would_refuse_is_refused(
    tmp_path: Path, since: timedelta, until: timedelta, says: str
) -> None:
    certificates.write(tmp_path, since=since, until=until)
    with pytest.raises(ConfigError, match=says) as refused:
        tls.check(*pair(tmp_path))
    assert "renew it" in refused.value.hint


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    certificates.write(tmp_path)
    other = (tmp_path / "key.pem").read_bytes()
    certificates.write(tmp_path)
    (tmp_path / "key.pem").write_bytes(other)
    with pytest.raises(ConfigError, match=r"key\.pem is not the key of .*certificate\.pem"):
        tls.check(*pair(tmp_path))


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_a_key_with_a_password_is_named_as_that(
    tmp_path: Path, form: serialization.PrivateFormat
) -> None:
    certificates.write(tmp_path)
    plain = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    locked = plain.private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "key.pem").write_bytes(locked)
    with pytest.raises(ConfigError, match=r"key\.pem has a password") as refused:
        tls.check(*pair(tmp_path))
    assert "openssl pkey" in refused.value.hint


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\n"])
@pytest.mark.parametrize("file", ["certificate.pem", "key.pem"])
def test_a_file_that_is_none_is_named(tmp_path: Path, file: str, content: bytes | None) -> None:
    certificates.write(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ConfigError, match=file.replace(".", r"\.")) as refused:
        tls.check(*pair(tmp_path))
    assert "in PEM" in refused.value.hint


def test_envoys_copy_is_renewed_only_with_a_pair_that_fits(tmp_path: Path) -> None:
    state, own = State(tmp_path / "target"), tmp_path / "own"
    own.mkdir()
    state.envoy.mkdir(parents=True)
    copies, first = Certificates(state), certificates.write(own)
    copies.step(wanted(own))
    assert certificate_in(state) == first.decode()
    assert state.certificate.stat().st_mode & 0o777 == 0o600
    key = (own / "key.pem").read_bytes()
    second = certificates.write(own)
    fresh = (own / "key.pem").read_bytes()
    (own / "key.pem").write_bytes(key)
    with pytest.raises(ConfigError, match="is not the key of"):
        copies.step(wanted(own))
    copies.step(wanted(own))
    assert certificate_in(state) == first.decode(), "half of a renewal is not copied, and told once"
    (own / "key.pem").write_bytes(fresh)
    copies.step(wanted(own))
    assert certificate_in(state) == second.decode()
    copies.step(None)
    assert not state.certificate.exists()


class Refusing:
    """`tls.check` that raises what the test says, and counts."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.calls = 0

    def __call__(self, _certificate: Path, _key: Path) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("clients would refuse c.pem: certificate is not yet valid"),
        ConfigError("cannot read c.pem: Too many open files"),
        OSError(24, "Too many open files"),
    ],
)
def test_a_pair_is_tried_again_though_its_files_have_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    state, now, check = State(tmp_path / "target"), [0.0], Refusing(error)
    state.envoy.mkdir(parents=True)
    monkeypatch.setattr(tls, "check", check)
    copies, text = Certificates(state, clock=lambda: now[0]), certificates.write(tmp_path)
    with pytest.raises(type(error)):
        copies.step(wanted(tmp_path))
    for _ in range(60):
        now[0] += 0.05
        copies.step(wanted(tmp_path))
    assert 2 <= check.calls <= 5, "it costs a handshake: about once a second, and told once"
    check.error = ConfigError("clients would refuse c.pem: certificate has expired")
    now[0] += 2
    with pytest.raises(ConfigError, match="has expired"):
        copies.step(wanted(tmp_path))
    check.error = None
    now[0] += 2
    copies.step(wanted(tmp_path))
    assert certificate_in(state) == text.decode()
    now[0] += 2
    calls = check.calls
    copies.step(wanted(tmp_path))
    assert check.calls == calls, "a copy that was written is not checked again"


def test_a_file_that_is_missing_is_told_once(tmp_path: Path) -> None:
    state = State(tmp_path / "target")
    state.envoy.mkdir(parents=True)
    copies, text = Certificates(state), certificates.write(tmp_path)
    (tmp_path / "key.pem").rename(tmp_path / "away.pem")
    with pytest.raises(FileNotFoundError, match=r"key\.pem"):
        copies.step(wanted(tmp_path))
    copies.step(wanted(tmp_path))
    (tmp_path / "away.pem").rename(tmp_path / "key.pem")
    copies.step(wanted(tmp_path))
    assert certificate_in(state) == text.decode()
    (tmp_path / "key.pem").unlink()
    with pytest.raises(FileNotFoundError, match=r"key\.pem"):
        copies.step(wanted(tmp_path))
    assert certificate_in(state) == text.decode()


@pytest.mark.parametrize(
    "beside", ["# Prüfstelle\n".encode("latin-1"), codecs.BOM_UTF8, b"subject=CN = iris\r\n"]
)
def test_envoy_gets_only_the_blocks_of_files_in_pem(tmp_path: Path, beside: bytes) -> None:
    state = State(tmp_path / "target")
    state.envoy.mkdir(parents=True)
    issuer = certificates.write(tmp_path)
    text = certificates.write(tmp_path)
    certificate, key = pair(tmp_path)
    certificate.write_bytes(beside + text + beside + issuer)
    own = key.read_bytes()
    key.write_bytes(beside + own)
    Certificates(state).step(wanted(tmp_path))
    assert certificate_in(state) == (text + issuer).decode()
    (secret,) = json.loads(state.certificate.read_bytes())["resources"]
    assert secret["tls_certificate"]["private_key"]["inline_string"] == own.decode()


def certificate_in(state: State) -> str:
    (secret,) = json.loads(state.certificate.read_bytes())["resources"]
    assert secret["name"] == NAME
    text: str = secret["tls_certificate"]["certificate_chain"]["inline_string"]
    return text


def test_the_router_takes_tls_1_2_or_later_from_the_copy(tmp_path: Path) -> None:
    state = State(tmp_path)
    listener = listener_of(envoy.bootstrap(state, 1, "a", is_encrypted=True))
    (chain,) = listener["filter_chains"]
    context = chain["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["tls_params"] == {"tls_minimum_protocol_version": "TLSv1_2"}
    (source,) = context["tls_certificate_sds_secret_configs"]
    path = source["sds_config"]["path_config_source"]["path"]
    assert (source["name"], path) == (NAME, str(state.certificate))
    (plain,) = listener_of(envoy.bootstrap(state, 1, "a"))["filter_chains"]
    assert "transport_socket" not in plain


def listener_of(bootstrap: bytes) -> Any:
    (listener,) = json.loads(bootstrap)["static_resources"]["listeners"]
    return listener


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("kind: kubernetes, kubernetes: {context: k}", "the Secret in kubernetes.tls_secret has"),
        ("kind: kubernetes, kubernetes: {context: k, gateway: a/b}", "listener of Gateway a/b"),
        (
            f"kind: gke, load_balancer: {{url_map: m, address: 'https://x'}}, clusters: {CLUSTERS}",
            "the target HTTPS proxy of the load balancer",
        ),
    ],
)
def test_a_target_in_a_cluster_is_told_what_has_the_certificate(settings: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        resolve([from_yaml(PROJECT % settings, "mlship.yaml")])
    assert "targets.production.tls: only targets of kind local" in refused.value.message
    assert resolve([from_yaml(PROJECT % "kind: local", "mlship.yaml")])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            "kind: kubernetes, kubernetes: {context: k, tls_secret: t, gateway: a/b}",
            "listener of Gateway a/b",
        ),
        (
            f"kind: gke, {OF_SECRET}, load_balancer: {GOOGLE}, clusters: {CLUSTERS}",
            "the target HTTPS proxy of the load balancer",
        ),
    ],
)
def test_a_secret_is_for_mlships_own_load_balancer(settings: str, says: str) -> None:
    text = PROJECT.replace("tls: {certificate: c.pem, key: k.pem}, ", "") % settings
    with pytest.raises(ConfigError, match=says) as refused:
        resolve([from_yaml(text, "mlship.yaml")])
    assert "targets.production.kubernetes.tls_secret" in refused.value.message
    own = text.replace(", gateway: a/b", "").replace(f"load_balancer: {GOOGLE}, ", "")
    config = resolve([from_yaml(own, "mlship.yaml")]).config
    assert config.targets["production"].kubernetes.tls_secret == "t"


def test_of_several_clusters_that_of_the_parent_has_the_secret() -> None:
    settings = f"kind: gke, clusters: {CLUSTERS}, parent: b, kubernetes: {{tls_secret: t}}"
    text = PROJECT.replace("tls: {certificate: c.pem, key: k.pem}, ", "") % settings
    target = resolve([from_yaml(text, "mlship.yaml")]).config.targets["production"]
    found = [target.in_cluster(name).kubernetes.tls_secret for name in ("a", "b")]
    assert found == [None, "t"]


def test_paths_are_relative_to_the_project(tmp_path: Path) -> None:
    config = resolve([from_yaml(PROJECT % "api_keys: /etc/keys.json", "mlship.yaml")]).config
    settings = access.absolute(config.targets["production"], tmp_path)
    assert settings.tls is not None
    assert settings.tls.certificate == str(tmp_path / "c.pem")
    assert settings.tls.key == str(tmp_path / "k.pem")
    assert settings.api_keys == "/etc/keys.json"
    assert access.absolute(TargetConfig(), tmp_path) == TargetConfig()
