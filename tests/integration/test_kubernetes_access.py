"""How a cluster is reached: credential plugins, and certificates and proxies on the wire."""

import contextlib
import datetime as dt
import json
import os
import socket
import socketserver
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives import serialization as forms

from mlship.adapters.targets.kubernetes import Access, access, credential_plugin
from mlship.adapters.targets.kubernetes.credential_plugin import Plugin
from mlship.config.targets import KubernetesConfig
from mlship.errors import ConfigError, UnavailableError
from tests.harness import clusters
from tests.harness.sockets import identity

V1 = "client.authentication.k8s.io/v1"
BETA = "client.authentication.k8s.io/v1beta1"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/home/ada"}

# Counts its runs in a file, and prints what `ANSWER` says, with the count in place of `#`.
PLUGIN = """
import json, os, sys
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(dict(os.environ)) + "\\n")
with open(sys.argv[1]) as file:
    number = len(file.readlines())
information = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
answer = json.loads(os.environ["ANSWER"].replace("#", str(number)))
print(json.dumps({"apiVersion": information["apiVersion"], "kind": "ExecCredential", **answer}))
"""


def reached(
    user: dict[str, Any], folder: Path, server: str = "https://10.0.0.1", **cluster: Any
) -> Access:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return access.find(KubernetesConfig(kubeconfig=str(path)), ENVIRONMENT)


def plugin(
    folder: Path, answer: dict[str, Any] | None = None, text: str = PLUGIN, **more: Any
) -> dict[str, Any]:
    """Return a user whose credentials a program prints; its runs are in the file `runs`."""
    (folder / "plugin.py").write_text(text)
    printed = json.dumps(answer or {"status": {"token": "ada-#"}})
    return {
        "exec": {
            "apiVersion": V1,
            "interactiveMode": "Never",
            "command": sys.executable,
            "args": [str(folder / "plugin.py"), str(folder / "runs")],
            "env": [{"name": "ANSWER", "value": printed}, {"name": "HOME", "value": "/home/eve"}],
            "installHint": "install the plugin",
            **more,
        }
    }


def runs(folder: Path) -> list[dict[str, str]]:
    """Return the environment of each run of a plugin."""
    lines = (folder / "runs").read_text().splitlines()
    return [json.loads(line) for line in lines]


def asked(found: Access, *statuses: int) -> list[str | None]:
    """Send a request for each status that is not 401; return the credentials of all that came."""
    seen: list[str | None] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(statuses[len(seen) - 1])

    with httpx.Client(transport=httpx.MockTransport(server), auth=found.auth) as client:
        while len(seen) < len(statuses):
            client.get("https://a")
    return seen


def test_a_plugins_token_is_used_until_it_is_refused(tmp_path: Path) -> None:
    found = reached(plugin(tmp_path), tmp_path)
    assert asked(found, 200, 200, 401, 200, 200) == [
        "Bearer ada-1",
        "Bearer ada-1",
        "Bearer ada-1",
        "Bearer ada-2",
        "Bearer ada-2",
    ]


def test_a_plugins_token_is_replaced_when_it_has_expired(tmp_path: Path) -> None:
    for seconds, expected in ((-1, ["Bearer ada-1", "Bearer ada-2"]), (60, ["Bearer ada-3"] * 2)):
        expires = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).isoformat()
        status = {"token": "ada-#", "expirationTimestamp": expires.replace("+00:00", "Z")}
        assert asked(reached(plugin(tmp_path, {"status": status}), tmp_path), 200, 200) == expected


def test_requests_at_the_same_time_ask_a_plugin_once(tmp_path: Path) -> None:
    found = reached(plugin(tmp_path), tmp_path)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: asked(found, 200), range(8)))
    assert seen == [["Bearer ada-1"]] * 8
    assert asked(reached(plugin(tmp_path), tmp_path), 200) == ["Bearer ada-1"]


def test_a_plugin_gets_its_environment_and_what_it_is_told(tmp_path: Path) -> None:
    authority = b64encode(identity("ca")[0]).decode()
    cluster: dict[str, Any] = {
        "certificate-authority-data": authority,
        "tls-server-name": "api",
        "extensions": [
            {"name": "other", "extension": 1},
            {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "iris"}},
        ],
    }
    asked(reached(plugin(tmp_path), tmp_path, **cluster), 200)
    asked(reached(plugin(tmp_path, provideClusterInfo=True), tmp_path, **cluster), 200)
    asked(reached(plugin(tmp_path, apiVersion=BETA, interactiveMode=None), tmp_path), 200)
    plain, told, beta = [json.loads(run["KUBERNETES_EXEC_INFO"]) for run in runs(tmp_path)]
    assert plain == {"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}
    assert told["spec"]["cluster"] == {
        "server": "https://10.0.0.1",
        "tls-server-name": "api",
        "certificate-authority-data": authority,
        "config": {"audience": "iris"},
    }
    assert beta["apiVersion"] == BETA
    assert runs(tmp_path)[0]["PATH"] == ENVIRONMENT["PATH"]
    assert runs(tmp_path)[0]["HOME"] == "/home/eve"


def test_a_plugin_of_a_relative_path_is_in_the_kubeconfigs_folder(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "log-in"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho \'{{"apiVersion": "{V1}", "kind": "ExecCredential", '
        '"status": {"token": "here"}}\'\n'
    )
    script.chmod(0o700)
    user = plugin(tmp_path, command="./bin/log-in", args=None)
    assert asked(reached(user, tmp_path), 200) == ["Bearer here"]


PRINTS = f'print(\'{{{{"apiVersion": "{V1}", "kind": "ExecCredential", {{}}}}}}\')'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; sys.exit('\\x1b[31mlog in first')", r"failed: U\+001B\[31mlog in first"),
        ("import sys; sys.exit(3)", "failed: exit code 3"),
        ("print('no JSON')", "printed no ExecCredential"),
        ("print('{}')", "printed nothing of no version, not ExecCredential of"),
        (PRINTS.replace(V1, BETA).format('"status": {}'), "not ExecCredential of .*/v1$"),
        (PRINTS.format('"status": {}'), "printed no token and no certificate"),
        (PRINTS.format('"status": null'), "printed no token and no certificate"),
        (PRINTS.format('"status": {"token": 7}'), "printed no ExecCredential: Expected"),
        (PRINTS.format('"status": {"token": "a\\\\nb"}'), "characters that no header"),
        (
            PRINTS.format('"status": {"clientCertificateData": "a"}'),
            "printed only one of certificate and key",
        ),
        (
            PRINTS.format('"status": {"token": "a", "expirationTimestamp": "2026-01-01T00:00:00"}'),
            "without a time zone",
        ),
    ],
)
def test_a_plugin_that_fails_is_told_with_its_own_words(
    tmp_path: Path, text: str, words: str
) -> None:
    found = reached(plugin(tmp_path, text=text), tmp_path)
    with pytest.raises(UnavailableError, match=words) as caught:
        asked(found, 200)
    assert caught.value.hint == "install the plugin"


def test_a_plugin_that_is_not_installed_is_named_with_the_way_to_install_it(
    tmp_path: Path,
) -> None:
    found = reached(plugin(tmp_path, command="no-such-plugin"), tmp_path)
    with pytest.raises(UnavailableError, match="no-such-plugin is not installed") as caught:
        asked(found, 200)
    assert caught.value.hint == "install the plugin"


def test_a_plugin_that_hangs_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_plugin, "_SECONDS", 1.0)
    text = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
child.wait()
"""
    found = reached(plugin(tmp_path, text=text), tmp_path)
    with pytest.raises(UnavailableError, match="did not end in 1 s"):
        asked(found, 200)
    process = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    deadline = time.monotonic() + 5
    while process.exists() and process.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the plugin's child lives"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("mode", "is_terminal", "expected"),
    [
        ("Never", True, False),
        ("IfAvailable", True, True),
        ("IfAvailable", False, False),
        ("Always", True, True),
    ],
)
def test_a_plugin_may_ask_where_there_is_a_terminal(
    tmp_path: Path, mode: str, is_terminal: bool, expected: bool
) -> None:
    asks = asking(tmp_path, mode, is_terminal=is_terminal)
    assert asks.credentials().token == "ada-1"
    (run,) = runs(tmp_path)
    assert json.loads(run["KUBERNETES_EXEC_INFO"])["spec"]["interactive"] is expected


def test_a_plugin_that_must_ask_needs_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="there is no terminal") as caught:
        asking(tmp_path, "Always", is_terminal=False).credentials()
    assert "in a terminal" in caught.value.hint


def asking(folder: Path, mode: str, *, is_terminal: bool) -> Plugin:
    (folder / "plugin.py").write_text(PLUGIN)
    return Plugin(
        (sys.executable, str(folder / "plugin.py"), str(folder / "runs")),
        version=V1,
        cluster=None,
        mode=mode,
        environment={"ANSWER": '{"status": {"token": "ada-#"}}'},
        path="",
        hint="",
        is_terminal=lambda: is_terminal,
    )


# On the wire: certificates and proxies.


class Secure:
    """An HTTPS server of a certificate for 127.0.0.2 at 127.0.0.1; it tells who asks it."""

    def __init__(self, folder: Path, *, clients: tuple[bytes, ...] = ()) -> None:
        certificate, key = identity("server", "127.0.0.2")
        (folder / "server").write_bytes(key + certificate)
        self.authority = b64encode(certificate).decode()
        self.refused: set[str] = set()
        trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trust.load_cert_chain(folder / "server")
        if clients:
            trust.verify_mode = ssl.CERT_REQUIRED
            trust.load_verify_locations(cadata=b"".join(clients).decode())
        handler = type("Handler", (_Handler,), {"secure": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.socket = trust.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    secure: Secure

    def do_GET(self) -> None:
        peer = self.connection.getpeercert() or {}
        names = [value for part in peer.get("subject", ()) for key, value in part]
        body = "".join(names).encode() or b"nobody"
        self.send_response(401 if body.decode() in self.secure.refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's name)
        pass


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    server = Secure(tmp_path)
    yield server
    server.close()


def get(found: Access) -> str:
    with client(found) as open_client:
        return open_client.get("/").text


def client(found: Access) -> httpx.Client:
    return httpx.Client(
        base_url=found.server, verify=found.trust, auth=found.auth, proxy=found.proxy, timeout=10
    )


class Tunnel(socketserver.ThreadingTCPServer):
    """A proxy that opens connections: to HTTP's CONNECT, or to SOCKS 5."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Opened)
        self.targets: list[str] = []
        self.host = f"127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Opened(socketserver.BaseRequestHandler):
    server: Tunnel

    def handle(self) -> None:
        near: socket.socket = self.request
        first = near.recv(4096)
        if first[0] == 5:
            near.sendall(b"\x05\x00")
            request = near.recv(4096)
            assert request[3] == 1, "an IPv4 address"
            host = socket.inet_ntoa(request[4:8])
            port = int.from_bytes(request[8:10], "big")
            reply = b"\x05\x00\x00\x01" + bytes(6)
        else:
            host, _, number = first.split()[1].decode().rpartition(":")
            port, reply = int(number), b"HTTP/1.1 200 OK\r\n\r\n"
        self.server.targets.append(f"{host}:{port}")
        with socket.create_connection((host, port)) as far:
            near.sendall(reply)
            onward = threading.Thread(target=_pump, args=(near, far), daemon=True)
            onward.start()
            _pump(far, near)
            onward.join(5)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    with Tunnel() as proxy:
        yield proxy
        proxy.shutdown()


@pytest.mark.parametrize("proxy", ["", "http", "socks5"])
def test_the_servers_certificate_is_checked_for_the_name_that_the_cluster_gives(
    tmp_path: Path, secure: Secure, tunnel: Tunnel, proxy: str
) -> None:
    cluster = {"certificate-authority-data": secure.authority}
    if proxy:
        cluster["proxy-url"] = f"{proxy}://{tunnel.host}"
    with pytest.raises(httpx.ConnectError, match="IP address mismatch"):
        get(reached({}, tmp_path, secure.url, **cluster))
    named = cluster | {"tls-server-name": "127.0.0.2"}
    assert get(reached({}, tmp_path, secure.url, **named)) == "nobody"
    assert tunnel.targets == [secure.url.removeprefix("https://")] * (2 if proxy else 0)


def test_a_certificate_is_not_checked_where_the_cluster_says_so(
    tmp_path: Path, secure: Secure
) -> None:
    found = reached({}, tmp_path, secure.url, **{"insecure-skip-tls-verify": True})
    assert get(found) == "nobody"


@pytest.mark.parametrize("form", ["data", "file"])
def test_a_certificate_of_ones_own_is_shown(tmp_path: Path, form: str) -> None:
    certificate, key = identity("ada")
    (tmp_path / "crt").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    user = (
        {"client-certificate": "crt", "client-key": "key"}
        if form == "file"
        else {
            "client-certificate-data": b64encode(certificate).decode(),
            "client-key-data": b64encode(key).decode(),
        }
    )
    with contextlib.closing(Secure(tmp_path, clients=(certificate,))) as server:
        found = reached(user, tmp_path, server.url, **{"insecure-skip-tls-verify": True})
        assert get(found) == "ada"


def test_a_plugins_certificate_is_shown_until_it_is_refused(tmp_path: Path) -> None:
    pairs = {name: identity(name) for name in ("ada-1", "ada-2")}
    for name, (certificate, key) in pairs.items():
        (tmp_path / f"{name}.json").write_text(
            json.dumps(
                {"clientCertificateData": certificate.decode(), "clientKeyData": key.decode()}
            )
        )
    text = PLUGIN.replace(
        "print(",
        f"status = json.load(open({str(tmp_path)!r} + f'/ada-{{number}}.json'))\n"
        'answer = {"status": status}\n'
        "print(",
    )
    certificates = tuple(certificate for certificate, _ in pairs.values())
    with contextlib.closing(Secure(tmp_path, clients=certificates)) as server:
        user = plugin(tmp_path, text=text)
        found = reached(user, tmp_path, server.url, **{"insecure-skip-tls-verify": True})
        with client(found) as open_client:
            assert [open_client.get("/").text for _ in range(2)] == ["ada-1", "ada-1"]
            server.refused.add("ada-1")
            assert [open_client.get("/").text for _ in range(2)] == ["ada-2", "ada-2"]
    assert len(runs(tmp_path)) == 2


def test_an_encrypted_key_is_refused_and_no_password_is_asked_for(tmp_path: Path) -> None:
    certificate, key = identity("ada")
    private = forms.load_pem_private_key(key, None).private_bytes(
        forms.Encoding.PEM,
        forms.PrivateFormat.PKCS8,
        forms.BestAvailableEncryption(b"secret"),
    )
    user = {
        "client-certificate-data": b64encode(certificate).decode(),
        "client-key-data": b64encode(private).decode(),
    }
    with pytest.raises(ConfigError, match="client-certificate and client-key"):
        reached(user, tmp_path)


def test_a_pipe_can_be_a_kubeconfig(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1"}}],
        "users": [{"name": "u"}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    writer = threading.Thread(target=pipe.write_text, args=(json.dumps(document),))
    writer.start()
    found = access.find(KubernetesConfig(), {"KUBECONFIG": str(pipe)})
    writer.join()
    assert found.server == "https://10.0.0.1"


# A real API server.


@pytest.fixture
def real() -> dict[str, Any]:
    """Return the kubeconfig of the tests' cluster."""
    document: dict[str, Any] = yaml.safe_load(clusters.kubeconfig().read_text())
    return document


def whoami(found: Access) -> dict[str, Any]:
    """Return whom the API server takes us for."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    with client(found) as open_client:
        answer = open_client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json=review)
    assert answer.is_success, answer.text
    user: dict[str, Any] = answer.json()["status"]["userInfo"]
    return user


def test_an_api_server_sees_whom_a_kubeconfig_impersonates(
    tmp_path: Path, real: dict[str, Any]
) -> None:
    real["users"][0]["user"] |= {
        "as": "grace",
        "as-groups": ["system:authenticated", "team"],
        "as-user-extra": {"acme.com/project": ["iris"]},
    }
    (tmp_path / "config").write_text(json.dumps(real))
    user = whoami(access.find(KubernetesConfig(kubeconfig=str(tmp_path / "config")), {}))
    assert (user["username"], user["extra"]) == ("grace", {"acme.com/project": ["iris"]})
    assert "team" in user["groups"]


def test_an_api_server_is_reached_by_merged_files_a_proxy_and_a_name(
    tmp_path: Path, real: dict[str, Any], tunnel: Tunnel
) -> None:
    expected = whoami(access.find(KubernetesConfig(kubeconfig=str(clusters.kubeconfig())), {}))
    cluster = real["clusters"][0]["cluster"]
    changes = {"tls-server-name": "kubernetes.default.svc", "proxy-url": f"http://{tunnel.host}"}
    first = {"clusters": [{**real["clusters"][0], "cluster": cluster | changes}]}
    (tmp_path / "first").write_text(json.dumps(first))
    (tmp_path / "second").write_text(json.dumps(real))
    variable = f"{tmp_path / 'none'}:{tmp_path / 'first'}:{tmp_path / 'second'}"
    found = access.find(KubernetesConfig(), {"KUBECONFIG": variable})
    assert whoami(found)["username"] == expected["username"]
    assert tunnel.targets == [cluster["server"].removeprefix("https://")]


def test_an_api_server_accepts_the_token_of_a_plugin(tmp_path: Path, real: dict[str, Any]) -> None:
    with clusters.cluster() as place:
        accounts = f"/api/v1/namespaces/{place.namespace}/serviceaccounts"
        place.kubectl("POST", accounts, json={"metadata": {"name": "robot"}})
        asked_for = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = place.kubectl("POST", f"{accounts}/robot/token", json=asked_for)["status"]["token"]
        # The first token is one that the server refuses.
        text = PLUGIN.replace("print(", "answer['status']['token'] *= number - 1 or 2\nprint(")
        user = plugin(tmp_path, {"status": {"token": token}}, text=text)
        server = real["clusters"][0]["cluster"]
        found = reached(user, tmp_path, server.pop("server"), **server)
        assert whoami(found)["username"] == f"system:serviceaccount:{place.namespace}:robot"
    assert len(runs(tmp_path)) == 2
