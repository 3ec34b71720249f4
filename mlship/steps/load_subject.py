"""What a load test sends, and to whom."""

from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mlship.domain import workload
from mlship.domain.deployment import TargetName
from mlship.domain.load import is_loopback
from mlship.domain.load_report import Subject
from mlship.domain.release import Release
from mlship.domain.workload import Request
from mlship.errors import (
    ConfigError,
    NotFoundError,
    ProjectError,
    RefusedError,
    UnavailableError,
    shown,
)
from mlship.steps import replay
from mlship.steps.pipeline import Pipeline
from mlship.steps.verify import golden_requests


def of_target(pipeline: Pipeline, name: TargetName, file: Path | None, host: str | None) -> Subject:
    """Return a target and the requests for it: of a file, the project's workload, or the bundle.

    Args:
        pipeline: the project.
        name: of the target.
        file: a workload; by default the project's, else the golden examples of the release.
        host: that may be loaded although it is not this machine.

    Raises:
        NotFoundError: nothing runs there.
        RefusedError: the target is not on this machine, and `host` does not name it.
        ProjectError: the requests cannot be read.
        UnavailableError: the target does not respond.
    """
    target = pipeline.target(name)
    route, deployments = target.routes(), target.inspect()
    weights = {slot: route.split.share(slot) for slot in deployments}
    slot = max(weights, key=lambda each: weights[each], default=None)
    if slot is None or not weights[slot]:
        deploy = "mlship deploy-staging" if name == "staging" else "mlship deploy-production"
        raise NotFoundError(
            f"target {name} has no endpoint: no release runs there",
            hint=f"run `{deploy}` first, or give --endpoint",
        )
    _check_host(route.endpoint, host, f"target {name}")
    release = pipeline.release(deployments[slot].release)
    requests, source = _requests(pipeline, file, release)
    certificate = pipeline.certificate(name)
    _check_response(pipeline, route.endpoint, requests[0], source, certificate)
    return Subject(
        name=name,
        endpoint=route.endpoint,
        release=str(release),
        replicas=max(1, sum(deployments[each].ready for each in weights if weights[each])),
        user_header=pipeline.target_config(name).sticky_header or "",
        source=source,
        bodies=_bodies(requests),
    )


def of_endpoint(pipeline: Pipeline, endpoint: str, file: Path | None, host: str | None) -> Subject:
    """Return a server that is no target, and the requests of a file or of the project's workload.

    Args:
        pipeline: the project.
        endpoint: the URL of the server, without a path.
        file: a workload; by default the project's.
        host: that may be loaded although it is not this machine.

    Raises:
        ConfigError: the endpoint is no URL, or there are no requests.
        RefusedError: it is not on this machine, and `host` does not name it.
        ProjectError: the requests cannot be read.
        UnavailableError: the server does not respond.
    """
    try:
        is_url = urlsplit(endpoint).scheme in ("http", "https") and urlsplit(endpoint).port != 0
    except ValueError:
        is_url = False
    if not is_url or not urlsplit(endpoint).hostname:
        message = f"invalid URL for --endpoint: {shown(endpoint)!r}"
        raise ConfigError(message, hint="give one such as http://127.0.0.1:8080")
    _check_host(endpoint, host, f"endpoint {shown(endpoint)}")
    if file is None and pipeline.config.workload is None:
        message = "there are no requests for --endpoint"
        raise ConfigError(message, hint="give --requests FILE, or set `workload` in mlship.yaml")
    requests, source = _requests(pipeline, file, None)
    try:
        _check_response(pipeline, endpoint, requests[0], source)
    except UnavailableError as error:
        hint = "start the server, or correct --endpoint"
        raise UnavailableError(error.message, hint=hint) from error
    return Subject(
        name="",
        endpoint=endpoint.rstrip("/"),
        release="",
        replicas=1,
        user_header="",
        source=source,
        bodies=_bodies(requests),
    )


def _check_host(endpoint: str, host: str | None, what: str) -> None:
    """Refuse what is not on this machine, unless it is named: load on others may do harm."""
    name = urlsplit(endpoint).hostname or ""
    if not is_loopback(name) and name != (host or "").strip("[]").lower():
        raise RefusedError(
            f"{what} is on host {name}, not on this machine",
            hint=f"if you may load that host, give --host {name}",
        )


def _requests(
    pipeline: Pipeline, file: Path | None, release: Release | None
) -> tuple[list[Request], str]:
    """Return the requests of a file, of the project's workload, or else of a bundle."""
    if file is not None and not file.is_file():
        raise ProjectError(f"{file} is not a file", hint="give --requests a file with a workload")
    if file is not None:
        return workload.read(file), str(file)
    if pipeline.config.workload or release is None:
        name = pipeline.config.workload or ""
        return workload.read(pipeline.root / name), name
    requests = golden_requests(pipeline.bundle(release))
    if not requests:
        message = f"release {release} has no golden examples to send"
        raise ProjectError(message, hint="give --requests FILE, or set `workload` in mlship.yaml")
    return requests, f"the golden examples of {release}"


def _check_response(
    pipeline: Pipeline,
    endpoint: str,
    request: Request,
    source: str,
    certificate: Path | None = None,
) -> None:
    key = pipeline.api_key
    (reply,) = replay.replay([request], endpoint, api_key=key, certificate=certificate)
    if reply.status >= 400:
        message = f"{request.name} of {source} is answered with {reply.error}"
        raise ProjectError(message, hint="give --requests a file with requests that succeed")


def _bodies(requests: list[Request]) -> tuple[str, ...]:
    return tuple(msgspec.json.encode(request.body).decode() for request in requests)
