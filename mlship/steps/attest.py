"""What is attached to a release's image: its SBOM, its provenance, and its release statement."""

from collections.abc import Mapping
from typing import Final

import msgspec

from mlship import __version__, files
from mlship.domain import attestation, digests, provenance, release_statement, retention, shapes
from mlship.domain import bundle as bundles
from mlship.domain.admission import ROUTER
from mlship.domain.digests import Digest
from mlship.domain.dsse import IN_TOTO
from mlship.domain.evidence import Record
from mlship.domain.facts import Containerized, PushedImage, Trained
from mlship.domain.image import Image, Reference, reference
from mlship.domain.records import Records
from mlship.domain.referrers import CYCLONEDX, PREDICATE, Document
from mlship.domain.release import Release
from mlship.domain.sbom import Material, sbom
from mlship.errors import (
    ConflictError,
    CredentialsError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
)
from mlship.steps.pipeline import Pipeline

SBOM: Final = "sbom"
PROVENANCE: Final = "provenance"


def write_sbom(pipeline: Pipeline, release: Release, image: Image, records: Records) -> None:
    """Write the SBOM of an image that was built to `.mlship/sboms`, for people.

    Raises:
        UnavailableError: a layer is not on this machine, its registry does not respond, and
            `image.attach` requires the SBOM.
    """
    if pipeline.config.image.attach == "off":
        return
    folder = pipeline.state / "sboms"
    path = folder / f"{digests.short(image.digest)}.cdx.json"
    try:
        data = _sbom(pipeline, release, image, records)
    except (UnavailableError, NotFoundError) as error:
        _tolerate(pipeline, "the SBOM was not written", error)
        return
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, data)
    pipeline.progress.note(f"SBOM: {path}")


def attach(
    pipeline: Pipeline, release: Release, image: Image, pushed: Reference, records: Records
) -> dict[str, Digest]:
    """Attach SBOM and provenance to a pushed image, unless they are attached already.

    A registry that refuses does not fail the push, unless `image.attach` is `require`. Whatever was
    attached before stays; the next push attaches the rest.

    Args:
        pipeline: the project.
        release: the release in the image.
        image: the image.
        pushed: the image in the registry, by digest.
        records: of the project.

    Returns:
        The digest of each attached document by its name: the SBOM as scanners read it, and the
        statements `sbom` and `provenance`, signed if records are.

    Raises:
        UnavailableError: the registry refuses, and the documents are required.
        IntegrityError: a layer of the image, or the list of what is attached, is damaged.
    """
    if pipeline.config.image.attach == "off":
        return {}
    attached: dict[str, Digest] = {}
    images = pipeline.images()
    try:
        pipeline.progress.note("attaching SBOM and provenance")
        for name, document in _documents(pipeline, release, image, records).items():
            attached[name] = images.attach(pushed, document)
    except (UnavailableError, ConflictError, NotFoundError) as error:
        _tolerate(pipeline, f"{pushed.name} has not all documents of the image", error)
    return attached


def attach_router(pipeline: Pipeline, image: Image, pushed: Reference) -> None:
    """Attach to the image of the load balancer that it is one, so that clusters may admit it.

    Raises:
        UnavailableError: the registry refuses, and documents are required.
    """
    if pipeline.config.image.attach == "off":
        return
    said = {"tool": __version__, "base": str(image.base)}
    try:
        pipeline.images().attach(pushed, _statement(pipeline, pushed, ROUTER, said))
    except (UnavailableError, ConflictError, NotFoundError) as error:
        _tolerate(pipeline, f"{pushed.name} has not the statement of the load balancer", error)


def attach_statement(pipeline: Pipeline, release: Release, records: Records) -> None:
    """Attach what the ledger says of a release to its pushed image.

    Nothing happens if it has no pushed image, or the same is attached already. A registry that
    refuses fails nothing, unless `image.attach` is `require`.

    Raises:
        UnavailableError: the registry refuses, and the documents are required.
    """
    try:
        _attach_statement(pipeline, release, records)
    except (UnavailableError, ConflictError, NotFoundError) as error:
        _tolerate(pipeline, f"the image of {release} has not its release statement", error)


def renew_statement(pipeline: Pipeline, release: Release, records: Records) -> None:
    """Attach what the ledger has learned of a release since it was pushed, if this job may.

    Jobs that only deploy or check need not be able to write to the registry.
    """
    try:
        _attach_statement(pipeline, release, records)
    except CredentialsError:
        return
    except (UnavailableError, ConflictError, NotFoundError) as error:
        pipeline.progress.note(f"the release statement was not renewed: {error.message}")


def _attach_statement(pipeline: Pipeline, release: Release, records: Records) -> None:
    record = records.latest("push-to-registry", release)
    if pipeline.config.image.attach == "off" or record is None:
        return
    said = release_statement.of(pipeline.config.name, pipeline.home, release, records)
    if said is None or retention.is_removed(records, record):
        return
    pushed = reference(shapes.of(record, PushedImage).reference)
    document = _statement(pipeline, pushed, release_statement.KIND, said)
    pipeline.images().attach(pushed, document)


def _tolerate(
    pipeline: Pipeline, what: str, error: UnavailableError | ConflictError | NotFoundError
) -> None:
    """Report an error of a registry, or raise it if the documents are required."""
    if pipeline.config.image.attach == "require":
        hint = f"{error.hint}; with `image.attach: try` the push does not need it"
        raise type(error)(f"{what}: {error.message}", hint=hint) from error
    pipeline.progress.note(f"{what}: {error.message}")


def _documents(
    pipeline: Pipeline, release: Release, image: Image, records: Records
) -> Mapping[str, Document]:
    """Return the documents of an image by their names."""
    place = reference(f"{image.name}@{image.digest}")
    own = _sbom(pipeline, release, image, records)
    documents = {
        "cyclonedx": Document(artifact_type=CYCLONEDX, media_type=CYCLONEDX, data=own),
        SBOM: _statement(pipeline, place, attestation.SBOM, msgspec.json.decode(own)),
    }
    built = records.latest("containerize", release)
    if built is not None:
        said = provenance.provenance(
            built,
            shapes.of(built, Containerized),
            bundles.manifest(pipeline.bundle(release), expected=release.bundle),
            data=_trained(records, release)[0].data,
            source=pipeline.config.image.source,
        )
        documents[PROVENANCE] = _statement(pipeline, place, provenance.PREDICATE_TYPE, said)
    return documents


def _statement(pipeline: Pipeline, image: Reference, kind: str, predicate: object) -> Document:
    """Return a statement about an image: signed in a bundle, or bare where records are not."""
    digest = image.digest
    if digest is None:
        message = f"{image} has no digest"
        raise IntegrityError(message, hint="run `mlship push-to-registry` again")
    said = attestation.statement(image.name, digest, kind, predicate)
    signing = pipeline.signatures.signing
    if signing is None:
        notes = {PREDICATE: kind}
        return Document(artifact_type=IN_TOTO, media_type=IN_TOTO, data=said, annotations=notes)
    return Document(
        artifact_type=attestation.BUNDLE,
        media_type=attestation.BUNDLE,
        data=attestation.seal(said, signing),
        annotations={attestation.CONTENT: "dsse-envelope", attestation.PREDICATE: kind},
    )


def _sbom(pipeline: Pipeline, release: Release, image: Image, records: Records) -> bytes:
    trained, record = _trained(records, release)
    bundle = bundles.manifest(pipeline.bundle(release), expected=release.bundle)
    material = Material(
        image=image,
        installed=pipeline.images().inventory(image),
        release=release,
        bundle=bundle,
        trained=trained,
        time=record.evidence.time if record else None,
    )
    return sbom(material)


def _trained(records: Records, release: Release) -> tuple[Trained, Record | None]:
    """Return the facts of a release's training; empty ones if it is not in the ledger."""
    record = records.latest("train", release)
    return (shapes.of(record, Trained) if record else Trained()), record
