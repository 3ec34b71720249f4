"""Commands that only read: doctor, status, report, trace."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mlship.cli import output
from mlship.cli.options import ReleaseName
from mlship.cli.session import Session, session
from mlship.domain.notation import bare, literal
from mlship.errors import UnavailableError

if TYPE_CHECKING:
    from mlship.reports.report import Report
    from mlship.steps.status import Status
    from mlship.steps.trace import Trace


def doctor(
    context: typer.Context,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of mlship.yaml and stop.")
    ] = False,
) -> None:
    """Check the configuration and every backend.

    Shows how to fix each problem, and where each setting that is not a default was set.

    Example: mlship doctor
    """
    from mlship import wire
    from mlship.config.defaults import differing
    from mlship.config.project import json_schema
    from mlship.errors import shown
    from mlship.steps.doctor import doctor as doctor_step
    from mlship.wire.doctor import surroundings

    options = session(context)
    if schema:
        output.as_json(json_schema())
        return
    resolved = options.resolved()
    pipeline = options.pipeline(purpose="check")
    checks = doctor_step(pipeline, surroundings(pipeline, wire.environment()))
    if options.json:
        output.as_json({"origins": resolved.origins, "checks": checks})
    else:
        values = [
            (setting.key, shown(bare(setting.value)), setting.layer)
            for setting in differing(resolved)
        ]
        output.table("settings that are not defaults", ("key", "value", "set by"), values)
        rows = [
            (check.name, "WRONG" if check.state == "wrong" else check.state, check.detail)
            for check in checks
        ]
        output.table("", ("check", "state", "detail"), rows)
        for check in checks:
            if check.state != "right":
                output.line(f"{check.name}: {check.detail}\n next: {check.hint}")
    exit_codes = [check.exit_code for check in checks if check.state == "wrong"]
    if exit_codes:
        raise typer.Exit(exit_codes[0])


def status(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="List all releases and all former champions.")
    ] = False,
    ask: Annotated[
        int,
        typer.Option(
            min=0, max=10_000, help="Send so many requests, and show who answers; no predictions."
        ),
    ] = 0,
) -> None:
    """Show what runs, who gets traffic, and any drift.

    Drift is a difference between the observed state and the ledger.

    Example: mlship status --json
    """
    from mlship import wire
    from mlship.cli.status_view import show_status
    from mlship.steps.status import status as status_step

    options = session(context)
    pipeline = options.pipeline(purpose="read")
    result = status_step(pipeline, ask, wire.stream_backlogs(pipeline, os.environ))
    if options.json and not result.silent:
        output.as_json(result)
        return
    if not options.json:
        show_status(result, everything=everything)
    raise_silence(result)


def raise_silence(result: "Status") -> None:
    """End with an error if targets cannot be asked; what is known of the others was shown.

    Raises:
        UnavailableError: there are such targets. Its facts are the whole status.
    """
    if not result.silent:
        return
    parts = [f"target {name}: {each.message}" for name, each in result.silent.items()]
    hints = dict.fromkeys(each.hint for each in result.silent.values() if each.hint)
    raise UnavailableError(
        "; ".join(parts), hint="; ".join(hints), facts=msgspec.structs.asdict(result)
    )


def trace(
    context: typer.Context,
    prediction: Annotated[
        str,
        typer.Argument(metavar="PREDICTION_ID", help="The id of a prediction, from a response."),
    ],
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Compute the prediction again and compare.")
    ] = False,
) -> None:
    """Trace a prediction to its release.

    Shows the model, commit, data, parameters, tests, approvals and, if known, the outcome.

    Example: mlship trace 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed.0 --reproduce
    """
    from mlship import wire
    from mlship.steps.trace import trace as trace_step

    options = session(context)
    pipeline = options.pipeline(purpose="read")
    ports = wire.batching(pipeline.config, options.root, wire.environment())
    result = trace_step(pipeline, prediction, reproduce=reproduce, batching=ports)
    if options.json:
        output.as_json(result)
        return
    output.table("", ("field", "value"), _traced(result))


def _traced(result: "Trace") -> list[tuple[str, str]]:
    """Return what is shown of a prediction: names and values."""
    logged, release = result.prediction, result.release
    time = f"{logged.time:%Y-%m-%d %H:%M:%S} UTC"
    rows = [
        ("prediction", f"{logged.id} at {time}, {logged.latency_ms:.2f} ms"),
        ("inputs", literal(logged.inputs)),
        ("outputs", literal(logged.outputs)),
        ("outcome", bare(result.outcome.value) if result.outcome else "not known yet"),
        ("release", f"{result.name}, then {result.role}, version {result.version or 'none'}"),
        ("commit", release.commit + (f" by {result.commit.author}" if result.commit else "")),
        ("data", release.data),
        ("params", release.params),
        ("code", release.code),
        ("environment", release.environment),
        ("bundle", f"{release.bundle} ({result.model['format']})"),
    ]
    rows += [
        (
            record.evidence.step,
            (
                f"{record.evidence.verdict}, {record.evidence.time:%Y-%m-%d %H:%M:%S} UTC, "
                f"{record.evidence.actor}"
            ),
        )
        for record in result.evidence
    ]
    rows += [(f"attached: {name}", digest) for name, digest in result.attached.items()]
    again = {"reproduced": result.reproduced, "shadow reproduced": result.shadow_reproduced}
    rows += [(name, f"the same: {row}") for name, row in again.items() if row is not None]
    return rows


def report(
    context: typer.Context,
    release: ReleaseName = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Write report.md, report.json and the pictures to a folder."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Show or post the report that `--to` wrote in another job. Needs no project.",
        ),
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "--publish",
            metavar="cml|github|summary",
            help="Post the report: as a comment by CML or by mlship, or in the job's summary. "
            "May be repeated.",
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="Show pictures in the comment: they are kept on the branch mlship-reports.",
        ),
    ] = False,
) -> None:
    """Show the report of a release.

    It has the verdict, the gates with their reasons, the metrics of the release and of the
    champion on the same held-out rows, and the files that report.include names.

    Example: mlship report --markdown > report.md
    """
    options = session(context)
    if source is not None:
        _report_of_folder(options, source, publish or [], markdown=markdown, pictures=pictures)
    else:
        _report_of_release(
            options, release, to, publish or [], markdown=markdown, pictures=pictures
        )


def _report_of_release(
    options: Session,
    name: str | None,
    to: Path | None,
    publish: Sequence[str],
    *,
    markdown: bool,
    pictures: bool,
) -> None:
    from mlship.cli.release import publish_report
    from mlship.reports import folder
    from mlship.reports.report import collect
    from mlship.steps.pictures import of_release, paths

    pipeline = options.pipeline(purpose="read")
    records = pipeline.read()
    collected = collect(
        pipeline.release(name, records), records, pipeline.occupied, pipeline.signatures.people
    )
    if to is not None:
        written = folder.write(collected, of_release(pipeline, collected), to)
        note = pipeline.progress.note if publish else output.line
        note(f"wrote {written}")
    if publish:
        publish_report(options, pipeline, collected.release, publish, records, pictures=pictures)
    elif to is None:
        shown = paths(pipeline, collected) if markdown else {}
        _print_report(options, collected, shown, markdown=markdown)


def _report_of_folder(
    options: Session, folder: Path, publish: Sequence[str], *, markdown: bool, pictures: bool
) -> None:
    from mlship.cli.release import publish_folder
    from mlship.reports.folder import read

    collected = read(folder)
    if publish:
        publish_folder(options, folder, collected, publish, pictures=pictures)
    else:
        _print_report(options, collected, {}, markdown=markdown)


def _print_report(
    options: Session, collected: "Report", pictures: Mapping[str, str], *, markdown: bool
) -> None:
    from mlship.reports import markdown as as_markdown
    from mlship.reports import terminal
    from mlship.reports.report import as_json

    if options.json:
        output.json_text(as_json(collected))
    elif markdown:
        output.line(as_markdown.render(collected, pictures=pictures))
    else:
        output.drawn(lambda console: terminal.show(collected, console))
