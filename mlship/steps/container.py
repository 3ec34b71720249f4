"""test --container: run the image of a release in a container engine and check it."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import msgspec

from mlship.domain import checks, gates, shapes, workload
from mlship.domain.bundle import Row
from mlship.domain.checks import Check
from mlship.domain.container import Container, Local, Observed
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Saw, Step
from mlship.domain.facts import Contained, Containerized, PushedImage
from mlship.domain.ports import Engine
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.scores import Server, TestRun
from mlship.domain.suites import SuiteRun
from mlship.domain.workload import Request, WorkloadResult
from mlship.errors import ConfigError, IntegrityError, UnavailableError
from mlship.steps import checkout, replay
from mlship.steps.containerize import STEP as CONTAINERIZE
from mlship.steps.pipeline import STAGING, Pipeline
from mlship.steps.push import STEP as PUSH
from mlship.steps.push import proven
from mlship.steps.verify import golden_requests

if TYPE_CHECKING:
    import httpx

STEP: Final[Step] = "test-container"
SETTINGS: Final = (
    *("image.memory", "image.max_mb", "tests"),
    *("targets.staging.ready_seconds", "targets.staging.drain_seconds"),
)
"""The settings that decide here, which are those of the release's commit."""

_LOOK_SECONDS = 0.02


class _Findings(msgspec.Struct, kw_only=True):
    """The results so far. If the container exits early, the rest stays empty."""

    checks: list[Check] = []
    ready_seconds: float | None = None
    result: WorkloadResult | None = None
    run: TestRun | None = None

    def add(self, name: str, *, holds: bool, text: str) -> None:
        """Add a check."""
        self.checks.append(Check(name=name, holds=holds, text=text))


def check_container(
    pipeline: Pipeline,
    release: Release,
    transport: "httpx.BaseTransport | None" = None,
    records: Records | None = None,
) -> Record:
    """Run a release's image as in production, send requests, and stop it during a request.

    The image is the pushed one, by digest. Before a push, or if no repository is configured (as in
    a job without credentials for one), it is the image that `containerize` built, loaded into the
    engine from a file. `transport` is how httpx reaches the container.

    Returns:
        The evidence `test-container`; `checks` has one entry for each check.

    Raises:
        NotFoundError: the release has no image, or it is missing from the registry.
        IntegrityError: the engine loaded an image with another digest.
        ConfigError: the package of the engine is missing, or the engine is on another machine.
        UnavailableError: no container engine responds.
    """
    started = pipeline.clock()
    records = pipeline.read(records)
    folder = pipeline.bundle(release)
    requests = golden_requests(folder)
    differs = checkout.differences(pipeline, release, records, SETTINGS)
    findings = _Findings(checks=checkout.warnings(release, differs))
    with ExitStack() as until_done:
        engine = _connected(pipeline, until_done)
        reference, digest, image = _bring(pipeline, release, engine, records)
        limit = pipeline.config.image.max_mb
        size = f"{image.size / 1e6:.0f} MB unpacked, allowed up to {limit} (image.max_mb)"
        findings.add("size", holds=image.size <= limit * 1e6, text=size)
        begun = pipeline.clock()
        with engine.run(image, memory=pipeline.config.image.memory) as container:
            examination = _Examination(pipeline, release, engine, container, transport)
            if examination.ready(findings, begun):
                examination.everything(findings, folder, requests)
                examination.drains(findings, requests)
    decision = checks.decide(findings.checks)
    result = findings.result
    facts = Contained(
        reference=reference,
        ready_seconds=findings.ready_seconds,
        size=image.size,
        max_mb=limit,
        memory=pipeline.config.image.memory,
        requests=result.requests if result else 0,
        errors=result.errors if result else 0,
        mismatches=result.mismatches if result else 0,
        p99_ms=round(result.p99_ms, 3) if result else None,
        differences=tuple(map(str, result.differences)) if result else (),
        tests=(SuiteRun.of(findings.run),) if findings.run else (),
        differs=differs,
        checks=decision.checks,
        seconds=round((pipeline.clock() - started).total_seconds(), 3),
    )
    saw = Saw(bundle=release.bundle, image=digest, policy=pipeline.policy("container"))
    return pipeline.learn(release, STEP, decision.verdict, facts, saw, after=records)


def _connected(pipeline: Pipeline, until_done: ExitStack) -> Engine:
    """Connect to the engine. The hint of an error says how to continue without one."""
    try:
        return until_done.enter_context(pipeline.engine())
    except (ConfigError, UnavailableError) as error:
        hint = f"{error.hint}; without an engine, set `gates.container: false`"
        raise type(error)(error.message, hint=hint) from error


def _bring(
    pipeline: Pipeline, release: Release, engine: Engine, records: Records
) -> tuple[str, Digest, Local]:
    built, pushed = records.latest(CONTAINERIZE, release), records.latest(PUSH, release)
    if built and pushed and pipeline.config.image.repository:
        facts = shapes.of(pushed, PushedImage)
        if facts.digest == shapes.of(built, Containerized).digest:
            pipeline.progress.note(f"pulling {facts.reference}")
            return facts.reference, facts.digest, engine.pull(facts.reference)
    image = proven(pipeline, release, built)
    pipeline.progress.note("loading the image into the engine")
    pipeline.state.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".load-", dir=pipeline.state) as folder:
        archive = Path(folder, "image.tar")
        pipeline.images().save(image, archive)
        local = engine.load(archive)
    known = {image.digest} | {
        digest for platform in image.platforms for digest in (platform.manifest, platform.config)
    }
    if local.id not in known:
        message = f"the engine loaded {local.id}, which does not belong to {image.digest}"
        raise IntegrityError(
            message, hint=f"run `mlship containerize {release}`, then run the test again"
        )
    return f"{image.name}@{image.digest}", image.digest, local


class _Examination:
    """Sends requests to one container and records checks."""

    def __init__(
        self,
        pipeline: Pipeline,
        release: Release,
        engine: Engine,
        container: Container,
        transport: "httpx.BaseTransport | None",
    ) -> None:
        self._pipeline = pipeline
        self._release = release
        self._engine = engine
        self._container = container
        self._transport = transport

    def ready(self, findings: _Findings, begun: datetime) -> bool:
        """Wait until the container is ready; return whether it was ready in time after `begun`."""
        limit = self._pipeline.target_config(STAGING).ready_seconds
        self._pipeline.progress.note(f"waiting for the container, up to {limit:g} s")
        clock, endpoint = self._pipeline.clock, self._container.endpoint
        while not replay.is_ready(endpoint, self._transport):
            observed = self._engine.observe(self._container)
            if not observed.running:
                findings.add("readiness", holds=False, text=f"never ready: {observed}")
                return False
            if _since(begun, clock()) > limit:
                reason = "\n".join([f"not ready after {limit:g} s; last output:", *observed.lines])
                findings.add("readiness", holds=False, text=reason)
                return False
            time.sleep(_LOOK_SECONDS)
        findings.ready_seconds = _since(begun, clock())
        text = f"ready after {findings.ready_seconds:.2f} s, allowed up to {limit:g}"
        findings.add("readiness", holds=findings.ready_seconds <= limit, text=text)
        return True

    def everything(self, findings: _Findings, folder: Path, requests: Sequence[Request]) -> None:
        """Replay the golden examples, run the sanity tests and send malformed requests."""
        pipeline, endpoint = self._pipeline, self._container.endpoint
        offline = pipeline.predictor.predict(folder, workload.rows(requests))
        pipeline.progress.note(f"replaying {len(requests)} golden examples")
        try:
            replies = replay.replay(requests, endpoint, transport=self._transport)
        except UnavailableError as error:
            findings.add("requests", holds=False, text=error.message)
            return
        findings.result = workload.judge(requests, replies, offline)
        findings.checks += _as_offline(self._release, findings.result)
        pipeline.progress.note("sanity tests on the container")
        findings.run = pipeline.tester.test("sanity", bundle=None, server=Server(endpoint))
        if findings.run is not None:
            findings.checks.append(gates.on_tests(findings.run))
        for name, status in replay.refusals(endpoint, _row(requests), self._transport).items():
            text = f"{name}: HTTP {status}" if status else f"{name}: no response"
            findings.add(name, holds=400 <= status < 500, text=text)

    def drains(self, findings: _Findings, requests: Sequence[Request]) -> None:
        """Send SIGTERM during a request: it must be answered before the process exits."""
        before = self._engine.observe(self._container)
        if not before.running:
            findings.add("running", holds=False, text=f"exited during the test: {before}")
            return
        grace = self._pipeline.target_config(STAGING).drain_seconds
        self._pipeline.progress.note("SIGTERM, with a request in flight")
        begun = self._pipeline.clock()
        stopping: list[Future[Observed]] = []
        with ThreadPoolExecutor(1) as pool:

            def stop() -> None:
                stopping.append(pool.submit(self._engine.stop, self._container, grace))

            endpoint, row = self._container.endpoint, _row(requests)
            status = replay.in_flight(endpoint, row, stop, self._transport)
        response = f"HTTP {status}" if status else "no response"
        text = f"request in flight at SIGTERM: {response}"
        findings.add("request in flight", holds=status == 200, text=text)
        seconds = _since(begun, self._pipeline.clock())
        if not stopping:
            return
        stopped = stopping[0].result()
        end = f"exit code 0 after {seconds:.1f} s" if stopped.exit_code == 0 else str(stopped)
        text = f"SIGTERM, with {grace:g} s to exit: {end}"
        findings.add("SIGTERM", holds=stopped.exit_code == 0, text=text)


def _as_offline(release: Release, result: WorkloadResult) -> list[Check]:
    mismatches = f"{result.mismatches} responses differ from offline predictions"
    return [
        *gates.on_requests(result, release, "golden examples replayed"),
        Check(name="errors", holds=result.errors == 0, text=f"{result.errors} without a response"),
        Check(name="mismatches", holds=result.mismatches == 0, text=mismatches),
    ]


def _row(requests: Sequence[Request]) -> Row:
    return requests[0].rows[0] if requests else {}


def _since(begun: datetime, now: datetime) -> float:
    return round((now - begun).total_seconds(), 3)
