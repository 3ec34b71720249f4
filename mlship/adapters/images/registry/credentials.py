"""Credentials for a registry, from Docker's files and helpers or from the environment.

Credentials in the environment are sent only to the project's own registry, never to that of a base
image. Protocol: https://distribution.github.io/distribution/spec/auth/token/.
"""

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlship.domain.image import DOCKER_HUB
from mlship.errors import ConfigError

_HUB_KEY = "https://index.docker.io/v1/"
_PARAMETER = re.compile(r'([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_SECONDS = 30.0


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A user with a password, or an identity token that is exchanged for access tokens."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        """Return a text without secrets."""
        return f"Credential(user={self.user!r})"

    @property
    def basic(self) -> str:
        """The Authorization header of basic authentication."""
        pair = f"{self.user}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """The authentication that a 401 response requires."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def challenge(header: str) -> Challenge | None:
    """Return the challenge in a WWW-Authenticate header; `None` for another scheme."""
    scheme, _, rest = header.strip().partition(" ")
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        for name, quoted, plain in _PARAMETER.findall(rest)
    }
    if scheme.lower() not in ("basic", "bearer"):
        return None
    return Challenge(
        scheme=scheme.lower(),
        realm=parameters.get("realm", ""),
        service=parameters.get("service", ""),
        scope=parameters.get("scope", ""),
    )


def credential(host: str, environment: Mapping[str, str], *, is_own: bool) -> Credential | None:
    """Return the credentials for a registry; `None` for anonymous access.

    Args:
        host: the registry, `localhost:5000`.
        environment: has MLSHIP_REGISTRY_USER and _PASSWORD, or the place of Docker's files.
        is_own: whether the project pushes to this registry.

    Raises:
        ConfigError: Docker's configuration or a credential helper cannot be read.
    """
    user, password = (environment.get(f"MLSHIP_REGISTRY_{x}", "") for x in ("USER", "PASSWORD"))
    if is_own and bool(user) != bool(password):
        message = "MLSHIP_REGISTRY_USER and MLSHIP_REGISTRY_PASSWORD must be set together"
        raise ConfigError(message, hint="set both, or neither")
    if is_own and user:
        return Credential(user=user, password=password)
    return _of_docker(host, environment)


def _of_docker(host: str, environment: Mapping[str, str]) -> Credential | None:
    home = environment.get("DOCKER_CONFIG") or f"{environment.get('HOME', '/nonexistent')}/.docker"
    path = Path(home) / "config.json"
    try:
        settings = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        message = f"cannot read {path}: {error}"
        raise ConfigError(message, hint="correct it, or run `docker login` again") from error
    settings = settings if isinstance(settings, dict) else {}
    for key in _keys(host):
        helper = _section(settings, "credHelpers").get(key)
        if helper:
            return _of_helper(str(helper), key, environment)
    store = settings.get("credsStore")
    if store:
        return _of_helper(str(store), _keys(host)[0], environment)
    for key in _keys(host):
        entry = _section(settings, "auths").get(key)
        if isinstance(entry, dict):
            return _of_entry(entry, path, key)
    return None


def _section(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}


def _keys(host: str) -> list[str]:
    if host == DOCKER_HUB:
        return [_HUB_KEY, "docker.io", "index.docker.io"]
    return [host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]


def _of_entry(entry: Mapping[str, Any], path: Path, key: str) -> Credential | None:
    if entry.get("identitytoken"):
        return Credential(identity_token=str(entry["identitytoken"]))
    if not entry.get("auth"):
        return None
    try:
        pair = base64.b64decode(str(entry["auth"]), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        message = f"{path}: auths.{key}.auth is not base64"
        raise ConfigError(message, hint=f"docker login {key}") from error
    user, _, password = pair.partition(":")
    return Credential(user=user, password=password.rstrip("\0"))


def _of_helper(name: str, server: str, environment: Mapping[str, str]) -> Credential | None:
    """Ask a credential helper: https://github.com/docker/docker-credential-helpers."""
    program = f"docker-credential-{name}"
    if not _HELPER.fullmatch(name):
        message = f"Docker's configuration names a credential helper {name[:40]!r}"
        raise ConfigError(message, hint="correct ~/.docker/config.json")
    try:
        process = subprocess.run(
            [program, "get"],
            input=server,
            env=dict(environment),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"cannot run the credential helper {program} for {server}: {error}"
        raise ConfigError(message, hint="install it, or set MLSHIP_REGISTRY_USER") from error
    if process.returncode:
        output = (process.stdout + process.stderr).strip()
        if "not found" in output.lower():
            return None
        message = f"{program} returned no credential for {server}: {output[:200]}"
        raise ConfigError(message, hint=f"log in again: docker login {server}")
    try:
        answer = json.loads(process.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"{program} did not return JSON with Username and Secret"
        raise ConfigError(message, hint="update it") from error
    if user == "<token>":
        return Credential(identity_token=secret)
    return Credential(user=user, password=secret)
