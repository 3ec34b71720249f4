"""Failures of MLflow as errors of mlship."""

from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded
from mlship.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    MlshipError,
    NotFoundError,
    UnavailableError,
    shown,
)

TWICE: Final = ("UNIQUE constraint", "duplicate key", "Duplicate entry")
"""Messages of databases for a row that already exists."""
_SET: Final = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
WRONG: Final = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}


def userinfo(uri: str) -> str:
    """Return the user and password of a URI, empty if there are none."""
    return urlsplit(uri).netloc.rpartition("@")[0]


def denied(uri: str) -> UnavailableError:
    """Return the error of a server that denies access."""
    return UnavailableError(f"MLflow at {shown(uri)} refused the credentials", hint=_SET)


def forbidden(uri: str, action: str) -> UnavailableError:
    """Return the error of a server that knows the user, who may not do this."""
    message = f"MLflow at {shown(uri)} does not permit {action} with these credentials"
    hint = f"ask the server's administrator for the permission, or {_SET}"
    return UnavailableError(message, hint=hint)


def unavailable(uri: str, reason: str) -> UnavailableError:
    """Return the error of a server or database that is unavailable."""
    message = f"MLflow at {shown(uri)} cannot be used: {reason}"
    if uri.startswith("http"):
        hint = "start the server, or correct store.uri or MLFLOW_TRACKING_URI; then run it again"
    else:
        hint = (
            "stop the program that uses the database, check disk space and permissions, and retry"
        )
    return UnavailableError(message, hint=hint)


def broken(uri: str, reason: str) -> IntegrityError:
    """Return the error of a file that is not a database."""
    message = f"MLflow's database {shown(uri)} is damaged: {reason}"
    return IntegrityError(message, hint="restore it from a backup, or move it away and train again")


def was_second(response: httpx.Response) -> bool:
    """Return whether a database rejected a row because another process wrote it first.

    Nothing of the request was stored, and a repeated request finds the row. A name that is taken is
    a different error, although MLflow reports it in the same words.
    """
    if not response.is_error or "RESOURCE_ALREADY_EXISTS" in response.text:
        return False
    return any(word in response.text for word in TWICE)


def refused(response: httpx.Response, uri: str, what: str, tried: str) -> MlshipError:
    """Return the error for a response of a tracking server that is not a success.

    Args:
        response: with its body read.
        uri: of the server.
        what: the object of the request, such as `runs/get 3f9a`.
        tried: the number of attempts, appended to the message.
    """
    try:
        problem = decoded(response.content, Problem)
    except msgspec.DecodeError:
        problem = Problem()
    code, text = problem.error_code, " ".join(problem.message.split())[:300]
    where = f"MLflow at {shown(uri)}"
    if code == "RESOURCE_ALREADY_EXISTS":
        return ConflictError(
            f"{where} already has this object: {what}", hint="run the command again"
        )
    if code == "RESOURCE_DOES_NOT_EXIST":
        return NotFoundError(f"{where} has no such object: {what}", hint="see `mlship status`")
    if code in WRONG:
        message = f"{where} refused a value: {text}"
        return ConfigError(message, hint="change the value that the message names")
    said = f": {text}" if text else ""
    path = what.partition(" ")[0]
    return unavailable(uri, f"{path} answered {response.status_code}{tried}{said}")


class Problem(msgspec.Struct, frozen=True):
    """MLflow's own message for a failure."""

    error_code: str = ""
    message: str = ""
