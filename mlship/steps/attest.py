"""What is attached to a release's image: its SBOM, its provenance, and records of the ledger."""

from collections.abc import Mapping
from typing import Final

from mlship import files
from mlship.domain import bundle as bundles
from mlship.domain import digests, provenance, shapes
from mlship.domain.digests import Digest
from mlship.domain.dsse import IN_TOTO
from mlship.domain.evidence import PREDICATE_TYPE, Record, Step, encode
from mlship.domain.facts import Containerized, Trained
from mlship.domain.image import Image, Reference
from mlship.domain.records import Records
from mlship.domain.referrers import CYCLONEDX, DSSE, PREDICATE, Document
from mlship.domain.release import Release
from mlship.domain.sbom import Material, sbom
from mlship.errors import ConflictError, NotFoundError, UnavailableError
from mlship.steps.pipeline import Pipeline

SBOM: Final = "sbom"
PROVENANCE: Final = "provenance"

_ATTESTED: Final[tuple[Step, ...]] = (
    "test",
    "test-container",
    "verify-staging-workload",
    "evaluate",
    "approve",
    "withdraw-approval",
)
"""The steps whose records are attached: tests, comparisons and approvals."""


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
    """Attach SBOM, provenance and records to a pushed image, unless they are attached already.

    A registry that refuses does not fail the push, unless `image.attach` is `require`. Whatever was
    attached before stays; the next push attaches the rest.

    Args:
        pipeline: the project.
        release: the release in the image.
        image: the image.
        pushed: the image in the registry, by digest.
        records: of the project.

    Returns:
        The digest of each attached document by its name: `sbom`, `provenance`, and the step and
        digest of each record.

    Raises:
        UnavailableError: the registry refuses, and the documents are required.
        IntegrityError: a layer of the image, or the list of what is attached, is damaged.
    """
    if pipeline.config.image.attach == "off":
        return {}
    attached: dict[str, Digest] = {}
    images = pipeline.images()
    try:
        pipeline.progress.note("attaching SBOM, provenance and records")
        for name, document in _documents(pipeline, release, image, records).items():
            attached[name] = images.attach(pushed, document)
    except (UnavailableError, ConflictError, NotFoundError) as error:
        _tolerate(pipeline, f"{pushed.name} has not all documents of the image", error)
    return attached


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
    own = Document(
        artifact_type=CYCLONEDX,
        media_type=CYCLONEDX,
        data=_sbom(pipeline, release, image, records),
    )
    documents = {SBOM: own}
    built = records.latest("containerize", release)
    if built is not None:
        statement = provenance.provenance(
            built,
            shapes.of(built, Containerized),
            bundles.manifest(pipeline.bundle(release), expected=release.bundle),
            data=_trained(records, release)[0].data,
            source=pipeline.config.image.source,
        )
        documents[PROVENANCE] = _statement(statement, provenance.PREDICATE_TYPE)
    return documents | _records(pipeline, release, records)


def _records(pipeline: Pipeline, release: Release, records: Records) -> dict[str, Document]:
    """Return the records of tests and approvals, with the bytes that the ledger has."""
    documents = {}
    for record in records:
        step = record.evidence.step
        if step not in _ATTESTED or record.evidence.release != release:
            continue
        envelope = record.envelope
        data = envelope.data if envelope else encode(record.evidence)
        name = f"{step} {digests.short(record.digest)}"
        if digests.of_bytes(data) != record.digest:
            pipeline.progress.note(f"{name} has the form of another version: not attached")
            continue
        kind = DSSE if envelope else IN_TOTO
        documents[name] = _statement(data, PREDICATE_TYPE, media_type=kind)
    return documents


def _statement(data: bytes, predicate: str, media_type: str = IN_TOTO) -> Document:
    """Return an in-toto Statement to attach: bare, or in an envelope with its signature."""
    notes = {PREDICATE: predicate}
    return Document(artifact_type=IN_TOTO, media_type=media_type, data=data, annotations=notes)


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
