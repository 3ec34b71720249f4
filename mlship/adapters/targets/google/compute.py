"""The one door to the Compute Engine API: global objects of a project, and their operations.

A write only starts an operation. It is waited for, so that a method returns when its effect can be
read. Nothing is kept of an operation: after a crash the next command reads the objects.
Source: https://docs.cloud.google.com/compute/docs/reference/rest/v1
"""

import time
import uuid
from typing import Any, Final, Literal

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded
from mlship.adapters.http.door import Door, NoAnswerError
from mlship.adapters.http.retries import Patience, Repeat
from mlship.adapters.targets.google import faults
from mlship.adapters.targets.google.faults import Failure
from mlship.domain.fence import Fence
from mlship.errors import TimedOutError, UnavailableError

URL: Final = "https://compute.googleapis.com"
FULL: Final = "https://www.googleapis.com/compute/v1"
"""The beginning of full names; a backend must be named so."""
PATIENCE: Final = Patience(deadline=90, attempts=6, first=1, longest=20)
Kind = Literal["urlMaps", "backendServices", "healthChecks"]
Resource = dict[str, Any]
"""An object of the API in JSON."""
NAMES: Final[dict[Kind, str]] = {
    "urlMaps": "URL map",
    "backendServices": "backend service",
    "healthChecks": "health check",
}
_OPERATION_SECONDS = 300.0
_BUSY_SECONDS = 120.0
_POLL_SECONDS = 1.0


class _Operation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A write that is under way."""

    name: str
    status: str = ""
    http_error_status_code: int = 0
    error: Failure | None = None


class Compute:
    """Global objects of one project. Every method raises errors of mlship only."""

    def __init__(self, door: Door, project: str, fence: Fence) -> None:
        """Store what is needed; nothing is requested.

        Args:
            door: to the API; it asks the fence before each write.
            project: the ID of the project.
            fence: of the lock that is held.
        """
        self._door = door
        self._fence = fence
        self.project = project

    @property
    def number(self) -> int:
        """The number of the lock's holder; 0 without a lock."""
        return self._fence.number

    @property
    def cluster(self) -> str:
        """The place of the parent for people."""
        return f"Google Cloud project {self.project}"

    def link(self, kind: Kind, name: str) -> str:
        """Return the name of an object in other objects."""
        return f"{FULL}/projects/{self.project}/global/{kind}/{name}"

    def get(self, kind: Kind, name: str) -> Resource | None:
        """Return an object; `None` if it does not exist."""
        response = self._send("GET", f"{kind}/{name}")
        if response.status_code == 404:
            return None
        return self._object(response, f"{NAMES[kind]} {name}")

    def insert(self, kind: Kind, body: Resource) -> None:
        """Create an object, unless it is there.

        Its name says what it is: one that another command has just made is as good.
        """
        what = f"{NAMES[kind]} {body['name']}"
        self._write("POST", kind, what, body, unless=frozenset({409}))

    def update(self, kind: Kind, body: Resource) -> None:
        """Replace an object that was read and changed, unless it was changed since.

        A PUT: in a PATCH, an empty list would be no change.

        Raises:
            ConflictError: its fingerprint is not that of the object.
        """
        what = f"{NAMES[kind]} {body['name']}"
        self._write("PUT", f"{kind}/{body['name']}", what, body)

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object; one that does not exist is not an error."""
        what = f"{NAMES[kind]} {name}"
        self._write("DELETE", f"{kind}/{name}", what, unless=frozenset({404}))

    def health(self, service: str, group: str) -> list[str]:
        """Return the state of each endpoint of a backend, `HEALTHY` or another one.

        A group or a service that does not exist has none.
        """
        where = f"backendServices/{service}/getHealth"
        response = self._send("POST", where, {"group": group}, repeat="always")
        if response.status_code in (400, 404) and not faults.failure(response).is_busy:
            return []
        found = self._object(response, f"health of backend service {service}")
        return [str(each.get("healthState", "")) for each in found.get("healthStatus") or ()]

    def missing(self, url_map: str, permissions: tuple[str, ...]) -> tuple[str, ...]:
        """Return the permissions on a URL map that the account does not have."""
        where, body = f"urlMaps/{url_map}/testIamPermissions", {"permissions": permissions}
        response = self._send("POST", where, body, repeat="always")
        granted = self._object(response, f"URL map {url_map}").get("permissions") or ()
        return tuple(each for each in permissions if each not in granted)

    def _write(
        self,
        method: str,
        where: str,
        what: str,
        body: Resource | None = None,
        *,
        unless: frozenset[int] = frozenset(),
    ) -> None:
        """Start an operation and wait for its end; while another one holds the object, wait.

        Args:
            method: of the request.
            where: its path within the project's global objects.
            what: the object, for people.
            body: of the request.
            unless: codes that say there is nothing to do.
        """
        end = time.monotonic() + _BUSY_SECONDS
        while True:
            # Google repeats no operation whose request has an id that it knows.
            params = {"requestId": str(uuid.uuid4())}
            response = self._send(method, where, body, params=params, repeat="always")
            if response.is_error:
                failed: Failure | None = faults.failure(response)
            else:
                failed = self._ended(response, what)
            if failed is None or (failed.code in unless and not failed.is_busy):
                return
            if not failed.is_busy or time.monotonic() >= end:
                raise faults.error_of(failed, what, self.project)
            time.sleep(_POLL_SECONDS)

    def _ended(self, response: httpx.Response, what: str) -> Failure | None:
        """Wait until an operation has ended; return why it failed, `None` if it did not."""
        operation = self._operation(response, what)
        end = time.monotonic() + _OPERATION_SECONDS
        while operation.status != "DONE":
            if time.monotonic() >= end:
                message = f"{self.cluster}: {what}: operation {operation.name} still runs after "
                message += f"{_OPERATION_SECONDS:g} s"
                hint = f"`gcloud compute operations describe {operation.name} --global`, then run "
                raise TimedOutError(message, hint=f"{hint}the command again")
            time.sleep(_POLL_SECONDS)
            response = self._send("GET", f"operations/{operation.name}")
            operation = self._operation(response, what)
        if operation.error is None:
            return None
        code = operation.http_error_status_code
        return msgspec.structs.replace(operation.error, code=code)

    def _operation(self, response: httpx.Response, what: str) -> _Operation:
        found = self._object(response, what)
        try:
            return msgspec.convert(found, _Operation)
        except msgspec.ValidationError as error:
            raise self._unreadable(what) from error

    def _object(self, response: httpx.Response, what: str) -> Resource:
        if response.is_error:
            raise faults.error_of(faults.failure(response), what, self.project)
        try:
            return decoded(response.content, Resource)
        except msgspec.DecodeError as error:
            raise self._unreadable(what) from error

    def _unreadable(self, what: str) -> UnavailableError:
        message = f"{self.cluster}: {what}: the answer is not of the Compute Engine API"
        return UnavailableError(message, hint="check the proxy, then run the command again")

    def _send(
        self,
        method: str,
        where: str,
        body: Any = None,
        *,
        params: dict[str, str] | None = None,
        repeat: Repeat = "idempotent",
    ) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        path = f"/compute/v1/projects/{self.project}/global/{where}"
        headers = {"Content-Type": "application/json"} if content else {}
        request = self._door.client.build_request(
            method, path, params=params, content=content, headers=headers
        )
        try:
            return self._door.send(request, repeat=repeat)
        except NoAnswerError as error:
            raise faults.unreachable(error, self.project) from error
