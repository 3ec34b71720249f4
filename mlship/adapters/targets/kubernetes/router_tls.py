"""TLS at a router: its certificate is in a Secret, which its Envoys read again when it is renewed.

A volume has the Secret's two files and the one that names them for Envoy. The kubelet renews all of
a volume at once by renaming a link, which Envoy watches: it takes a new certificate without a
restart, and keeps the former one if both files do not fit together.
"""

import base64
import binascii
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from mlship.adapters.targets.envoy import resources
from mlship.adapters.targets.kubernetes import reference
from mlship.adapters.targets.kubernetes.api import Api, Kind, Manifest
from mlship.domain import tls
from mlship.domain.ports import Progress
from mlship.errors import ConfigError, MlshipError, NotFoundError

RIGHTS: Final[dict[Kind, tuple[str, ...]]] = {"Secret": ("get",)}
"""The additional right for `tls_secret`, for that Secret only."""
ANNOTATION: Final = "mlship.dev/certificate"
"""Of a router's pods: the text of the file by which Envoy finds the certificate."""
HTTP: Final = "http"
HTTPS: Final = "https"
"""Names of the ports of a router's Service and of its pods."""
_TYPE: Final = "kubernetes.io/tls"
_CERTIFICATE: Final = "tls.crt"
_KEY: Final = "tls.key"
_FOLDER: Final = PurePosixPath("/etc/mlship/tls")
_FILE: Final = "certificate.json"
_NAME: Final = "router"
_VOLUME: Final = "tls"
_MODE: Final = 0o440
"""Envoy's group may read the key, nobody else in the pod."""


class Pair(NamedTuple):
    """What a Secret has: the certificate in PEM, before those that issued it, and its key."""

    certificate: bytes
    key: bytes


def encrypted(listener: Manifest) -> Manifest:
    """Return a listener of a router for HTTPS."""
    return resources.encrypted(listener, _NAME, _FOLDER / _FILE)


def mounted(template: Manifest, secret: str) -> Manifest:
    """Return the template of a router's pods with the Secret in a volume.

    The Secret is required: pods without it do not start, and the former ones stay.
    """
    metadata, spec = template["metadata"], template["spec"]
    # The name of the file's contents never changes: what it leads to is watched for itself.
    file = resources.secret(
        _NAME,
        "1",
        {"filename": str(_FOLDER / _CERTIFICATE)},
        {"filename": str(_FOLDER / _KEY)},
        watched=_FOLDER,
    )
    pair = {"name": secret, "items": [{"key": key, "path": key} for key in (_CERTIFICATE, _KEY)]}
    field = {"fieldPath": f"metadata.annotations['{ANNOTATION}']"}
    sources = [{"secret": pair}, {"downwardAPI": {"items": [{"path": _FILE, "fieldRef": field}]}}]
    volume = {"name": _VOLUME, "projected": {"defaultMode": _MODE, "sources": sources}}
    (container,) = spec["containers"]
    mount = {"name": _VOLUME, "mountPath": str(_FOLDER), "readOnly": True}
    container = {**container, "volumeMounts": [*container["volumeMounts"], mount]}
    annotations = {**metadata.get("annotations", {}), ANNOTATION: file.decode()}
    return {
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**spec, "containers": [container], "volumes": [*spec["volumes"], volume]},
    }


def secret_of(deployment: Manifest | None) -> str | None:
    """Return the Secret that the pods of a router mount; `None` if they speak HTTP."""
    if deployment is None:
        return None
    for volume in deployment["spec"]["template"]["spec"].get("volumes") or ():
        if volume["name"] == _VOLUME:
            (name,) = (
                each["secret"]["name"]
                for each in volume["projected"]["sources"]
                if "secret" in each
            )
            return str(name)
    return None


def read(api: Api, secret: str) -> Pair:
    """Return what a Secret has.

    Raises:
        NotFoundError: it does not exist.
        ConfigError: it is of another type, or cannot be read.
        UnavailableError: mlship may not read it.
    """
    found = api.get("Secret", secret)
    create = f"`kubectl --namespace {api.namespace} create secret tls {secret} --cert FILE --key "
    create += "FILE`"
    if found is None:
        message = f"{api.cluster} has no Secret {secret} in namespace {api.namespace}"
        raise NotFoundError(message, hint=f"create it: {create}")
    if found.get("type") != _TYPE:
        message = f"Secret {secret} in namespace {api.namespace} of {api.cluster} is of type "
        message += f"{found.get('type')}, not {_TYPE}"
        hint = f"delete it, then create it: {create}; or name another in kubernetes.tls_secret"
        raise ConfigError(message, hint=hint)
    data = found.get("data") or {}
    try:
        return Pair(*(base64.b64decode(data.get(key) or "") for key in (_CERTIFICATE, _KEY)))
    except binascii.Error as error:
        message = f"Secret {secret} of {api.cluster} cannot be read: {error}"
        raise ConfigError(message, hint=f"create it anew: {create}") from error


def expiry(api: Api, secret: str) -> datetime:
    """Check that clients accept the certificate in a Secret, and return when it expires.

    Raises:
        as `read`; ConfigError: as `tls.check`.
    """
    return tls.check_pair(*read(api, secret), f"Secret {secret}")


def check(api: Api, secret: str | None, running: Callable[[], Manifest | None]) -> None:
    """Check the certificate that a router gets; one that it has already refuses no deployment.

    Raises:
        as `expiry`.
    """
    if secret is not None and secret_of(running()) != secret:
        expiry(api, secret)


def tell(api: Api, secret: str | None, progress: Progress) -> None:
    """Note that clients refuse the certificate of a router, or soon will."""
    if secret is None:
        return
    try:
        until = expiry(api, secret)
    except MlshipError as error:
        progress.note(f"warning: {error.message}; {error.hint}")
        return
    if until - datetime.now(UTC) <= tls.RENEWAL:
        progress.note(f"warning: Secret {secret} expires at {until:%Y-%m-%d %H:%M} UTC; renew it")


def trust(api: Api, running: Callable[[], Manifest | None]) -> Callable[[], ssl.SSLContext]:
    """Return what gives the trust of mlship's own requests: exactly the certificate of the Secret.

    Where the Secret cannot be read, it is the system's: such a request may stay without an answer,
    and the caller then goes on without one.

    Args:
        api: of the router's namespace.
        running: returns the Deployment of the router, which may have another Secret than it gets.
    """

    def context() -> ssl.SSLContext:
        with suppress(MlshipError):
            if (secret := secret_of(running())) is not None:
                text = read(api, secret).certificate.decode("ascii", errors="replace")
                return tls.context_of(text, f"tls.crt of Secret {secret}")
        return ssl.create_default_context()

    return context


def scheme(service: Manifest, running: Callable[[], Manifest | None]) -> str:
    """Return how a router is asked, `http` or `https`.

    Args:
        service: of the router. During a change, it has both ports.
        running: returns the Deployment of the router, which then tells what its pods speak.
    """
    names = _names(service["spec"].get("ports") or ())
    if names != {HTTP, HTTPS}:
        return HTTPS if HTTPS in names else HTTP
    return HTTP if secret_of(running()) is None else HTTPS


def open_during(api: Api, service: Manifest) -> Manifest:
    """Return a Service of a router with the port of the former one, until its pods have ended.

    A port leads to pods that have a port of its name only.
    """
    current = api.get("Service", service["metadata"]["name"])
    if current is None:
        return service
    ports = service["spec"]["ports"]
    fields = ports[0].keys()
    former = [
        {field: value for field, value in port.items() if field in fields}
        for port in current["spec"].get("ports") or ()
        if port.get("name") in {HTTP, HTTPS} - _names(ports)
    ]
    return {**service, "spec": {**service["spec"], "ports": [*ports, *former]}}


def close_former(api: Api, service: Manifest) -> None:
    """Take the port of the former scheme from the Service of a router, whose pods are replaced."""
    current = api.get("Service", service["metadata"]["name"])
    if current is None:
        return
    if _names(current["spec"].get("ports") or ()) >= {HTTP, HTTPS}:
        api.apply(reference.kept(api, service))


def _names(ports: Sequence[dict[str, Any]]) -> set[str]:
    return {str(port.get("name")) for port in ports}
