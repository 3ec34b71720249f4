"""Errors of requests: a value for the client, and an exception that carries it."""

import contextlib
import sys
import traceback
from http import HTTPStatus

import msgspec

from mlship.errors import ProjectError, RowError

_LONGEST = 1000
"""So many characters of the text of an error are kept."""


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


def show(error: BaseException) -> None:
    """Write a traceback to stderr, if there is room for it: requests matter more."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error, file=sys.stderr)


def text_of(error: BaseException) -> str:
    """Return the text of an error of the user's code or a library, as a response may hold it.

    It is of any kind: its text may not be valid Unicode, have many values of a client, or fail.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 (the error is reported without it)
        return ""
    return text[:_LONGEST].encode(errors="backslashreplace").decode()


class RefusedRequest(Exception):  # noqa: N818 (the error is the client's)
    """Carries a fault to the edge, where it becomes an HTTP response or a `ProjectError`.

    It is not part of the tree in `mlship.errors`, because it never leaves the runtime.

    Attributes:
        reason: a word of `refusals` for metrics; empty for that of the status.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        hint: str = "",
        status: int = 400,
        row: int | None = None,
        column: str = "",
        retry_after: int | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        if row is not None:
            field = f"rows[{row}]" + (f".{column}" if column else "")
        self.fault = Fault(message=message, field=field, hint=hint)
        self.status = HTTPStatus(status)
        self.retry_after = retry_after
        self.reason = reason
        self._row, self._column = row, column

    def as_project_error(self) -> ProjectError:
        """Return the fault as an error of the tree, for callers in the same process."""
        fault = self.fault
        message = f"{fault.field}: {fault.message}" if fault.field else fault.message
        if self._row is None:
            return ProjectError(message, hint=fault.hint)
        reason = f"{self._column}: {fault.message}" if self._column else fault.message
        return RowError(message, hint=fault.hint, row=self._row, reason=reason)
