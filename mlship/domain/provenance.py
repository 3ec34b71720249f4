"""How the image of a release was built: SLSA provenance v1, as an in-toto Statement.

It says what mlship recorded, and no more than that: which records the ledger has of the build, who
ran it, from which commit, data, packages and base. Whoever may push to the repository can write
another one, as long as nobody signs it: that is SLSA build level 1. https://slsa.dev/provenance/v1
"""

from typing import Any, Final

from mlship.domain import digests
from mlship.domain.bundle import REQUIREMENTS, Bundle
from mlship.domain.digests import Digest
from mlship.domain.evidence import STATEMENT_TYPE, Record
from mlship.domain.facts import Containerized
from mlship.errors import shown

PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "https://mlship.dev/build/image/v1"
BUILDER: Final = "https://mlship.dev/builder/self-declared/v1"
"""The builder is whoever ran mlship, by their own account: mlship knows no platform it trusts."""


def provenance(
    built: Record, image: Containerized, bundle: Bundle, *, data: str, source: str | None
) -> bytes:
    """Return the provenance of an image, as canonical JSON; the same record gives the same bytes.

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
    predicate = {
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
    subject = {"name": image.reference.rpartition("@")[0], "digest": _digest(image.digest)}
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    return digests.canonical_json(statement)


def _dependencies(
    built: Record, image: Containerized, bundle: Bundle, data: str, source: str | None
) -> list[dict[str, Any]]:
    """Return what the image was made from, by digest."""
    release, saw = built.evidence.release, built.evidence.saw
    commit: dict[str, Any] = {"name": "source", "digest": {"gitCommit": release.commit}}
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
