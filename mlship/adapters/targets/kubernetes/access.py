"""How a cluster is reached and as whom: a kubeconfig's context, or the pod's own account.

The format: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

import base64
import dataclasses
import json
import ssl
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from mlship.config.targets import KubernetesConfig
from mlship.errors import ConfigError, UnavailableError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PLUGIN_SECONDS = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Access:
    """A cluster's API server, whom to trust there, and how to say who we are.

    Attributes:
        name: the cluster for people, `context staging`.
        server: its address, `https://...`.
        trust: certificates that are believed, and the client's own where it has one.
        auth: adds credentials to each request.
        proxy: the URL of the cluster's own proxy; without one those of the environment count.
    """

    name: str
    server: str
    trust: ssl.SSLContext
    auth: httpx.Auth | None = None
    proxy: str | None = None


class FileToken(httpx.Auth):
    """A token in a file that the kubelet renews: read for each request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Add the token as it is now."""
        try:
            token = self._path.read_text().strip()
        except OSError as error:
            message = f"the token in {self._path} cannot be read: {error.strerror}"
            raise ConfigError(message, hint="correct tokenFile, or mount the account") from error
        request.headers["Authorization"] = f"Bearer {token}"
        yield request


class PluginToken(httpx.Auth):
    """A token that a credential plugin prints, as GKE's and EKS's do; asked again after a 401.

    Its protocol: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
    """

    def __init__(self, plugin: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._plugin = plugin
        self._environment = environment
        self._token = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Add the token; where it is no longer taken, a new one."""
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
            answer = yield request
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                return
        self._token = self._ask()
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request

    def _ask(self) -> str:
        program = str(self._plugin["command"])
        extra = {one["name"]: one["value"] for one in self._plugin.get("env") or ()}
        told = {"apiVersion": self._plugin["apiVersion"], "kind": "ExecCredential", "spec": {}}
        extra["KUBERNETES_EXEC_INFO"] = json.dumps(told)
        hint = self._plugin.get("installHint") or f"run `{program}` by hand"
        try:
            done = subprocess.run(
                [program, *(self._plugin.get("args") or ())],
                env={**self._environment, **extra},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PLUGIN_SECONDS,
                check=True,
            )
            return str(json.loads(done.stdout)["status"]["token"])
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()[-500:]
            message = f"the credential plugin {program} failed: {said or error.returncode}"
            raise UnavailableError(message, hint=hint) from error
        except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as error:
            message = f"the credential plugin {program} gave no token: {error}"
            raise UnavailableError(message, hint=hint) from error


class Token(httpx.Auth):
    """A token that does not change."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Add the token."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def find(
    config: KubernetesConfig, environment: Mapping[str, str], account: Path = ACCOUNT
) -> Access:
    """Return the access that a target's settings mean.

    A named context is taken. Without one, a pod takes its own account, and elsewhere the kubeconfig
    must have one context only: the current one may be any cluster by tomorrow.

    Raises:
        ConfigError: there is no such kubeconfig or context, or it lacks what is needed.
    """
    host = environment.get("KUBERNETES_SERVICE_HOST")
    if config.context is None and config.kubeconfig is None and host and account.is_dir():
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        trust = ssl.create_default_context(cafile=account / "ca.crt")
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        auth = FileToken(account / "token")
        return Access(name="this cluster", server=server, trust=trust, auth=auth)
    # KUBECONFIG may be a list of files; kubectl merges them, here the first one is taken.
    given = config.kubeconfig or environment.get("KUBECONFIG", "").partition(":")[0]
    path = Path(given or "~/.kube/config").expanduser()
    return of_context(_document(path), path, config.context, environment)


def of_context(
    document: Mapping[str, Any], path: Path, context: str | None, environment: Mapping[str, str]
) -> Access:
    """Return the access of a kubeconfig's context.

    Raises:
        ConfigError: there is no such context, or it lacks what is needed.
    """
    contexts = _named(document, "contexts", "context")
    if context is None and len(contexts) == 1:
        context = next(iter(contexts))
    known = ", ".join(contexts) or "none"
    if context is None:
        message = f"{path} has several contexts, and the target names none"
        raise ConfigError(message, hint=f"set kubernetes.context to one of them: {known}")
    if context not in contexts:
        message = f"{path} has no context {context}"
        raise ConfigError(message, hint=f"it has {known}; correct kubernetes.context")
    chosen = contexts[context]
    cluster = _named(document, "clusters", "cluster").get(chosen.get("cluster"))
    user = _named(document, "users", "user").get(chosen.get("user"), {})
    if not cluster or "server" not in cluster:
        message = f"context {context} of {path} names no cluster with a server"
        raise ConfigError(message, hint="`kubectl config view` shows what it has")
    return Access(
        name=f"context {context}",
        server=cluster["server"],
        trust=_trust(cluster, user, path),
        auth=_auth(user, path, environment),
    )


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        message = f"no kubeconfig can be read from {path}: {why}"
        hint = "set kubernetes.kubeconfig or KUBECONFIG to the file that kubectl uses"
        raise ConfigError(message, hint=hint) from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is no kubeconfig", hint="`kubectl config view` shows one")
    return document


def _named(document: Mapping[str, Any], section: str, key: str) -> dict[Any, Mapping[str, Any]]:
    return {one.get("name"): one.get(key) or {} for one in document.get(section) or ()}


def _auth(user: Mapping[str, Any], path: Path, environment: Mapping[str, str]) -> httpx.Auth | None:
    if "tokenFile" in user:
        return FileToken(path.parent / user["tokenFile"])
    if "token" in user:
        return Token(str(user["token"]))
    if "exec" in user:
        return PluginToken(user["exec"], environment)
    return None


def _trust(cluster: Mapping[str, Any], user: Mapping[str, Any], path: Path) -> ssl.SSLContext:
    try:
        trust = ssl.create_default_context(
            cafile=path.parent / cluster["certificate-authority"]
            if "certificate-authority" in cluster
            else None,
            cadata=_decoded(cluster, "certificate-authority-data"),
        )
        if cluster.get("insecure-skip-tls-verify"):
            trust.check_hostname = False
            trust.verify_mode = ssl.CERT_NONE
        _identify(trust, user, path)
    except (OSError, ValueError) as error:
        message = f"a certificate that {path} names cannot be used: {error}"
        raise ConfigError(message, hint="fetch the kubeconfig again") from error
    return trust


def _identify(trust: ssl.SSLContext, user: Mapping[str, Any], path: Path) -> None:
    """Load the client's certificate, which Python takes from files only."""
    if "client-certificate-data" in user:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("crt", "key")]
            for file, key in zip(files, ("certificate", "key"), strict=True):
                file.touch(mode=0o600)
                file.write_text(_decoded(user, f"client-{key}-data") or "")
            trust.load_cert_chain(files[0], files[1])
    elif "client-certificate" in user:
        own = path.parent / user["client-key"] if "client-key" in user else None
        trust.load_cert_chain(path.parent / user["client-certificate"], own)


def _decoded(section: Mapping[str, Any], key: str) -> str | None:
    return base64.b64decode(section[key]).decode() if key in section else None
