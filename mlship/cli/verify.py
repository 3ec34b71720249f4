"""`mlship verify`: whether an image in a registry may run."""

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from mlship.cli import output
from mlship.cli.session import session

if TYPE_CHECKING:
    from mlship.domain.image import Reference
    from mlship.domain.records import Records
    from mlship.domain.release import Release
    from mlship.steps.pipeline import Pipeline


def verify(
    context: typer.Context,
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGE",
            help="An image by tag or digest, or a release: its pushed image. By default, the "
            "release of the current commit.",
        ),
    ] = None,
    target: Annotated[
        Literal["staging", "production"],
        typer.Option("--for", help="Where it is to run: production asks for more."),
    ] = "production",
) -> None:
    """Verify that an image is what it should be.

    Shows who signed it, what it contains and what it has passed. The same is verified before each
    deployment. The exit code is 3 if the image must not run.

    Example: mlship verify europe-docker.pkg.dev/acme/models/iris:3f9a0c12be77
    """
    from mlship.domain import checks
    from mlship.steps.verify_image import refused, verify_image

    options = session(context)
    pipeline = options.pipeline(purpose="read")
    records = pipeline.read()
    place, release = _named(pipeline, image, records)
    found = verify_image(pipeline.knowing(records), place, target, records, release)
    failed = found.decision.failed
    if options.json and not failed:
        output.as_json(found)
        return
    if not options.json:
        output.line(f"{place}{f': {found.release}' if found.release else ''}")
        for check in found.decision.checks:
            output.line(f"  {checks.line(check)}")
    if failed:
        error = refused(str(place), failed, release or found.release)
        error.facts = msgspec.structs.asdict(found)
        raise error


def _named(
    pipeline: "Pipeline", name: str | None, records: "Records"
) -> "tuple[Reference, Release | None]":
    """Return the image that a name means, by digest, and the release that it must contain."""
    from mlship import wire
    from mlship.domain import retention
    from mlship.domain.image import reference
    from mlship.wire.images import by_digest

    if name is not None and ("/" in name or ":" in name):
        return by_digest(pipeline.config, wire.environment(), reference(name)), None
    release = pipeline.release(name, records)
    return reference(retention.pushed_image(records, release).reference), release
