"""A prediction that cannot be logged: what its client hears, and what the operator."""

import errno
import json

import pytest

from mlship.errors import UnavailableError, UnfitRowsError
from mlship.runtime.http import Response
from mlship.runtime.unlogged import AGAIN_SECONDS, Unlogged


class Side:
    """Both sides, with a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.notes: list[str] = []
        self.unlogged = Unlogged(self.notes.append, lambda: self.now)

    def refused(self, error: BaseException) -> Response:
        return self.unlogged.response(error, "/predict")


def full() -> UnavailableError:
    error = UnavailableError("cannot write the log in /srv/secret: No space", hint="make room")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/srv/secret/a.jsonl")
    return error


def test_a_client_hears_of_the_disk_and_not_where_it_is() -> None:
    side = Side()
    response = side.refused(full())
    assert (response.status, response.reason) == (503, "log")
    fault = json.loads(response.body)["error"]
    assert fault["message"] == "the prediction log cannot be written: No space left on device"
    assert fault["hint"]
    assert b"/srv" not in response.body
    assert "cannot write the log in /srv/secret: No space; make room" in side.notes[0]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UnavailableError("no answer from db.internal:5432"), ""),
        (UnfitRowsError("log db.internal: NUL", hint="", reason="NUL"), ": NUL"),
        (ValueError("/srv/secret"), ""),
    ],
    ids=["the database is away", "it refuses the rows", "anything else"],
)
def test_a_client_hears_no_name_of_the_server(error: Exception, message: str) -> None:
    side = Side()
    fault = json.loads(side.refused(error).body)["error"]
    assert fault["message"] == f"the prediction log cannot be written{message}"
    assert "internal" in side.notes[0] or "/srv/secret" in side.notes[0]


def test_the_operator_hears_of_a_cause_once_a_minute() -> None:
    side = Side()
    for _ in range(3):
        side.refused(full())
    assert len(side.notes) == 1
    side.refused(UnavailableError("another cause"))
    assert len(side.notes) == 2
    side.now += AGAIN_SECONDS
    side.refused(UnavailableError("another cause"))
    assert len(side.notes) == 3
