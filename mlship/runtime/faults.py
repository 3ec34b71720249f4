"""Errors of requests: a value for the client, and an exception that carries it."""

from http import HTTPStatus

import msgspec

from mlship.errors import ProjectError


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong with a request.

    Attributes:
        message: what is wrong, for people.
        field: where, such as `rows[3].sepal_length`; empty for the whole request.
        hint: the next action.
    """

    message: str
    field: str = ""
    hint: str = ""


class RefusedRequest(Exception):  # noqa: N818 (the error is the client's)
    """Carries a fault to the edge, where it becomes an HTTP response or a `ProjectError`.

    It is not part of the tree in `mlship.errors`, because it never leaves the runtime.
    """

    def __init__(self, message: str, *, field: str = "", hint: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.fault = Fault(message=message, field=field, hint=hint)
        self.status = HTTPStatus(status)

    def as_project_error(self) -> ProjectError:
        """Return the fault as an error of the tree, for callers in the same process."""
        where = f"{self.fault.field}: " if self.fault.field else ""
        return ProjectError(where + self.fault.message, hint=self.fault.hint)
