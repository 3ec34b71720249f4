"""Access to a cluster: a kubeconfig's context, or the service account of the pod."""

import base64
import binascii
import dataclasses
import importlib.util
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from mlship.adapters.http.addresses import parsed
from mlship.adapters.targets.kubernetes import kubeconfig
from mlship.adapters.targets.kubernetes.credential_plugin import (
    PluginAuth,
    identify,
    plugin_of,
)
from mlship.adapters.targets.kubernetes.credentials import (
    FileToken,
    Headers,
    Impersonation,
    Token,
    header_name,
    is_safe,
)
from mlship.adapters.targets.kubernetes.kubeconfig import Choice, Cluster, Origin, User
from mlship.config.targets import KubernetesConfig
from mlship.errors import ConfigError, shown
from mlship.files import read_regular

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LARGEST = 1 << 20
_PROXIES = ("http", "https", "socks5")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Access:
    """A cluster's API server, trusted certificates, and credentials.

    `trust` also has the server name to verify and the client's certificate, `auth` also the headers
    of impersonation.

    Attributes:
        name: the cluster for people, `context staging`.
        server: its address, `https://...`; it may have a password.
        trust: the trusted certificates.
        auth: adds credentials to each request.
        proxy: the URL of the cluster's own proxy; by default the environment's.
    """

    name: str
    server: str
    trust: ssl.SSLContext
    auth: httpx.Auth | None = None
    proxy: str | None = None


class NamedContext(ssl.SSLContext):
    """Verifies the server's certificate for another name than the address, if one is set.

    An extension of a request would do the same, but not in the tunnel of an HTTP proxy.
    """

    server_name: str = ""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Start TLS on a socket with the server of that name."""
        kwargs["server_hostname"] = self.server_name or kwargs.get("server_hostname")
        return super().wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Start TLS inside the TLS connection to a proxy."""
        kwargs["server_hostname"] = self.server_name or kwargs.get("server_hostname")
        return super().wrap_bio(*args, **kwargs)


def find(
    config: KubernetesConfig, environment: Mapping[str, str], account: Path = ACCOUNT
) -> Access:
    """Return the access to the cluster of a target's settings.

    The context in the settings is used. Without one, a pod uses its service account unless
    KUBECONFIG is set; elsewhere the kubeconfig must have exactly one context. The current context
    is never used: it may be another cluster tomorrow.

    Raises:
        ConfigError: the kubeconfig or context does not exist, or is incomplete.
    """
    variable = environment.get("KUBECONFIG", "")
    host = environment.get("KUBERNETES_SERVICE_HOST")
    is_free = config.context is None and config.kubeconfig is None and not variable
    if is_free and host and account.is_dir():
        return _of_account(account, host, environment.get("KUBERNETES_SERVICE_PORT", "443"))
    # A file in the settings is one file; only the variable is a list.
    files = (
        [kubeconfig.expanded(config.kubeconfig)]
        if config.kubeconfig
        else kubeconfig.paths(variable) or [kubeconfig.expanded("~/.kube/config")]
    )
    return of_choice(kubeconfig.choose(kubeconfig.load(files), config.context), environment)


def of_choice(choice: Choice, environment: Mapping[str, str]) -> Access:
    """Return the access of a kubeconfig's context.

    Raises:
        ConfigError: a field cannot be used; the message names file, context and field.
    """
    cluster, origin = choice.cluster, choice.cluster_origin
    address = _address(cluster.server, origin)
    authority = _authority(cluster, origin)
    trust = _trust(cluster, authority, origin)
    _identify(trust, choice.user, choice.user_origin)
    auth = _impersonating(choice, _auth(choice, authority, trust, environment))
    has_credentials = auth is not None or bool(address.userinfo)
    if has_credentials and address.scheme == "http" and not _is_local(address.host):
        raise origin.error("server: credentials are sent over https only", "use https://")
    return Access(
        name=kubeconfig.plain(f"context {choice.context}"),
        server=cluster.server,
        trust=trust,
        auth=auth,
        proxy=_proxy(cluster, origin),
    )


def _of_account(account: Path, host: str, port: str) -> Access:
    try:
        trust = ssl.create_default_context(cafile=account / "ca.crt")
    except OSError as error:
        why = error.strerror or str(error)
        message = f"the pod's account: cannot read {account / 'ca.crt'}: {why}"
        raise ConfigError(message, hint="mount the account, or set kubernetes.context") from error
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    try:
        parsed(server)
    except ValueError as error:
        message = f"KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: {shown(server)}: {error}"
        raise ConfigError(message, hint="unset them, or set kubernetes.context") from error
    auth = FileToken(account / "token")
    return Access(name="this cluster", server=server, trust=trust, auth=auth)


def _address(server: str, origin: Origin) -> httpx.URL:
    try:
        address = parsed(server)
    except ValueError as error:
        # Without a scheme, `shown` would not know a password.
        text = shown(server) if "://" in server else server.rpartition("@")[2]
        problem = f"got {text}: {error}" if server else "got nothing"
        raise origin.error(f"server: expected https://HOST:PORT, {problem}") from error
    if address.scheme not in ("http", "https"):
        raise origin.error(f"server: expected https://HOST:PORT, got {shown(server)}")
    return address


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _auth(
    choice: Choice, authority: bytes, trust: ssl.SSLContext, environment: Mapping[str, str]
) -> httpx.Auth | None:
    user, origin = choice.user, choice.user_origin
    _check(user, origin)
    if user.token_file:
        return FileToken(origin.path(user.token_file), user.token)
    if user.token:
        return Token(user.token)
    if user.username or user.password:
        return httpx.BasicAuth(user.username, user.password)
    if user.exec is not None and not _has_certificate(user):
        plugin = plugin_of(user.exec, choice.cluster, authority, environment, origin)
        return PluginAuth(plugin, trust)
    return None


def _check(user: User, origin: Origin) -> None:
    if user.auth_provider is not None:
        name = user.auth_provider.get("name") or "without a name"
        raise origin.error(
            f"auth-provider {name}: Kubernetes has replaced auth providers by credential plugins",
            "fetch the kubeconfig again with the provider's current tools; it then has `exec`",
        )
    if (user.token or user.token_file) and (user.username or user.password):
        raise origin.error("token and username: only one of them may be set")
    if not is_safe(user.token):
        raise origin.error("token has characters that no header may have")


def _impersonating(choice: Choice, auth: httpx.Auth | None) -> httpx.Auth | None:
    user, origin = choice.user, choice.user_origin
    if not user.impersonate:
        if user.as_uid or user.as_groups or user.as_user_extra:
            raise origin.error("as is missing: as-uid, as-groups and as-user-extra need it")
        return auth
    headers: Headers = [
        ("Impersonate-User", user.impersonate),
        *([("Impersonate-Uid", user.as_uid)] if user.as_uid else []),
        *(("Impersonate-Group", group) for group in user.as_groups),
        *(
            (f"Impersonate-Extra-{header_name(key)}", value)
            for key, values in user.as_user_extra.items()
            for value in values
        ),
    ]
    for name, value in headers:
        if not is_safe(value):
            raise origin.error(f"the value for {name} has characters that no header may have")
    return Impersonation(headers, auth)


def _authority(cluster: Cluster, origin: Origin) -> bytes:
    """Return the certificates (PEM) that the cluster's own must lead to; empty for the system's."""
    field = "certificate-authority"
    if cluster.certificate_authority_data:
        return _decoded(cluster.certificate_authority_data, f"{field}-data", origin)
    if cluster.certificate_authority:
        return _read(cluster.certificate_authority, field, origin)
    return b""


def _trust(cluster: Cluster, authority: bytes, origin: Origin) -> NamedContext:
    trust = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.server_name = cluster.tls_server_name
    if cluster.insecure_skip_tls_verify:
        if authority:
            text = "insecure-skip-tls-verify and certificate-authority: only one may be set"
            raise origin.error(text)
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
    elif authority:
        try:
            trust.load_verify_locations(cadata=authority.decode("ascii"))
        except (OSError, ValueError) as error:
            raise origin.error("certificate-authority is not a certificate (PEM)") from error
    else:
        trust.load_default_certs()
    return trust


def _has_certificate(user: User) -> bool:
    return bool(user.client_certificate or user.client_certificate_data)


def _identify(trust: ssl.SSLContext, user: User, origin: Origin) -> None:
    """Load the client's certificate, where the user has one."""
    if not _has_certificate(user):
        return
    if not (user.client_key or user.client_key_data):
        raise origin.error("client-key is missing: client-certificate needs it")
    certificate, key = (
        _decoded(data, f"{field}-data", origin) if data else _read(file, field, origin)
        for field, file, data in (
            ("client-certificate", user.client_certificate, user.client_certificate_data),
            ("client-key", user.client_key, user.client_key_data),
        )
    )
    try:
        identify(trust, certificate.decode("ascii"), key.decode("ascii"))
    except (OSError, ValueError) as error:
        text = "client-certificate and client-key are not a certificate and its key (PEM)"
        raise origin.error(text) from error


def _proxy(cluster: Cluster, origin: Origin) -> str | None:
    if not cluster.proxy_url:
        return None
    try:
        url = parsed(cluster.proxy_url)
    except ValueError as error:
        raise origin.error(
            f"proxy-url: expected http, https or socks5 and a host: {error}"
        ) from error
    if url.scheme not in _PROXIES:
        # Without the address: it may hold a password.
        kind = url.scheme if "://" in cluster.proxy_url else "no scheme"
        raise origin.error(f"proxy-url: expected http, https or socks5 and a host, got {kind}")
    if url.scheme == "socks5" and importlib.util.find_spec("socksio") is None:
        text = "proxy-url: socks5 needs the Python package socksio, which is not installed"
        raise origin.error(text, "pip install socksio")
    return cluster.proxy_url


def _decoded(text: str, field: str, origin: Origin) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise origin.error(f"{field} is not base64") from error


def _read(name: str, field: str, origin: Origin) -> bytes:
    path = origin.path(name)
    try:
        return read_regular(path, _LARGEST)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or str(error)
        raise origin.error(f"{field}: cannot read {path}: {why}") from error
