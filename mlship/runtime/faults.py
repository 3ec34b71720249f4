"""A request that cannot be answered, as a value for the client and an exception to carry it."""

from http import HTTPStatus

import msgspec

from mlship.errors import ProjectError


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong with a request.

    Attributes:
        message: the fault, for people.
        field: where it is: `rows[3].sepal_length`; empty where it is the whole request.
        hint: the next action.
    """

    message: str
    field: str = ""
    hint: str = ""


class RefusedRequest(Exception):  # noqa: N818 (it is a refusal; the error is the client's)
    """Carries a fault to the edge, where it becomes an HTTP answer or a `ProjectError`.

    It is no part of the tree of `mlship.errors`: nobody outside of the runtime meets it.
    """

    def __init__(self, message: str, *, field: str = "", hint: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.fault = Fault(message=message, field=field, hint=hint)
        self.status = HTTPStatus(status)

    def as_project_error(self) -> ProjectError:
        """Return the same as an error of the tree, for callers in the same process."""
        where = f"{self.fault.field}: " if self.fault.field else ""
        return ProjectError(where + self.fault.message, hint=self.fault.hint)
