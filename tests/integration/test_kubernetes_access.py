"""Who we are to a cluster, where a program or a file says so."""

import json
import ssl
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlship.adapters.targets.kubernetes import Access, access
from mlship.config.targets import KubernetesConfig
from mlship.errors import ConfigError, UnavailableError
from tests.harness.sockets import identity

PLUGIN = """
import json, os, sys
told = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
with open(sys.argv[1], "a") as file:
    file.write("x")
with open(sys.argv[1]) as file:
    number = len(file.read())
print(json.dumps({"apiVersion": told["apiVersion"], "kind": "ExecCredential",
                  "status": {"token": f"{os.environ['WHO']}-{number}"}}))
"""


def reached(user: dict[str, Any], folder: Path) -> Access:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return access.find(KubernetesConfig(kubeconfig=str(path)), {"PATH": "/usr/bin:/bin"})


def plugin(folder: Path, text: str) -> dict[str, Any]:
    (folder / "plugin.py").write_text(text)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(folder / "plugin.py"), str(folder / "count")],
            "env": [{"name": "WHO", "value": "ada"}],
            "installHint": "install the plugin",
        }
    }


def test_a_plugins_token_is_used_until_it_is_refused(tmp_path: Path) -> None:
    found = reached(plugin(tmp_path, PLUGIN), tmp_path)
    seen = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(401 if len(seen) == 3 else 200)

    with httpx.Client(transport=httpx.MockTransport(server), auth=found.auth) as client:
        answers = [client.get("https://a").status_code for _ in range(3)]
    assert answers == [200, 200, 200]
    assert seen == ["Bearer ada-1", "Bearer ada-1", "Bearer ada-1", "Bearer ada-2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; sys.exit('log in first')", "failed: log in first"),
        ("print('no JSON')", "gave no token"),
        ("print('{}')", "gave no token"),
    ],
)
def test_a_plugin_that_fails_is_told_with_its_own_words(
    tmp_path: Path, text: str, words: str
) -> None:
    found = reached(plugin(tmp_path, text), tmp_path)
    with (
        httpx.Client(auth=found.auth) as client,
        pytest.raises(UnavailableError, match=words) as caught,
    ):
        client.get("https://a")
    assert caught.value.hint == "install the plugin"


def test_a_plugin_that_is_not_installed_is_named(tmp_path: Path) -> None:
    user = plugin(tmp_path, "")
    user["exec"]["command"] = "no-such-plugin"
    with (
        httpx.Client(auth=reached(user, tmp_path).auth) as client,
        pytest.raises(UnavailableError, match="no-such-plugin"),
    ):
        client.get("https://a")


@pytest.mark.parametrize("form", ["data", "file"])
def test_a_certificate_of_ones_own_is_loaded(tmp_path: Path, form: str) -> None:
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
    found = reached(user, tmp_path)
    assert isinstance(found.trust, ssl.SSLContext)
    assert found.auth is None
    (tmp_path / "key").write_text("no key")
    broken = {"client-certificate": "crt", "client-key": "key"}
    with pytest.raises(ConfigError, match="certificate"):
        reached(broken, tmp_path)


def test_a_pod_takes_its_own_account(tmp_path: Path) -> None:
    certificate, _ = identity("ada")
    (tmp_path / "ca.crt").write_bytes(certificate)
    (tmp_path / "token").write_text("abc")
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    found = access.find(KubernetesConfig(), environment, tmp_path)
    assert (found.name, found.server) == ("this cluster", "https://10.0.0.1:443")
    assert isinstance(found.auth, access.FileToken)
