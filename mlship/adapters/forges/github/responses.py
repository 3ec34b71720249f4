"""Responses of GitHub's API: their purpose, their JSON, and errors for failures."""

from typing import NamedTuple, TypeVar

import msgspec

from mlship.errors import ConfigError, MlshipError, NotFoundError, RefusedError, UnavailableError

Shape = TypeVar("Shape")


class Purpose(NamedTuple):
    """The purpose of a request, for messages, and the permission that it needs."""

    action: str
    needs: str


class Response(NamedTuple):
    """A status and the JSON of the body, not decoded yet."""

    status: int
    content: bytes

    def read(self, shape: type[Shape]) -> Shape:
        """Return the decoded JSON.

        Raises:
            UnavailableError: it has another shape: this is not a GitHub API, or another version.
        """
        try:
            return msgspec.json.decode(self.content, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"invalid response from GitHub: {error}",
                hint="check that GITHUB_API_URL is the URL of a GitHub API",
            ) from error

    def message(self) -> str:
        """Return the message of an error with its details, on one line."""
        try:
            body = msgspec.json.decode(self.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"status {self.status}"
        if not isinstance(body, dict):
            return f"status {self.status}"
        details = [
            str(detail.get("message") or f"{detail.get('field')} {detail.get('code')}")
            for detail in body.get("errors") or ()
            if isinstance(detail, dict)
        ]
        text = ": ".join([str(body.get("message", "")), *details])
        return " ".join(text.split())[:300]


def forbidden(response: Response, purpose: Purpose) -> ConfigError:
    """Return the error for a token that lacks a permission."""
    return ConfigError(
        f"the token in GITHUB_TOKEN may not {purpose.action}: {response.message()}",
        hint=f"add `{purpose.needs}` to the permissions of the job, or of the token",
    )


def fault(response: Response, purpose: Purpose) -> MlshipError:
    """Return the error for a response that is not a success."""
    message = response.message()
    match response.status:
        case 401:
            return ConfigError(
                f"GitHub does not accept the token in GITHUB_TOKEN: {message}",
                hint="use the job's token: `GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}` under env",
            )
        case 403:
            return forbidden(response, purpose)
        case 404 | 410:
            return NotFoundError(
                f"GitHub cannot {purpose.action}: {message}",
                hint="check the number and the repository, and that the token has "
                f"`{purpose.needs}`",
            )
        case status if status >= 500:
            return UnavailableError(
                f"GitHub could not {purpose.action}: status {status}", hint="run the command again"
            )
        case status if status < 400:
            return ConfigError(
                f"GitHub cannot {purpose.action}: the repository has moved",
                hint="set GITHUB_REPOSITORY to its new name",
            )
        case _:
            return RefusedError(
                f"GitHub refused to {purpose.action}: {message}",
                hint="fix the problem, then run the command again",
            )
