"""Removes images from a repository: by digest, with their tags and what is attached to them."""

import functools
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from mlship.adapters.http import bodies
from mlship.adapters.images.build.manifests import DOCKER_INDEX, INDEX, Descriptor
from mlship.adapters.images.registry.client import Ask
from mlship.adapters.images.registry.registries import Registries
from mlship.adapters.images.registry.uploads import pull
from mlship.domain.digests import Digest
from mlship.domain.image import Reference
from mlship.domain.retention import Manifest
from mlship.errors import RefusedError

_GONE: Final = 404
_REFUSALS: Final = (405, 501)
"""Of registries that do not delete, or are set not to."""
_BY_TAG_FIRST: Final = (400, 409)
"""Google's registry removes a manifest only when no tag names it any more."""


class _Listed(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an index, of an image, or of a list of referrers that are read here."""

    manifests: tuple[Descriptor, ...] = ()
    layers: tuple[Descriptor, ...] = ()


class RegistryImages:
    """The port `ImageRepository`: the project's own repository.

    Raises:
        ConfigError: no repository is configured.
    """

    def __init__(self, registries: Registries) -> None:
        self._place = registries.own()
        self._registry = registries.of(self._place)

    @property
    def name(self) -> str:
        """Registry and repository."""
        return self._place.name

    def tags(self) -> Sequence[str]:
        """Return all tags."""
        return self._registry.tags(self._place.repository)

    def find(self, wanted: str) -> Manifest | None:
        """Return the manifest of a tag or a digest, with the layers of all its images."""
        stored = self._registry.manifest(self._reference(wanted))
        if stored is None:
            return None
        listed = _listed(stored.data)
        images: tuple[Digest, ...] = ()
        layers = {each.digest for each in listed.layers}
        if stored.media_type in (INDEX, DOCKER_INDEX):
            images = tuple(each.digest for each in listed.manifests)
            inner = (self._registry.manifest(self._reference(each)) for each in images)
            layers = {one.digest for each in inner if each for one in _listed(each.data).layers}
        return Manifest(digest=stored.digest, layers=frozenset(layers), images=images)

    def remove(self, digest: Digest, tags: Collection[str] = ()) -> None:
        """Remove a manifest, its tags and what is attached to it; see `ImageRepository`."""
        for attached in self._attached(digest):
            self._delete(attached)
        for tag in self._fallbacks(digest):
            manifest = self.find(tag)
            if manifest is not None:
                self._delete(manifest.digest, [tag])
        self._delete(digest, tags)

    def _fallbacks(self, digest: Digest) -> list[str]:
        """Return the tags `sha256-...` of an image, as cosign adds to them: `.sig`, `.att`."""
        name = f"sha256-{digest.removeprefix('sha256:')}"
        return [tag for tag in self._tags if tag.partition(".")[0] == name]

    @functools.cached_property
    def _tags(self) -> Sequence[str]:
        return self.tags()

    def _attached(self, digest: Digest) -> list[Digest]:
        """Return what is attached to an image, by the Referrers API or by the tag in its place."""
        repository = self._place.repository
        path = f"/v2/{repository}/referrers/{digest}"
        response = self._registry.exchange.send(
            Ask(method="GET", url=path, scope=pull(repository), headers={"Accept": INDEX})
        )
        if response.status_code == 200:
            return [each.digest for each in _listed(response.content).manifests]
        stored = self._registry.manifest(
            self._place.tagged(f"sha256-{digest.removeprefix('sha256:')}")
        )
        return [each.digest for each in _listed(stored.data).manifests] if stored else []

    def _delete(self, digest: Digest, tags: Collection[str] = ()) -> None:
        status = self._deleted(digest, last=not tags)
        if status in _BY_TAG_FIRST:
            for tag in tags:
                self._deleted(tag, last=True)
            self._deleted(digest, last=True)

    def _deleted(self, wanted: str, *, last: bool) -> int:
        """Send a request to delete; return its status.

        Args:
            wanted: a digest or a tag.
            last: whether another way remains if the registry refuses.

        Raises:
            RefusedError: the registry does not allow it.
        """
        repository = self._place.repository
        path = f"/v2/{repository}/manifests/{wanted}"
        scope = f"repository:{repository}:pull,push,delete"
        response = self._registry.exchange.send(Ask(method="DELETE", url=path, scope=scope))
        status = response.status_code
        if status in _REFUSALS:
            message = f"{self._place.registry} does not allow that {self.name} is changed: {status}"
            hint = "allow deletion in the settings of the registry (of Docker's own: "
            hint += "REGISTRY_STORAGE_DELETE_ENABLED=true), or remove there what "
            hint += "`mlship images prune` lists"
            raise RefusedError(message, hint=hint)
        is_refused = status in _BY_TAG_FIRST and not last
        if not (response.is_success or status == _GONE or is_refused):
            raise self._registry.exchange.failure(response, f"{self.name}@{wanted}")
        return status

    def _reference(self, wanted: str) -> Reference:
        is_digest = wanted.startswith("sha256:")
        return self._place.at(Digest(wanted)) if is_digest else self._place.tagged(wanted)


def _listed(data: bytes) -> _Listed:
    try:
        return bodies.decoded(data, _Listed)
    except msgspec.DecodeError:
        return _Listed()
