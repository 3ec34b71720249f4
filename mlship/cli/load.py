"""The command loadtest, and the plans of other load generators that it writes."""

import sys
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import msgspec
import typer

from mlship import files
from mlship.cli import output
from mlship.cli.session import Session, session
from mlship.errors import ConfigError

if TYPE_CHECKING:
    from mlship.domain.load_report import Limits, LoadReport, Population, Subject
    from mlship.steps.pipeline import Pipeline

_Target = Annotated[str, typer.Argument(metavar="TARGET", help="staging or production.")]
_Rate = Annotated[
    float, typer.Option(help="Requests a second; with --find-rate, the first rate of the search.")
]
_Seconds = Annotated[float, typer.Option(help="The length of a run, in seconds.")]
_Users = Annotated[
    int, typer.Option(help="Connections; each is a user who sends one request at a time.")
]
_P99 = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="The bound: 99 % of the requests are answered in this time, such as 50ms, and none "
        "fails.",
    ),
]
_FindRate = Annotated[
    bool, typer.Option("--find-rate", help="Find the highest rate that holds the bound.")
]
_Requests = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A workload. Default: `workload` in mlship.yaml, else the golden examples of the "
        "release.",
    ),
]
_Endpoint = Annotated[
    str | None, typer.Option(metavar="URL", help="Load this server instead of a target.")
]
_Host = Annotated[
    str | None, typer.Option(help="The host that is loaded, if it is not this machine.")
]
_Timeout = Annotated[
    float, typer.Option(help="Seconds after which a request is given up, from when it was due.")
]
_Processes = Annotated[int, typer.Option(help="How many processes send the requests.")]
_ForUsers = Annotated[
    int, typer.Option(help="With --find-rate: for how many users replicas are counted.")
]
_UserRate = Annotated[
    float, typer.Option(help="With --find-rate: the requests a second of one of these users.")
]
_Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The folder for the report. Default: a new one in .mlship/loadtest."
    ),
]
_JMeter = Annotated[
    Path | None,
    typer.Option(metavar="FILE.jmx", help="Write a plan for JMeter instead of sending requests."),
]
_K6 = Annotated[
    Path | None,
    typer.Option(metavar="FILE.js", help="Write a script for k6 instead of sending requests."),
]
_Locust = Annotated[
    Path | None,
    typer.Option(metavar="FILE.py", help="Write a file for Locust instead of sending requests."),
]


def loadtest(  # noqa: PLR0913, PLR0917 (typer: each option is an argument)
    context: typer.Context,
    target: _Target = "staging",
    rate: _Rate = 50.0,
    seconds: _Seconds = 10.0,
    users: _Users = 100,
    p99: _P99 = None,
    find_rate: _FindRate = False,
    requests: _Requests = None,
    endpoint: _Endpoint = None,
    host: _Host = None,
    timeout: _Timeout = 10.0,
    processes: _Processes = 1,
    for_users: _ForUsers = 10_000,
    user_rate: _UserRate = 0.1,
    out: _Out = None,
    jmeter: _JMeter = None,
    k6: _K6 = None,
    locust: _Locust = None,
) -> None:
    """Send requests at a fixed rate and measure.

    Latencies count from the time when a request was due. The requests are predictions and are
    logged as such. With a bound (--p99), the exit code is 3 if it is missed. If the load generator
    itself was too slow, there is no verdict, and the exit code is 6. A target on another machine is
    refused, unless --host names that machine.

    Example: mlship loadtest staging --find-rate --p99 50ms
    """
    from mlship.domain.load import duration
    from mlship.domain.load_report import Limits, Population
    from mlship.steps import loadtest as steps

    options = session(context)
    limits = Limits(
        rate=rate,
        seconds=seconds,
        users=users,
        timeout=timeout,
        processes=processes,
        p99_ms=None if p99 is None else 1000 * duration(p99, "--p99"),
    )
    population = Population(users=for_users, user_rate=user_rate)
    steps.check(limits, population, searches=find_rate)
    pipeline = options.pipeline(purpose="read")
    subject = _subject(pipeline, target, endpoint, requests, host)
    plans = {"jmeter": jmeter, "k6": k6, "locust": locust}
    if any(plans.values()):
        _write_plans(options, subject, limits, plans)
        return
    report = _run(pipeline, subject, limits, population if find_rate else None)
    _show(options, report, out or _folder(pipeline, report))
    steps.check_verdict(report)


def _subject(
    pipeline: "Pipeline",
    target: str,
    endpoint: str | None,
    requests: Path | None,
    host: str | None,
) -> "Subject":
    from mlship.domain.deployment import TargetName
    from mlship.steps import load_subject

    if endpoint is not None:
        return load_subject.of_endpoint(pipeline, endpoint, requests, host)
    for name in get_args(TargetName):
        if name == target:
            return load_subject.of_target(pipeline, name, requests, host)
    raise ConfigError(f"there is no target {target}", hint="use staging or production")


def _run(
    pipeline: "Pipeline", subject: "Subject", limits: "Limits", population: "Population | None"
) -> "LoadReport":
    from mlship import wire
    from mlship.cli.load_view import LoadLines, LoadView
    from mlship.steps import loadtest as steps

    generator = wire.generator(pipeline.api_key, pipeline.certificate(subject.name))
    with LoadView() if sys.stderr.isatty() else LoadLines() as view:
        if population is None:
            return steps.run(subject, limits, generator, view, pipeline.clock)
        return steps.search(subject, limits, population, generator, view, pipeline.clock)


def _folder(pipeline: "Pipeline", report: "LoadReport") -> Path:
    name = report.subject.name or "endpoint"
    return pipeline.state / "loadtest" / f"{name}-{report.started.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _show(options: Session, report: "LoadReport", folder: Path) -> None:
    """Print a report, and write it as Markdown and JSON with a picture."""
    from mlship import wire
    from mlship.reports import load

    folder.mkdir(parents=True, exist_ok=True)
    subject = report.subject.name or report.subject.endpoint
    title = f"{subject}: {report.result.rate:.4g} requests/s"
    wire.draw_load(report.result, title, folder / load.PICTURE)
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=2)
    files.write_atomically(folder / "report.json", encoded)
    files.write_atomically(folder / "report.md", load.markdown(report).encode())
    if options.json:
        output.as_json(report)
        return
    for sentence in load.sentences(report):
        output.line(sentence)
    output.line(f"report: {folder / 'report.md'}")


def _write_plans(
    options: Session, subject: "Subject", limits: "Limits", plans: dict[str, Path | None]
) -> None:
    """Write the same workload for other load generators."""
    from mlship.steps.loadtest import plan_of
    from mlship.templates import load_plans

    plan, names = plan_of(subject, limits), []
    for tool, path in plans.items():
        if path is None:
            continue
        for file, text in load_plans.render(tool, plan, path).items():
            file.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(file, text.encode())
            names.append(str(file))
    if options.json:
        output.as_json({"files": names})
        return
    for name in names:
        output.line(name)
