"""How the image of a release was built: SLSA provenance v1.

It says what mlship recorded, and no more than that: which records the ledger has of the build, who
ran it, from which commit, data, packages and base. Whoever has the key of the build can say other
things: that is SLSA build level 1. https://slsa.dev/provenance/v1
"""

from typing import Any, Final

import msgspec

from mlship.domain import digests
from mlship.domain.bundle import REQUIREMENTS, Bundle
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.facts import Containerized
from mlship.errors import shown

SOURCE: Final = "source"
COMMIT: Final = "gitCommit"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "https://mlship.dev/build/image/v1"
BUILDER: Final = "https://mlship.dev/builder/self-declared/v1"
"""The builder is whoever ran mlship, by their own account: mlship knows no platform it trusts."""


def provenance(
    built: Record, image: Containerized, bundle: Bundle, *, data: str, source: str | None
) -> dict[str, Any]:
    """Return the provenance of an image, as a predicate; the same record gives the same one.

    Args:
        built: the record of `containerize`.
        image: its facts.
        bundle: the manifest of the release's bundle.
        data: the training data as mlship.yaml names it.
        source: the URL of the source code, if it is configured.
    """
    evidence = built.evidence
    release = evidence.release
    parameters = {
        "base": image.base_name,
        "builder": image.builder,
        "platforms": [platform.platform for platform in image.platforms],
        "release": str(release),
    }
    when = evidence.time.isoformat()
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": parameters,
            "internalParameters": {"actor": evidence.actor},
            "resolvedDependencies": _dependencies(built, image, bundle, data, source),
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"mlship": evidence.tool}},
            "metadata": {"invocationId": built.digest, "finishedOn": when},
        },
    }


def problem(predicate: dict[str, Any], *, source: str | None, commit: str, built: str) -> str:
    """Return what is wrong with the provenance of an image; empty if nothing is.

    Args:
        predicate: as somebody attached it.
        source: the URL of the source code, if it is configured.
        commit: of the release; empty for any.
        built: the digest of the record of the build; empty for any.
    """
    try:
        said = msgspec.convert(predicate, _Provenance)
    except msgspec.ValidationError as error:
        return f"it cannot be read: {error}"
    dependencies = said.build_definition.resolved_dependencies
    known = next((each for each in dependencies if each.name == SOURCE), _Dependency())
    named = known.digest.get(COMMIT, "")
    address = known.uri.removeprefix("git+").rpartition("@")[0]
    if not named:
        return "it names no commit"
    if source and address != shown(source):
        return f"its source is {address[:200] or 'not named'}, not {shown(source)}"
    if built and said.run_details.metadata.invocation_id != built:
        return "it is of another build than the records of the release"
    return f"it names commit {named[:12]}, not {commit[:12]}" if commit not in ("", named) else ""


class _Dependency(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}


class _Definition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    resolved_dependencies: tuple[_Dependency, ...] = ()


class _Metadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    invocation_id: str = ""


class _Run(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    metadata: _Metadata = _Metadata()


class _Provenance(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields that are compared."""

    build_definition: _Definition
    run_details: _Run


def _dependencies(
    built: Record, image: Containerized, bundle: Bundle, data: str, source: str | None
) -> list[dict[str, Any]]:
    """Return what the image was made from, by digest."""
    release, saw = built.evidence.release, built.evidence.saw
    commit: dict[str, Any] = {"name": SOURCE, "digest": {COMMIT: release.commit}}
    if source:
        commit["uri"] = f"git+{shown(source)}@{release.commit}"
    if release.dirty:
        commit["annotations"] = {"uncommittedChanges": True}
    base = {
        "name": "base",
        "uri": f"docker://{image.base}",
        "digest": _digest(digests.parse(image.base.rpartition("@")[2])),
    }
    named = [{"name": name, "digest": _digest(digest)} for name, digest in release.parts.items()]
    if data:
        named[0]["annotations"] = {"address": shown(data)}
    if REQUIREMENTS in bundle.files:
        lock = _digest(bundle.files[REQUIREMENTS].digest)
        named.append({"name": "lock", "uri": REQUIREMENTS, "digest": lock})
    if saw.extension is not None:
        named.append({"name": "image.extend", "digest": _digest(saw.extension)})
    return [commit, base, *named]


def _digest(digest: Digest) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}
