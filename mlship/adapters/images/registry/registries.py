"""The registries of a project: its own, and those of base images."""

import threading
from collections.abc import Mapping, Sequence

import httpx

from mlship.adapters.http.clients import Reach
from mlship.adapters.http.retries import Patience, Timing
from mlship.adapters.images.build.manifests import (
    DOCKER_INDEX,
    INDEX,
    Base,
    choose,
    decode_configuration,
    decode_manifest,
    other_platform,
)
from mlship.adapters.images.registry import google_credentials
from mlship.adapters.images.registry.client import PATIENCE, Exchange
from mlship.adapters.images.registry.credentials import Credential, credential
from mlship.adapters.images.registry.registry import Registry
from mlship.config.project import ImageConfig
from mlship.domain.image import Platform, Reference, is_google, reference
from mlship.errors import ConfigError


class Registries:
    """Returns the registry of a reference, always the same object.

    Args:
        config: names the project's repository and the registries without TLS.
        environment: has credentials, or the place of Docker's.
        transport: replaces the registries in tests.
        timing: time and randomness.
        patience: how long a registry is waited for.

    Raises:
        ConfigError: the repository's name is invalid, or has a tag.
    """

    def __init__(
        self,
        config: ImageConfig,
        environment: Mapping[str, str],
        *,
        transport: httpx.BaseTransport | None = None,
        timing: Timing = Timing(),  # noqa: B008 (frozen)
        patience: Patience = PATIENCE,
    ) -> None:
        self.repository = repository(config.repository) if config.repository else None
        self._insecure = config.insecure
        self._environment = environment
        self._reach = Reach(environment=environment, transport=transport)
        self._timing = timing
        self._patience = patience
        self._known: dict[str, Registry] = {}
        self._lock = threading.Lock()

    def of(self, name: Reference) -> Registry:
        """Return the registry that a reference names."""
        with self._lock:
            if name.registry not in self._known:
                exchange = Exchange(
                    name.registry,
                    lambda: self._credential(name.registry),
                    insecure=self._insecure,
                    reach=self._reach,
                    timing=self._timing,
                    patience=self._patience,
                )
                self._known[name.registry] = Registry(exchange)
            return self._known[name.registry]

    def close(self) -> None:
        """Close all connections; the next request opens others."""
        with self._lock:
            for registry in self._known.values():
                registry.exchange.close()

    def own(self) -> Reference:
        """Return the project's repository.

        Raises:
            ConfigError: none is configured.
        """
        if self.repository is None:
            message = "mlship.yaml has no image.repository to push images to"
            raise ConfigError(message, hint="set image.repository: registry/name")
        return self.repository

    def reach(self) -> str:
        """Return that images can be pushed, as far as is known without a push.

        Raises:
            ConfigError: no repository is configured, or credentials cannot be read.
            UnavailableError: the registry does not answer, or denies access.
        """
        own = self.own()
        has_tags = self.of(own).holds_tags(own.repository)
        return f"{own.name} answers" + ("" if has_tags else " and has nothing yet")

    def base(self, name: Reference, platforms: Sequence[Platform]) -> dict[Platform, Base]:
        """Resolve a base image on each platform. Its layers are not downloaded.

        Raises:
            ConfigError: the image does not exist, or not for a platform.
            UnavailableError: its registry does not answer, or denies access.
            IntegrityError: its manifest or configuration is invalid.
        """
        stored = self.of(name).manifest(name)
        if stored is None:
            message = f"base image {name} does not exist"
            raise ConfigError(message, hint="correct image.base; `docker pull` shows what exists")
        by_digest = name.at(stored.digest)
        if stored.media_type not in (INDEX, DOCKER_INDEX):
            return {
                platform: self._base(by_digest, stored.data, platform, str(name))
                for platform in platforms
            }
        bases = {}
        for platform in platforms:
            chosen = name.at(choose(stored.data, platform, str(name)))
            entry = self.of(name).manifest(chosen)
            if entry is None:
                message = f"{name} names {chosen.digest} for {platform}, which does not exist"
                raise ConfigError(message, hint="set image.base to a complete image")
            bases[platform] = self._base(by_digest, entry.data, platform, str(name))
        return bases

    def _base(self, by_digest: Reference, data: bytes, platform: Platform, name: str) -> Base:
        manifest = decode_manifest(data, name)
        blob = self.of(by_digest).small_blob(by_digest.repository, manifest.config.digest)
        config = decode_configuration(blob, name)
        if f"{config.os}/{config.architecture}" != platform:
            raise other_platform(name, f"{config.os}/{config.architecture}", platform)
        return Base(reference=by_digest, manifest=manifest, configuration=config)

    def _credential(self, host: str) -> Credential | None:
        is_own = self.repository is not None and self.repository.registry == host
        stored = credential(host, self._environment, is_own=is_own)
        if stored is None and is_google(host):
            return google_credentials.credential(host)
        return stored


def repository(text: str, setting: str = "image.repository") -> Reference:
    """Return the reference of a repository.

    Raises:
        ConfigError: the name is invalid, or has a tag or a digest.
    """
    named = reference(text)
    if named.tag or named.digest:
        message = f"{setting} {text} has a tag or a digest"
        raise ConfigError(message, hint=f"set it to {named.name}; mlship adds a tag")
    return named
