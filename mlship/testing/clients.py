"""The client of a project's sanity tests: over HTTP, or in process with the same Service."""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, overload

import httpx

from mlship.domain import api_keys, digests, tls
from mlship.domain.bundle import MANIFEST, Row
from mlship.errors import IntegrityError
from mlship.runtime.http import Request
from mlship.runtime.model import Model
from mlship.runtime.options import Identity
from mlship.runtime.service import Service


class SanityClient(httpx.Client):
    """An `httpx.Client` of a served model, with the method `predict` for short tests.

    Use httpx's `client.post("/predict", json=...)` and `client.get(...)` to test error responses.
    """

    @overload
    def predict(self, rows: Row) -> dict[str, Any]: ...
    @overload
    def predict(self, rows: list[Row]) -> list[dict[str, Any]]: ...
    def predict(self, rows: Row | list[Row]) -> dict[str, Any] | list[dict[str, Any]]:
        """Return the prediction for a row, or the predictions for a list of rows, with their `id`.

        Raises:
            httpx.HTTPStatusError: the service returned an error; the message contains its text.
        """
        response = self.post("/predict", json=rows)
        if not response.is_success:
            message = f"{response.status_code} for {response.url}: {response.text}"
            raise httpx.HTTPStatusError(message, request=response.request, response=response)
        predictions: list[dict[str, Any]] = response.json()["predictions"]
        return predictions[0] if isinstance(rows, dict) else predictions


class InProcess(httpx.BaseTransport):
    """Passes requests to a Service in this process. Nothing is logged."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request like the server."""
        response = self._service.handle(
            Request(
                method=request.method,
                path=request.url.path,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=request.read(),
            )
        )
        return httpx.Response(response.status, headers=response.headers, content=response.body)


def of_endpoint(endpoint: str, api_key: str = "", certificate: str = "") -> SanityClient:
    """Return a client of an HTTP endpoint.

    Args:
        endpoint: its URL.
        api_key: sent unless it is empty.
        certificate: the path of the only one that is trusted; empty for those of the system.
    """
    trust = tls.client_context(Path(certificate)) if certificate else True
    headers = api_keys.header(api_key)
    return SanityClient(base_url=endpoint, headers=headers, timeout=30.0, verify=trust)


def of_bundle(folder: Path) -> SanityClient:
    """Return a client of a bundle, served in this process.

    Raises:
        NotFoundError: there is no bundle.
        IntegrityError: a file was changed, or the outputs differ from those at training time.
        ProjectError: a hook cannot be imported.
    """
    model = Model.load(folder, None)
    digest = digests.of_file(folder / MANIFEST)
    name = f"{model.bundle.name}@{digests.short(digest)}"
    service = Service(
        model,
        Identity(release=digest, name=name, slot="sanity"),
        None,
        clock=lambda: datetime.now(UTC),
        new_id=lambda: str(uuid.uuid4()),
    )
    service.warm_up(folder)
    if service.failure:
        message = f"bundle {folder}: {service.failure}"
        raise IntegrityError(message, hint="train again in this environment")
    return SanityClient(transport=InProcess(service), base_url="http://sanity")
