"""The bill of materials of a release's image: CycloneDX 1.6, as JSON.

The same image, training and version of mlship give the same bytes, on any machine: there is no
random number in it, and its time is that of the training. https://cyclonedx.org/docs/1.6/json/
"""

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from mlship import __version__
from mlship.domain import digests
from mlship.domain.bundle import UNSUPERVISED, Bundle, Field
from mlship.domain.digests import Digest
from mlship.domain.facts import Trained
from mlship.domain.image import Image, Platform
from mlship.domain.inventory import Distribution, Inventory
from mlship.domain.release import Release
from mlship.errors import shown

SHA256: Final = "SHA-256"
_IMAGE: Final = "image"
_BASE: Final = "base"
_MODEL: Final = "model"
_DATA: Final = "data"
_SEPARATORS: Final = re.compile(r"[-_.]+")

Component = dict[str, Any]


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """What a bill of materials is made from.

    Attributes:
        image: the image.
        installed: what is installed in it, by platform.
        release: the release in the image.
        bundle: its manifest.
        trained: the facts of its training, and `time` when it was recorded, if it is known.
    """

    image: Image
    installed: Mapping[Platform, Inventory]
    release: Release
    bundle: Bundle
    trained: Trained
    time: datetime | None


def sbom(material: Material) -> bytes:
    """Return the bill of materials, as canonical JSON.

    The packages of the base's operating system are not in it, and it says so.
    """
    image = _image(material.image, material.installed)
    components = [
        _base(material.image),
        _model(material),
        *_data(material),
        *_distributions(material.installed),
    ]
    references = [component["bom-ref"] for component in components]
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "mlship", "version": __version__}]
            },
            "component": image,
        },
        "components": components,
        "dependencies": [
            {"ref": _IMAGE, "dependsOn": references},
            {"ref": _MODEL, "dependsOn": [each for each in references if each.startswith(_DATA)]},
        ],
        "compositions": [{"aggregate": "incomplete", "assemblies": [_IMAGE, _BASE]}],
    }
    if material.time is not None:
        time = material.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        document["metadata"]["timestamp"] = time
    number = uuid.uuid5(uuid.NAMESPACE_URL, digests.of_value(document))
    return digests.canonical_json(document | {"serialNumber": number.urn})


def problem(predicate: dict[str, Any], image: Digest) -> str:
    """Return what is wrong with the bill of materials of an image; empty if nothing is.

    Args:
        predicate: the CycloneDX document as somebody attached it.
        image: the digest of the image.
    """
    try:
        hashes = msgspec.convert(predicate, _Document).metadata.component.hashes
    except msgspec.ValidationError as error:
        return f"it cannot be read: {error}"
    named = {each.content for each in hashes if each.alg == SHA256}
    return "" if named == {image.removeprefix("sha256:")} else "it is of another image"


class _Hash(msgspec.Struct, frozen=True, kw_only=True):
    alg: str
    content: str


class _Component(msgspec.Struct, frozen=True, kw_only=True):
    hashes: tuple[_Hash, ...] = ()


class _DocumentMetadata(msgspec.Struct, frozen=True, kw_only=True):
    component: _Component


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that are compared."""

    metadata: _DocumentMetadata


def _image(image: Image, installed: Mapping[Platform, Inventory]) -> Component:
    unread = {digest for inventory in installed.values() for digest in inventory.unread}
    layers = {
        (f"mlship:layer:{layer.role}", layer.digest)
        for platform in image.platforms
        for layer in platform.layers
    }
    properties = sorted([*layers, *(("mlship:layer-not-read", each) for each in unread)])
    return {
        "type": "container",
        "bom-ref": _IMAGE,
        "name": image.name,
        "version": image.tag,
        "hashes": _hashes(image.digest),
        "purl": _purl_of_image(image.name, image.digest),
        "properties": _properties(properties),
    }


def _base(image: Image) -> Component:
    digest = digests.parse(image.base.wanted)
    return {
        "type": "container",
        "bom-ref": _BASE,
        "name": image.base.name,
        "version": digest,
        "hashes": _hashes(digest),
        "purl": _purl_of_image(image.base.name, digest),
    }


def _model(material: Material) -> Component:
    """Return the model with its card: its data, its columns and its metrics on held-out data."""
    bundle, release = material.bundle, material.release
    kind = "unsupervised" if bundle.task in UNSUPERVISED else "supervised"
    data = [{"ref": component["bom-ref"]} for component in _data(material)]
    metrics = [
        {"type": name, "value": str(value), "slice": "held-out data"}
        for name, value in sorted(bundle.metrics.items())
    ]
    own = bundle.files.get(bundle.model.path)
    files = [
        {"type": "file", "name": name, "hashes": _hashes(file.digest)}
        for name, file in sorted(bundle.files.items())
    ]
    facts = {
        "mlship:bundle": release.bundle,
        "mlship:commit": release.commit + ("-dirty" if release.dirty else ""),
        "mlship:format": bundle.model.format,
        "mlship:release": release.id,
    }
    component: Component = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": bundle.name,
        "version": digests.short(release.id),
        "components": files,
        "properties": _properties(facts.items()),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": kind},
                "task": bundle.task,
                "datasets": data,
                "inputs": _columns(bundle.schema.inputs),
                "outputs": _columns(bundle.schema.outputs),
            },
            "quantitativeAnalysis": {"performanceMetrics": metrics},
        },
    }
    return component | ({"hashes": _hashes(own.digest)} if own else {})


def _data(material: Material) -> list[Component]:
    """Return the training data and the held-out data, without credentials in their addresses.

    A file that the training opened in the project has its own digest; the release has one of all.
    """
    trained = material.trained
    named = {"training data": trained.data, "held-out data": trained.held_out}
    components = []
    for use, address in named.items():
        if not address and use != "training data":
            continue
        digest = trained.opened.read.get(address)
        component: Component = {
            "type": "data",
            "bom-ref": f"{_DATA}:{use}",
            "name": shown(address) or use,
            "description": use,
            "data": [{"type": "dataset", "name": shown(address) or use}],
            "properties": _properties([("mlship:data-of-release", material.release.data)]),
        }
        components.append(component | ({"hashes": _hashes(digest)} if digest else {}))
    return components


def _distributions(installed: Mapping[Platform, Inventory]) -> list[Component]:
    """Return a component for each version of a distribution, with all places where it is."""
    places: dict[str, dict[str, Distribution]] = {}
    platforms: dict[str, set[Platform]] = {}
    for platform, inventory in installed.items():
        for each in inventory.distributions:
            purl = _purl(each)
            places.setdefault(purl, {})[each.path] = each
            platforms.setdefault(purl, set()).add(platform)
    return [
        _distribution(purl, list(found.values()), sorted(platforms[purl]))
        for purl, found in sorted(places.items())
    ]


def _distribution(
    purl: str, found: Sequence[Distribution], platforms: Sequence[Platform]
) -> Component:
    first = found[0]
    component: Component = {
        "type": "library",
        "bom-ref": purl,
        "name": first.name,
        "version": first.version,
        "purl": purl,
        "evidence": {"occurrences": [{"location": f"/{path}"} for path in _paths(found)]},
        "properties": _properties(("mlship:platform", platform) for platform in platforms),
    }
    if first.expression:
        component["licenses"] = [{"expression": first.expression}]
    elif first.license:
        component["licenses"] = [{"license": {"name": first.license}}]
    return component


def _paths(found: Sequence[Distribution]) -> list[str]:
    return sorted(each.path for each in found)


def _purl(distribution: Distribution) -> str:
    """Return the package URL; https://github.com/package-url/purl-spec, type pypi."""
    name = _SEPARATORS.sub("-", distribution.name).lower()
    return f"pkg:pypi/{quote(name, safe='')}@{quote(distribution.version, safe='')}"


def _purl_of_image(name: str, digest: Digest) -> str:
    """Return the package URL of an image, type oci."""
    last = name.rpartition("/")[2].lower()
    return f"pkg:oci/{last}@{quote(digest, safe='')}?repository_url={quote(name, safe='/')}"


def _columns(fields: Sequence[Field]) -> list[dict[str, str]]:
    return [{"format": f"{field.name}: {field.kind}"} for field in fields]


def _hashes(digest: Digest) -> list[dict[str, str]]:
    return [{"alg": SHA256, "content": digest.removeprefix("sha256:")}]


def _properties(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]
