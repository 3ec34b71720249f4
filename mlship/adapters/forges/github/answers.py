"""Answers of GitHub's API: what they were asked for, their JSON, and failures as errors."""

from typing import NamedTuple, TypeVar

import msgspec

from mlship.errors import ConfigError, MlshipError, NotFoundError, RefusedError, UnavailableError

Shape = TypeVar("Shape")


class Purpose(NamedTuple):
    """What a request is for, and the permission that it needs."""

    what: str
    needs: str


class Answer(NamedTuple):
    """A status and the JSON that came with it, not read yet."""

    status: int
    content: bytes

    def read(self, shape: type[Shape]) -> Shape:
        """Return the JSON in its shape.

        Raises:
            UnavailableError: it has another one: this is no GitHub, or not one that we know.
        """
        try:
            return msgspec.json.decode(self.content, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"GitHub's response cannot be read: {error}",
                hint="check that GITHUB_API_URL is the address of a GitHub API",
            ) from error

    def said(self) -> str:
        """Return the message of an error and those of its details, on one line."""
        try:
            found = msgspec.json.decode(self.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"status {self.status}"
        if not isinstance(found, dict):
            return f"status {self.status}"
        details = [
            str(one.get("message") or f"{one.get('field')} {one.get('code')}")
            for one in found.get("errors") or ()
            if isinstance(one, dict)
        ]
        text = ": ".join([str(found.get("message", "")), *details])
        return " ".join(text.split())[:300]


def forbidden(answer: Answer, purpose: Purpose) -> ConfigError:
    """Return the error of a token that lacks a permission."""
    return ConfigError(
        f"the token in GITHUB_TOKEN may not {purpose.what}: {answer.said()}",
        hint=f"add `{purpose.needs}` to the permissions of the job, or of the token",
    )


def fault(answer: Answer, purpose: Purpose) -> MlshipError:
    """Return the error for a response that is not a success."""
    said = answer.said()
    match answer.status:
        case 401:
            return ConfigError(
                f"GitHub does not accept the token in GITHUB_TOKEN: {said}",
                hint="use the job's own: `GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}` under env",
            )
        case 403:
            return forbidden(answer, purpose)
        case 404 | 410:
            return NotFoundError(
                f"GitHub cannot {purpose.what}: {said}",
                hint=f"check number and repository; a token without `{purpose.needs}` sees nothing",
            )
        case status if status >= 500:
            return UnavailableError(
                f"GitHub could not {purpose.what}: status {status}", hint="run the command again"
            )
        case status if status < 400:
            return ConfigError(
                f"GitHub cannot {purpose.what}: the repository has moved",
                hint="set GITHUB_REPOSITORY to its new name",
            )
        case _:
            return RefusedError(
                f"GitHub refused to {purpose.what}: {said}", hint="correct that, then run it again"
            )
