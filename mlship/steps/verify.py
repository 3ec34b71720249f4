"""verify-staging-workload: replay recorded requests on staging and check the responses."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from mlship.domain import bundle as bundles
from mlship.domain import checks, digests, gates, private, workload
from mlship.domain.bundle import Row
from mlship.domain.checks import Check
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Record, Saw, Step
from mlship.domain.facts import Verified
from mlship.domain.policy import Bound
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.scores import Golden, Server, TestRun
from mlship.domain.suites import SuiteRun
from mlship.domain.workload import Reply, Request, WorkloadResult
from mlship.errors import ConflictError, ProjectError, RowError
from mlship.steps import checkout, replay
from mlship.steps.attest import renew_statement
from mlship.steps.pipeline import STAGING, Pipeline

STEP: Final[Step] = "verify-staging-workload"
SETTINGS: Final = ("gates.staging", "tests", "workload")
"""The settings that decide here, which are those of the release's commit."""

_ALWAYS = {"errors": Bound(max=0), "mismatches": Bound(max=0)}


def verify(
    pipeline: Pipeline,
    release: Release,
    records: Records | None = None,
    *,
    recorded: int = 0,
    endpoint: str | None = None,
) -> Record:
    """Send the workload to staging and compare the responses with offline predictions.

    Args:
        pipeline: the project.
        release: the release that staging must run.
        records: the records that the command has read; by default the ledger is read.
        recorded: the number of production's latest logged requests to replay as well.
        endpoint: the URL of staging; `None` asks the target. Each response names its release.

    Returns:
        The evidence `verify-staging-workload`; `differences` names requests, fields and values.

    Raises:
        ConflictError: staging runs another release.
        ProjectError: the workload cannot be read, or there is nothing to send.
        ConfigError: staging needs an API key, and MLSHIP_API_KEY has none that is valid.
        UnavailableError: staging does not respond.
    """
    started = pipeline.clock()
    known = pipeline.read(records)
    differs = checkout.differences(pipeline, release, known, SETTINGS)
    certificate = None if endpoint else pipeline.certificate(STAGING)
    endpoint = endpoint or _endpoint(pipeline, release)
    folder = pipeline.bundle(release)
    requests = [*_workload(pipeline, folder), *_recorded(pipeline, recorded, known)]
    if not requests:
        raise ProjectError(
            "there are no requests to replay",
            hint="set `workload` in mlship.yaml, or give --recorded 100",
        )
    pipeline.progress.note("computing the expected outputs offline")
    offline = _offline(pipeline, folder, requests)
    result = workload.judge(requests, _replayed(pipeline, requests, endpoint, certificate), offline)
    pipeline.progress.note("sanity tests on staging")
    run = pipeline.tester.test("sanity", bundle=None, server=Server(endpoint, certificate))
    decision = checks.decide(
        [*checkout.warnings(release, differs), *_checks(pipeline, release, result, run)]
    )
    facts = Verified(
        endpoint=endpoint,
        requests=result.requests,
        errors=result.errors,
        mismatches=result.mismatches,
        p50_ms=round(result.p50_ms, 3),
        p99_ms=round(result.p99_ms, 3),
        differences=tuple(str(difference) for difference in result.differences),
        tests=(SuiteRun.of(run),) if run else (),
        differs=differs,
        checks=decision.checks,
        seconds=round((pipeline.clock() - started).total_seconds(), 3),
    )
    saw = Saw(
        bundle=release.bundle,
        workload=digests.of_value(requests),
        policy=pipeline.policy(STAGING),
    )
    record = pipeline.learn(release, STEP, decision.verdict, facts, saw, after=known)
    renew_statement(pipeline, release, known.plus(record))
    return record


def _replayed(
    pipeline: Pipeline, requests: Sequence[Request], endpoint: str, certificate: Path | None
) -> Sequence[Reply]:
    pipeline.progress.note(f"replaying {len(requests)} requests")
    key = pipeline.api_key
    return replay.replay(requests, endpoint, api_key=key, certificate=certificate)


def _offline(pipeline: Pipeline, folder: Path, requests: Sequence[Request]) -> Sequence[Row]:
    try:
        return pipeline.predictor.predict(folder, workload.rows(requests))
    except RowError as error:
        owners = [request.name for request in requests for _ in request.rows]
        message = f"workload: request {owners[error.row]}: {error.reason}"
        raise ProjectError(message, hint=error.hint) from error


def _endpoint(pipeline: Pipeline, release: Release) -> str:
    target, slot = pipeline.target(STAGING), slot_of(release)
    route, deployment = target.routes(), target.inspect().get(slot)
    if deployment is None or route.split.share(slot) != 100:
        raise ConflictError(
            f"{release} is not running in staging",
            hint=f"run `mlship deploy-staging {release}` first",
        )
    return route.endpoint


def _workload(pipeline: Pipeline, folder: Path) -> list[Request]:
    """Return the project's workload, or the bundle's golden examples if it has none."""
    path = pipeline.config.workload
    if path:
        return workload.read(pipeline.root / path)
    return golden_requests(folder)


def golden_requests(folder: Path) -> list[Request]:
    """Return the golden examples of a bundle as requests that expect the recorded outputs."""
    lines = (folder / bundles.GOLDEN).read_bytes().splitlines()
    golden = [msgspec.json.decode(line, type=Golden) for line in lines]
    return [
        Request(name=f"golden {number}", body=example.inputs, expect=(example.outputs,))
        for number, example in enumerate(golden, 1)
    ]


def _recorded(pipeline: Pipeline, count: int, records: Records) -> list[Request]:
    """Return the latest logged requests of production: only inputs, without expected outputs."""
    if count <= 0:
        return []
    hidden = pipeline.config.observations.columns
    never = {name: rule for name, rule in hidden.items() if rule == "never"}
    logged = {
        prediction.id: prediction.inputs
        for prediction in pipeline.observations.predictions(records.ids)
        if not prediction.shadow and not private.lacks(prediction.inputs, never)
    }
    if hidden and len(logged) < count:
        pipeline.progress.note(
            f"{len(logged)} of {count} recorded requests can be replayed: observations.columns "
            "keeps columns of the others out of the log"
        )
    latest = islice(reversed(logged.items()), count)
    return [Request(name=f"recorded {name}", body=inputs) for name, inputs in latest]


def _checks(
    pipeline: Pipeline, release: Release, result: WorkloadResult, run: TestRun | None
) -> list[Check]:
    values = {
        "errors": float(result.errors),
        "mismatches": float(result.mismatches),
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
    }
    return [
        *gates.on_requests(result, release, "requests replayed"),
        *gates.on_metrics(values, _ALWAYS | pipeline.config.gates.staging),
        *([gates.on_tests(run)] if run else []),
    ]
