"""The registries that a project deals with: its own, and those that base images come from."""

import threading
from collections.abc import Mapping, Sequence

import httpx

from mlship.adapters.http.clients import Reach
from mlship.adapters.http.retries import Timing
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
from mlship.adapters.images.registry.client import Exchange
from mlship.adapters.images.registry.credentials import Credential, credential
from mlship.adapters.images.registry.registry import Registry
from mlship.config.project import ImageConfig
from mlship.domain.image import Platform, Reference, is_google, reference
from mlship.errors import ConfigError


class Registries:
    """Gives the registry of a reference, the same one each time.

    Args:
        config: names the project's repository and the registries without TLS.
        environment: holds credentials, or says where Docker's are.
        transport: answers in the registries' place, in tests.
        timing: time and randomness.

    Raises:
        ConfigError: the repository's name is none, or has a tag.
    """

    def __init__(
        self,
        config: ImageConfig,
        environment: Mapping[str, str],
        *,
        transport: httpx.BaseTransport | None = None,
        timing: Timing = Timing(),  # noqa: B008 (frozen)
    ) -> None:
        self.repository = _repository(config.repository) if config.repository else None
        self._insecure = config.insecure
        self._environment = environment
        self._reach = Reach(environment=environment, transport=transport)
        self._timing = timing
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
            message = "mlship.yaml names no repository to push images to"
            raise ConfigError(message, hint="set image.repository: registry/name")
        return self.repository

    def reach(self) -> str:
        """Tell that images can be pushed, as far as that is known without a push.

        Raises:
            ConfigError: no repository is configured, or credentials cannot be read.
            UnavailableError: the registry does not answer, or denies it.
        """
        own = self.own()
        found = self.of(own).holds_tags(own.repository)
        return f"{own.name} answers" + ("" if found else " and has nothing yet")

    def base(self, name: Reference, platforms: Sequence[Platform]) -> dict[Platform, Base]:
        """Return what a base image is on each platform. Its layers are not downloaded.

        Raises:
            ConfigError: there is no such image, or not for a platform.
            UnavailableError: its registry does not answer, or denies it.
            IntegrityError: it is nothing that can be built on.
        """
        stored = self.of(name).manifest(name)
        if stored is None:
            message = f"there is no base image {name}"
            raise ConfigError(message, hint="correct image.base; `docker pull` finds what exists")
        found = name.at(stored.digest)
        if stored.media_type not in (INDEX, DOCKER_INDEX):
            return {one: self._base(found, stored.data, one, str(name)) for one in platforms}
        bases = {}
        for platform in platforms:
            chosen = name.at(choose(stored.data, platform, str(name)))
            one = self.of(name).manifest(chosen)
            if one is None:
                message = f"{name} names {chosen.digest} for {platform}, which does not exist"
                raise ConfigError(message, hint="set image.base to a complete image")
            bases[platform] = self._base(found, one.data, platform, str(name))
        return bases

    def _base(self, found: Reference, data: bytes, platform: Platform, name: str) -> Base:
        manifest = decode_manifest(data, name)
        blob = self.of(found).small_blob(found.repository, manifest.config.digest)
        config = decode_configuration(blob, name)
        if f"{config.os}/{config.architecture}" != platform:
            raise other_platform(name, f"{config.os}/{config.architecture}", platform)
        return Base(reference=found, manifest=manifest, configuration=config)

    def _credential(self, host: str) -> Credential | None:
        is_own = self.repository is not None and self.repository.registry == host
        found = credential(host, self._environment, is_own=is_own)
        if found is None and is_google(host):
            return google_credentials.credential(host)
        return found


def _repository(text: str) -> Reference:
    found = reference(text)
    if found.tag or found.digest:
        message = f"image.repository {text} has a tag or a digest"
        raise ConfigError(message, hint=f"write {found.name}; each release gets a tag of its own")
    return found
