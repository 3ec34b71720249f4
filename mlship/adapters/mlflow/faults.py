"""What is said when MLflow does not work."""

from urllib.parse import urlsplit

from mlship.errors import IntegrityError, UnavailableError, shown


def userinfo(uri: str) -> str:
    """Return what a URI says of user and password, empty where it says nothing."""
    return urlsplit(uri).netloc.rpartition("@")[0]


def denied(uri: str) -> UnavailableError:
    """Return the error of a server that does not let us in."""
    message = f"MLflow at {shown(uri)} refused the credentials"
    hint = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return UnavailableError(message, hint=hint)


def unavailable(uri: str, reason: str) -> UnavailableError:
    """Return the error of a server or database that cannot be used now."""
    message = f"MLflow at {shown(uri)} cannot be used: {reason}"
    if uri.startswith("http"):
        hint = "start the server or correct MLFLOW_TRACKING_URI, then run the command again"
    else:
        hint = "end what holds the database, check disk and permissions, then run it again"
    return UnavailableError(message, hint=hint)


def broken(uri: str, reason: str) -> IntegrityError:
    """Return the error of a database whose bytes are no database."""
    message = f"MLflow's database {shown(uri)} is damaged: {reason}"
    return IntegrityError(message, hint="restore it from a backup, or move it away and train again")
