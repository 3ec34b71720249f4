"""Credential plugins: programs that print a token or a certificate, as GKE's and EKS's do.

Their protocol: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
"""

import base64
import dataclasses
import datetime as dt
import functools
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from mlship.adapters.targets.kubernetes.credentials import Flow, is_safe
from mlship.adapters.targets.kubernetes.kubeconfig import (
    Cluster,
    Origin,
    PluginSettings,
    plain,
)
from mlship.domain.untrusted import decoded
from mlship.errors import UnavailableError

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_EXTENSION = "client.authentication.k8s.io/exec"
_SECONDS = 30.0
_SECRET = re.compile(r"--?[\w-]*(?:secret|password|passphrase|token)", re.IGNORECASE)
"""An option whose value is not shown."""


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: dt.datetime | None = None


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = ""
    api_version: str = ""
    status: _Status | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Credentials:
    """The output of a plugin: a token, a certificate with its key (PEM), or both."""

    token: str
    certificate: str
    key: str
    expires: dt.datetime | None

    def are_valid(self, now: dt.datetime) -> bool:
        """Return whether they have not expired."""
        return self.expires is None or now < self.expires


class Plugin:
    """One plugin with its settings, run only if there are no valid credentials.

    Args:
        command: the program, its path resolved where it has one, and its arguments.
        version: of the protocol.
        cluster: the cluster information that it gets; `None` if it asks for none.
        mode: `Never`, `IfAvailable` or `Always`: whether it may ask questions in the terminal.
        environment: of the program.
        path: the folders in which it is searched.
        hint: what to do if it is not installed.
        now: returns the time.
        is_terminal: returns whether stdin is a terminal.
    """

    def __init__(  # noqa: PLR0913 (all of it is what a kubeconfig says, named by the callers)
        self,
        command: tuple[str, ...],
        *,
        version: str,
        cluster: Mapping[str, Any] | None,
        mode: str,
        environment: Mapping[str, str],
        path: str,
        hint: str,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        is_terminal: Callable[[], bool] = lambda: bool(sys.stdin and sys.stdin.isatty()),
    ) -> None:
        self._command = command
        self._version = version
        self._cluster = cluster
        self._mode = mode
        self._environment = environment
        self._path = path
        self._hint = hint
        self._now = now
        self._is_terminal = is_terminal
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None

    def credentials(self, refused: Credentials | None = None) -> Credentials:
        """Return valid credentials, different from those that the server refused.

        Raises:
            UnavailableError: the plugin fails, or prints no credentials.
        """
        with self._lock:
            held = self._credentials
            if held is None or held is refused or not held.are_valid(self._now()):
                held = self._credentials = self._run()
            return held

    def _run(self) -> Credentials:
        is_interactive = self._mode != "Never" and self._is_terminal()
        if self._mode == "Always" and not is_interactive:
            hint = "run the command in a terminal, or use another user of the kubeconfig"
            raise self._fault("asks questions, and there is no terminal", hint)
        program = shutil.which(self._command[0], path=self._path)
        if program is None:
            raise self._fault("is not installed, or is not executable", self._hint or "install it")
        try:
            printed = _output(
                [program, *self._command[1:]],
                {**self._environment, "KUBERNETES_EXEC_INFO": self._information(is_interactive)},
                is_interactive=is_interactive,
            )
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"").decode(errors="replace").strip()[-500:]
            raise self._fault(f"failed: {said or f'exit code {error.returncode}'}") from error
        except subprocess.TimeoutExpired as error:
            raise self._fault(f"did not end in {_SECONDS:g} s") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "") or str(error)
            raise self._fault(f"does not start: {why}") from error
        return self._read(printed)

    def _information(self, is_interactive: bool) -> str:  # noqa: FBT001 (its caller names it)
        spec: dict[str, Any] = {"interactive": is_interactive}
        if self._cluster is not None:
            spec["cluster"] = self._cluster
        document = {"apiVersion": self._version, "kind": "ExecCredential", "spec": spec}
        return msgspec.json.encode(document).decode()

    def _read(self, printed: bytes) -> Credentials:
        try:
            answer = decoded(_ANSWER.decode, printed)
        except msgspec.DecodeError as error:
            # Its output is secret: only the place of the fault is shown.
            raise self._fault(f"printed no ExecCredential: {error}") from error
        status = answer.status
        if answer.kind != "ExecCredential" or answer.api_version != self._version:
            got = f"{answer.kind or 'nothing'} of {answer.api_version or 'no version'}"
            raise self._fault(f"printed {got}, not ExecCredential of {self._version}")
        if status is None or not (status.token or status.client_certificate_data):
            raise self._fault("printed no token and no certificate")
        if bool(status.client_certificate_data) != bool(status.client_key_data):
            raise self._fault("printed only one of certificate and key")
        if not is_safe(status.token or ""):
            raise self._fault("printed a token with characters that no header may have")
        expires = status.expiration_timestamp
        if expires is not None and expires.tzinfo is None:
            raise self._fault("printed an expirationTimestamp without a time zone")
        return Credentials(
            token=status.token or "",
            certificate=status.client_certificate_data or "",
            key=status.client_key_data or "",
            expires=expires,
        )

    def _fault(self, text: str, hint: str = "") -> UnavailableError:
        message = plain(f"credential plugin {self._command[0]} {text}")
        command = shlex.join(masked(self._command))
        hint = hint or self._hint or f"run `{command}` to see what is wrong"
        return UnavailableError(message, hint=plain(hint))


def masked(command: Sequence[str]) -> list[str]:
    """Return a command as it may be shown: the values of options for secrets are `***`."""
    shown: list[str] = []
    is_secret = False
    for part in command:
        option, equals, _ = part.partition("=")
        names_secret = _SECRET.fullmatch(option) is not None
        if is_secret and not part.startswith("-"):
            shown.append("***")
        else:
            shown.append(f"{option}=***" if names_secret and equals else part)
        is_secret = names_secret and not equals
    return shown


class PluginAuth(httpx.Auth):
    """Credentials of a plugin; requested again when they expire, and once after a 401."""

    def __init__(self, plugin: Plugin, trust: ssl.SSLContext) -> None:
        self._plugin = plugin
        self._trust = trust
        self._loaded = ""
        self._lock = threading.Lock()

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Add the credentials; after a 401, new ones."""
        credentials = self._plugin.credentials()
        self._add(request, credentials)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._add(request, self._plugin.credentials(refused=credentials))
            yield request

    def _add(self, request: httpx.Request, credentials: Credentials) -> None:
        if credentials.token:
            request.headers["Authorization"] = f"Bearer {credentials.token}"
        if not credentials.certificate:
            return
        # A connection keeps its certificate. Without kept connections, the next request uses the
        # next certificate.
        request.headers["Connection"] = "close"
        with self._lock:
            if self._loaded == credentials.certificate:
                return
            try:
                identify(self._trust, credentials.certificate, credentials.key)
            except (OSError, ValueError) as error:
                message = f"cannot use the certificate of a credential plugin: {error}"
                raise UnavailableError(message, hint="log in again with the plugin") from error
            self._loaded = credentials.certificate


def plugin_of(
    settings: PluginSettings,
    cluster: Cluster,
    authority: bytes,
    environment: Mapping[str, str],
    origin: Origin,
) -> Plugin:
    """Return the plugin of a kubeconfig's user: the same object for the same settings.

    Raises:
        ConfigError: the settings are not complete.
    """
    if not settings.command:
        raise origin.error("exec.command is missing")
    if settings.api_version not in VERSIONS:
        version = settings.api_version or "nothing"
        raise origin.error(
            f"exec.apiVersion: expected {' or '.join(VERSIONS)}, got {version}",
            "install a newer version of the plugin, and fetch the kubeconfig again",
        )
    mode = settings.interactive_mode
    if not mode and settings.api_version == VERSIONS[0]:
        raise origin.error("exec.interactiveMode is missing: Never, IfAvailable or Always")
    # As in a shell, a name is searched in PATH; a path is relative to the file's folder.
    has_path = os.sep in settings.command
    command = str(origin.path(settings.command)) if has_path else settings.command
    information = b""
    if settings.provide_cluster_info:
        try:
            information = msgspec.json.encode(_information(cluster, authority))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise origin.error(f"exec.provideClusterInfo: {_EXTENSION} is not JSON") from error
    return _plugin(
        (command, *settings.args),
        settings.api_version,
        information,
        mode or "IfAvailable",
        frozenset(
            {**environment, **{variable.name: variable.value for variable in settings.env}}.items()
        ),
        environment.get("PATH", os.defpath),
        settings.install_hint,
    )


# Several connections of one command share one plugin: it may take a second, or ask questions.
@functools.lru_cache(maxsize=32)
def _plugin(
    command: tuple[str, ...],
    version: str,
    cluster: bytes,
    mode: str,
    environment: frozenset[tuple[str, str]],
    path: str,
    hint: str,
) -> Plugin:
    return Plugin(
        command,
        version=version,
        cluster=msgspec.json.decode(cluster) if cluster else None,
        mode=mode,
        environment=dict(environment),
        path=path,
        hint=hint,
    )


def _information(cluster: Cluster, authority: bytes) -> dict[str, Any]:
    """Return the cluster information for a plugin that asks for it."""
    information: dict[str, Any] = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": base64.b64encode(authority).decode(),
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
        "config": next(
            (
                each.get("extension")
                for each in cluster.extensions
                if each.get("name") == _EXTENSION
            ),
            None,
        ),
    }
    return {name: value for name, value in information.items() if value}


def _output(command: list[str], environment: dict[str, str], *, is_interactive: bool) -> bytes:
    """Run a program and return its output; an interactive one gets the terminal."""
    if is_interactive:
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            printed, said = process.communicate(timeout=_SECONDS)
        except BaseException:
            # With its children, which would keep the pipes open.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, printed, said)
    return printed


def identify(trust: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a client's certificate and key (PEM), which Python takes from files only.

    Raises:
        OSError, ValueError: they are not a certificate and its key.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("crt", "key")]
        for file, text in zip(files, (certificate, key), strict=True):
            file.touch(mode=0o600)
            file.write_text(text)
        # The password is for an encrypted key: OpenSSL would ask the terminal for it.
        trust.load_cert_chain(files[0], files[1], password="")
