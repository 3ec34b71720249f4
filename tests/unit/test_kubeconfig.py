"""Kubeconfigs: how files are merged, which context counts, and what is said of a broken one."""

import base64
import datetime as dt
import json
import os
import shutil
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from mlship.adapters.targets.kubernetes import access, credential_plugin, kubeconfig
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.credential_plugin import Credentials
from mlship.config.targets import KubernetesConfig
from mlship.errors import ConfigError, UnavailableError
from tests.harness.sockets import identity

PLUGIN = {"command": "log-in", "apiVersion": "client.authentication.k8s.io/v1beta1"}


def document(
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    *contexts: str,
    server: str = "https://10.0.0.1",
) -> dict[str, Any]:
    """Return a kubeconfig whose contexts lead to one cluster and one user."""
    names = contexts or ("staging",)
    return {
        "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "ada", "user": user or {}}],
        "contexts": [{"name": one, "context": {"cluster": "c", "user": "ada"}} for one in names],
    }


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def reached(
    folder: Path,
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    **given: Any,
) -> Access:
    path = write(folder / "config", document(user, cluster, **given))
    return access.find(KubernetesConfig(kubeconfig=str(path)), {})


def merged(*paths: Path, context: str | None = None) -> Access:
    variable = ":".join(map(str, paths))
    return access.find(KubernetesConfig(context=context), {"KUBECONFIG": variable})


def sent(found: Access) -> httpx.Headers:
    """Return the headers that a request has when it is sent a second time, as after a failure."""
    assert found.auth is not None
    request = httpx.Request("GET", found.server)
    next(found.auth.auth_flow(request))
    return next(found.auth.auth_flow(request)).headers


def pem(name: str) -> tuple[str, str]:
    certificate, key = identity(name)
    return certificate.decode(), key.decode()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# Merging, by kubectl's rules.


def test_the_first_file_that_names_an_entry_defines_all_of_it(tmp_path: Path) -> None:
    first = document({"token": "one"}, {"tls-server-name": "api"})
    second = document({"token": "two"}, {"proxy-url": "http://proxy:1"}, server="https://10.0.0.2")
    found = merged(write(tmp_path / "a", first), write(tmp_path / "b", second))
    assert found.server == "https://10.0.0.1"
    assert sent(found)["Authorization"] == "Bearer one"
    assert found.proxy is None


def test_a_context_may_name_a_cluster_and_a_user_of_other_files(tmp_path: Path) -> None:
    whole = document({"token": "abc"})
    parts = [
        write(tmp_path / section, {section: whole[section]})
        for section in ("contexts", "clusters", "users")
    ]
    assert sent(merged(*parts))["Authorization"] == "Bearer abc"


def test_files_that_do_not_exist_and_empty_names_are_skipped(tmp_path: Path) -> None:
    there = write(tmp_path / "there", document())
    empty = write(tmp_path / "empty", "")
    variable = f":{tmp_path / 'none'}::{empty}:{there}:"
    found = access.find(KubernetesConfig(), {"KUBECONFIG": variable})
    assert found.server == "https://10.0.0.1"


def test_where_no_file_exists_all_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a or .*b does not exist") as caught:
        merged(tmp_path / "a", tmp_path / "b")
    assert "KUBECONFIG" in caught.value.hint


def test_a_file_of_the_settings_is_one_file_and_must_exist(tmp_path: Path) -> None:
    there = write(tmp_path / "there", document())
    for name in (tmp_path / "none", f"{tmp_path / 'none'}:{there}"):
        with pytest.raises(ConfigError, match="does not exist"):
            access.find(KubernetesConfig(kubeconfig=str(name)), {"KUBECONFIG": str(there)})


def test_paths_are_relative_to_the_file_that_has_them(tmp_path: Path) -> None:
    certificate, key = pem("ada")
    write(tmp_path / "a" / "ca.crt", certificate)
    write(tmp_path / "b" / "crt", certificate)
    write(tmp_path / "b" / "key", key)
    write(tmp_path / "b" / "token", "abc\n")
    whole = document(
        {"tokenFile": "token", "client-certificate": "crt", "client-key": "key"},
        {"certificate-authority": "ca.crt"},
    )
    users = {"users": whole.pop("users")}
    found = merged(write(tmp_path / "a" / "config", whole), write(tmp_path / "b" / "config", users))
    assert sent(found)["Authorization"] == "Bearer abc"
    assert found.trust.cert_store_stats()["x509"] == 1


def test_the_current_context_is_that_of_the_first_file_that_has_one(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a", document()),
        write(tmp_path / "b", document(None, None, "second") | {"current-context": "second"}),
        write(tmp_path / "c", {"current-context": "staging"}),
    ]
    assert kubeconfig.load(files).current == "second"


def test_of_several_contexts_one_must_be_named_and_the_current_one_is_not_taken(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path / "a",
        document(None, None, "staging", "production") | {"current-context": "production"},
    )
    assert merged(path, context="staging").name == "context staging"
    with pytest.raises(ConfigError, match="several contexts") as caught:
        merged(path)
    assert caught.value.hint.endswith("production (current), staging")
    with pytest.raises(ConfigError, match="no context prod") as caught:
        merged(path, context="prod")
    assert "production" in caught.value.hint


def test_contexts_of_all_files_count(tmp_path: Path) -> None:
    one = write(tmp_path / "a", document())
    two = write(tmp_path / "b", document(None, None, "production"))
    with pytest.raises(ConfigError, match="several contexts"):
        merged(one, two)
    assert merged(one, two, context="production").name == "context production"


# The cluster.


@pytest.mark.parametrize("proxy", ["http://10.0.0.9:3128", "https://u:secret@proxy.example"])
def test_the_clusters_proxy_is_taken(tmp_path: Path, proxy: str) -> None:
    found = reached(tmp_path, cluster={"proxy-url": proxy})
    assert found.proxy == proxy
    with httpx.Client(proxy=found.proxy, verify=found.trust):
        pass


@pytest.mark.parametrize(
    "proxy",
    ["ftp://u:secret@proxy", "u:secret@proxy:1", "http://", "http://u:secret@proxy:x", "proxy"],
)
def test_a_proxy_that_is_none_is_refused_without_its_password(tmp_path: Path, proxy: str) -> None:
    with pytest.raises(ConfigError, match="cluster c: proxy-url") as caught:
        reached(tmp_path, cluster={"proxy-url": proxy})
    assert "secret" not in caught.value.message


def test_a_socks_proxy_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"proxy-url: socks5 needs .* socksio") as caught:
        reached(tmp_path, cluster={"proxy-url": "socks5://10.0.0.9:1080"})
    assert caught.value.hint == "pip install socksio"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: "found")
    proxy = "socks5://10.0.0.9:1080"
    assert reached(tmp_path, cluster={"proxy-url": proxy}).proxy == proxy


def test_certificates_are_not_checked_only_where_the_cluster_says_so(tmp_path: Path) -> None:
    assert reached(tmp_path).trust.verify_mode == ssl.CERT_REQUIRED
    assert reached(tmp_path).trust.check_hostname
    insecure = {"insecure-skip-tls-verify": True}
    assert reached(tmp_path, cluster=insecure).trust.verify_mode == ssl.CERT_NONE
    authority = {"certificate-authority-data": encoded(pem("ca")[0])}
    with pytest.raises(ConfigError, match="insecure-skip-tls-verify and certificate-authority"):
        reached(tmp_path, cluster=insecure | authority)


def test_an_authority_in_the_file_wins_over_one_beside_it(tmp_path: Path) -> None:
    both = {
        "certificate-authority": "nowhere",
        "certificate-authority-data": encoded(pem("ca")[0]),
    }
    assert reached(tmp_path, cluster=both).trust.cert_store_stats()["x509"] == 1


def test_a_server_may_have_a_path(tmp_path: Path) -> None:
    found = reached(tmp_path, server="https://rancher.example/k8s/clusters/c-1")
    with httpx.Client(base_url=found.server) as client:
        request = client.build_request("GET", "/api/v1/pods")
    assert str(request.url) == "https://rancher.example/k8s/clusters/c-1/api/v1/pods"


def test_credentials_are_not_sent_without_encryption(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="credentials are sent over https only"):
        reached(tmp_path, {"token": "abc"}, server="http://10.0.0.1")
    assert reached(tmp_path, server="http://10.0.0.1").auth is None
    # `kubectl proxy`, and what tests put before a cluster.
    assert reached(tmp_path, {"token": "abc"}, server="http://127.0.0.1:8001").auth is not None


@pytest.mark.parametrize(
    "server",
    [
        "u:secret@10.0.0.1:6443",
        "https://u:secret@",
        "https://u:secret@a:65536",
        "https://u:se/secret@a",
        "ftp://u:secret@10.0.0.1",
        "http://u:secret@10.0.0.1",
    ],
)
def test_a_server_is_refused_without_its_password(tmp_path: Path, server: str) -> None:
    with pytest.raises(ConfigError, match="cluster c: server: ") as caught:
        reached(tmp_path, server=server)
    assert "secret" not in caught.value.message


def test_the_address_of_the_pods_own_cluster_is_checked(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(pem("ada")[0])
    values = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "tcp://10.0.0.1"}
    with pytest.raises(ConfigError, match="KUBERNETES_SERVICE_PORT"):
        access.find(KubernetesConfig(), values, tmp_path)


# The user.


def test_a_token_in_a_file_is_read_each_time_and_wins(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for user in ({"tokenFile": "token"}, {"tokenFile": "token", "token": "old"}):
        found = reached(tmp_path, user)
        for text in ("one", "two"):
            file.write_text(text + "\n")
            assert sent(found)["Authorization"] == f"Bearer {text}"
        file.unlink()
    assert sent(found)["Authorization"] == "Bearer old"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the token in .*token: No such file"),
        (b"", "is empty"),
        (b"a\nb", "is not a token"),
        ("ключ".encode(), "it is not ASCII text"),
    ],
)
def test_a_file_without_a_token_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    found = reached(tmp_path, {"tokenFile": "token"})
    with pytest.raises(ConfigError, match=words):
        sent(found)


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found = reached(tmp_path, {"tokenFile": "pipe"})
    with pytest.raises(ConfigError, match=r"cannot read the token in .*pipe: not a regular file"):
        sent(found)
    with pytest.raises(ConfigError, match=r"certificate-authority: .*pipe: not a regular file"):
        reached(tmp_path, {}, {"certificate-authority": "pipe"})


def test_a_name_and_a_password_are_sent(tmp_path: Path) -> None:
    found = reached(tmp_path, {"username": "ada", "password": "lovelace:é"})
    expected = base64.b64encode("ada:lovelace:é".encode()).decode()
    assert sent(found)["Authorization"] == f"Basic {expected}"


def test_impersonation_is_in_the_headers_of_each_request_once(tmp_path: Path) -> None:
    user = {
        "token": "abc",
        "as": "grace",
        "as-uid": "7",
        "as-groups": ["a", "b"],
        "as-user-extra": {"acme.com/project": ["x", "y"], "dep%": ["z"]},
    }
    headers = sent(reached(tmp_path, user))
    assert [item for item in headers.multi_items() if item[0].startswith("impersonate")] == [
        ("impersonate-user", "grace"),
        ("impersonate-uid", "7"),
        ("impersonate-group", "a"),
        ("impersonate-group", "b"),
        ("impersonate-extra-acme.com%2Fproject".lower(), "x"),
        ("impersonate-extra-acme.com%2Fproject".lower(), "y"),
        ("impersonate-extra-dep%25", "z"),
    ]
    assert headers["Authorization"] == "Bearer abc"
    assert "Authorization" not in sent(reached(tmp_path, {"as": "grace"}))


def test_credentials_are_chosen_as_kubectl_chooses_them(tmp_path: Path) -> None:
    certificate, key = pem("ada")
    own = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    found = reached(tmp_path, {"token": "abc", "exec": PLUGIN, **own})
    assert sent(found)["Authorization"] == "Bearer abc"
    assert reached(tmp_path, {"exec": PLUGIN, **own}).auth is None
    assert reached(tmp_path, {"exec": PLUGIN}).auth is not None


def test_a_plugin_is_shared_by_the_connections_of_a_command(tmp_path: Path) -> None:
    one, two = (reached(tmp_path, {"exec": PLUGIN}).auth for _ in range(2))
    other = reached(tmp_path, {"exec": PLUGIN | {"args": ["x"]}}).auth
    assert vars(one)["_plugin"] is vars(two)["_plugin"]
    assert vars(one)["_plugin"] is not vars(other)["_plugin"]


def test_credentials_expire() -> None:
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    held = Credentials(token="a", certificate="", key="", expires=noon)
    assert held.are_valid(noon - dt.timedelta(seconds=1))
    assert not held.are_valid(noon)
    assert Credentials(token="a", certificate="", key="", expires=None).are_valid(noon)


# What is wrong is told with file, context and field.

CERTIFICATE, KEY = pem("ada")
OWN = {"client-certificate-data": encoded(CERTIFICATE), "client-key-data": encoded(KEY)}


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"token": 7}, "token: expected a string, got a number"),
        ({"token": "a\nb"}, "token has characters"),
        ({"token": "ключ"}, "token has characters"),
        ({"token": "a", "username": "b"}, "token and username: only one"),
        ({"as-groups": ["a"]}, "as is missing"),
        ({"as": "a", "as-groups": "b"}, "as-groups: expected a list, got a string"),
        ({"as": "a", "as-user-extra": {"k": "v"}}, "as-user-extra.*: expected a list"),
        ({"as": "a\r\nX-Admin: yes"}, "Impersonate-User has characters"),
        ({"client-certificate-data": OWN["client-certificate-data"]}, "client-key is missing"),
        (OWN | {"client-key-data": "%"}, "client-key-data is not base64"),
        (OWN | {"client-key-data": encoded("no key")}, "client-certificate and client-key are not"),
        ({"client-certificate": "/none", "client-key": "/none"}, "client-certificate: cannot read"),
        ({"client-certificate": "/", "client-key": "/"}, "client-certificate: cannot read /: Is a"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider gcp: .*credential plugins"),
        ({"auth-provider": "gcp"}, "auth-provider: expected a mapping"),
        ({"exec": {**PLUGIN, "command": None}}, "exec.command is missing"),
        ({"exec": {**PLUGIN, "command": ["a"]}}, "exec.command: expected a string, got a list"),
        ({"exec": {**PLUGIN, "apiVersion": "v9"}}, "exec.apiVersion: .* got v9"),
        (
            {"exec": {**PLUGIN, "apiVersion": "client.authentication.k8s.io/v1"}},
            "exec.interactiveMode is missing",
        ),
        ({"exec": {**PLUGIN, "interactiveMode": "Now"}}, "exec.interactiveMode: invalid .*Now"),
        ({"exec": {**PLUGIN, "env": {"A": "b"}}}, "exec.env: expected a list, got a mapping"),
        ({"exec": {**PLUGIN, "env": [{"value": "b"}]}}, r"exec.env\[.*\].* name"),
    ],
)
def test_a_wrong_user_is_told_with_file_context_and_field(
    tmp_path: Path, user: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        reached(tmp_path, user)
    beginning = f"kubeconfig {tmp_path / 'config'}: context staging: user ada: "
    assert caught.value.message.startswith(beginning)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"server": None}, "server: expected https://HOST:PORT, got nothing"),
        ({"server": "10.0.0.1:6443"}, "server: "),
        ({"server": "https://"}, "server: expected"),
        ({"server": "https://a\x1b[31m"}, r"got https://aU\+001B\[31m: it is not a URL"),
        ({"server": "https://[::1"}, r"got https://\[::1: it is not a URL"),
        ({"server": f"https://{'a' * 64}.example"}, "must have 1 to 63 characters"),
        ({"server": "https://a..b"}, "must have 1 to 63 characters"),
        ({"server": "https://a:65536"}, "port 65536 is not between 1 and 65535"),
        ({"proxy-url": "http://a:0"}, "proxy-url: .*port 0 is not between 1 and 65535"),
        ({"server": ["a"]}, "server: expected a string, got a list"),
        ({"certificate-authority-data": "%"}, "certificate-authority-data is not base64"),
        ({"certificate-authority-data": encoded("no")}, "certificate-authority is not a cert"),
        ({"certificate-authority": "none"}, "certificate-authority: cannot read .*/none: No such"),
        ({"certificate-authority": "a\0b"}, "certificate-authority: cannot read"),
        ({"insecure-skip-tls-verify": "yes"}, "insecure-skip-tls-verify: expected true or false"),
    ],
)
def test_a_wrong_cluster_is_told_with_file_context_and_field(
    tmp_path: Path, cluster: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        reached(tmp_path, cluster=cluster)
    beginning = f"kubeconfig {tmp_path / 'config'}: context staging: cluster c: "
    assert caught.value.message.startswith(beginning)


LOOP = "clusters: &a\n- name: c\n  cluster: {server: 'https://a', extensions: *a}\n"
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{apiVersion: v1\n\t", "is not valid YAML: .*line 3"),
        ("token: SECRET: SECRET", "is not valid YAML: .*line 1"),
        ("\x00", "is not valid YAML"),
        ("- a", "expected a mapping, got a list"),
        ("text", "expected a mapping, got a string"),
        ("[" * 100_000, "nested too deeply"),
        ("{a: " * 100, "nested too deeply"),
        (LOOP, "an alias refers to itself"),
        (BOMB, "its aliases expand to more than 200,000 values"),
        ("a: 2026-99-99", "is not valid YAML"),
        ("[a]: b", "is not valid YAML"),
        ("kind: Pod", "kind: expected Config, got Pod"),
        ("contexts: {a: b}", "contexts: expected a list, got a mapping"),
        ("contexts: [a]", r"contexts\[0\]: expected a mapping, got a string"),
        ("users: [{user: {}}]", r"users\[0\].name: is missing"),
        ("users: [{name: 7}]", r"users\[0\].name: expected a string, got a number"),
        ("users: [{name: a, user: b}]", r"users\[0\] \(a\).user: expected a mapping"),
        ("users: [{name: a}, {name: a}]", "users: two entries have the name a"),
        ("current-context: [a]", "current-context: expected a string, got a list"),
        ("clusters: []", "has no contexts"),
        ("contexts: [{name: x}]", "context x: cluster is missing"),
        ("contexts: [{name: x, context: {cluster: c}}]", "context x: cluster: there is no"),
        (
            "contexts: [{name: x, context: {cluster: c}}]\nclusters: [{name: c}]",
            "context x: user is missing",
        ),
        (
            "contexts: [{name: x, context: {cluster: c, user: eve}}]\nclusters: [{name: c}]",
            "context x: user: there is no user eve",
        ),
        ("contexts: [{name: x, context: {cluster: 7}}]", "context x: cluster: expected a string"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_refused_in_one_line(
    tmp_path: Path, text: str, words: str
) -> None:
    path = write(tmp_path / "config", text)
    with pytest.raises(ConfigError, match=words) as caught:
        merged(path)
    assert str(path) in caught.value.message
    assert "SECRET" not in caught.value.message
    assert "\n" not in caught.value.message


def test_what_is_no_readable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "_PIPE_SECONDS", 0.1)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(kubeconfig.LARGEST + 1)
    for path, words in (
        (tmp_path, "cannot read kubeconfig .*: Is a directory"),
        (loop, "cannot read kubeconfig .*loop: Too many levels"),
        (pipe, "cannot read kubeconfig .*pipe: nothing was written to the pipe for 0.1 s"),
        (Path("/dev/zero"), "cannot read kubeconfig /dev/zero: not a regular file"),
        (tmp_path / "bytes", "is not UTF-8 text"),
        (huge, "larger than 8 MiB"),
        (Path("~nobody-of-that-name/config"), "does not exist"),
    ):
        with pytest.raises(ConfigError, match=words):
            merged(path)
    with pytest.raises(ConfigError) as caught:
        merged(huge)
    assert "kubectl config view --minify" in caught.value.hint


@pytest.mark.slow
def test_a_large_file_without_aliases_is_read(tmp_path: Path) -> None:
    text = yaml.safe_dump(document({"token": "abc"}))
    # Of these, nearly each node of the text is a value: more than a file may have with aliases.
    text += "extensions:\n" + f"- {{name: a, extension: [{'b, ' * 30}]}}\n" * 6_200
    assert merged(write(tmp_path / "a", text)).name == "context staging"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("aws", "eks", "get-token", "--region", "a b"), "aws eks get-token --region 'a b'"),
        (("login", "--oidc-client-secret=s3cret", "-v"), "login '--oidc-client-secret=***' -v"),
        (("login", "--password", "s3cret", "--token", "-v"), "login --password '***' --token -v"),
    ],
)
def test_the_command_of_a_plugin_is_named_without_secrets(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], shown: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program, path: program)
    monkeypatch.setattr(credential_plugin, "_output", lambda *_, **__: b'{"kind":"\xff"}')
    plugin = credential_plugin.Plugin(
        command, version="v1", cluster=None, mode="Never", environment={}, path="", hint=""
    )
    with pytest.raises(UnavailableError, match="printed no ExecCredential") as caught:
        plugin.credentials()
    assert caught.value.hint == f"run `{shown}` to see what is wrong"


def test_fields_that_are_null_or_unknown_are_as_if_not_set(tmp_path: Path) -> None:
    user = {"exec": {**PLUGIN, "args": None, "env": None}, "token": None, "new-field": 7}
    assert reached(tmp_path, user, {"proxy-url": None}).auth is not None


def test_names_from_the_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = write(tmp_path / "a", document(None, None, "\x1b]0;evil\x07", "b"))
    with pytest.raises(ConfigError) as caught:
        merged(path)
    assert "\x1b" not in caught.value.hint
    assert "\x1b" not in merged(path, context="\x1b]0;evil\x07").name


def test_aliases_of_yaml_are_read(tmp_path: Path) -> None:
    text = yaml.safe_dump(document({"token": "abc"})).replace("staging", "&n staging")
    path = write(tmp_path / "a", f"{text}\ncurrent-context: *n\n")
    assert merged(path).name == "context staging"


# A pod's own account.


def test_a_pod_takes_its_own_account_unless_a_kubeconfig_is_named(tmp_path: Path) -> None:
    certificate, _ = identity("ada")
    account = tmp_path / "account"
    account.mkdir()
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(ConfigError, match=r"cannot read .*ca\.crt: No such file"):
        access.find(KubernetesConfig(), environment, account)
    (account / "ca.crt").write_bytes(certificate)
    (account / "token").write_text("abc")
    found = access.find(KubernetesConfig(), environment, account)
    assert (found.name, found.server) == ("this cluster", "https://10.0.0.1:443")
    assert sent(found)["Authorization"] == "Bearer abc"
    six = access.find(KubernetesConfig(), environment | {"KUBERNETES_SERVICE_HOST": "::1"}, account)
    assert six.server == "https://[::1]:443"
    path = write(tmp_path / "config", document(server="https://10.0.0.2"))
    named = environment | {"KUBECONFIG": str(path)}
    assert access.find(KubernetesConfig(), named, account).server == "https://10.0.0.2"
