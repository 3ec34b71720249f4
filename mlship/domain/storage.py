"""The storage of DVC that a job fetches data from: its kind, its options and its secrets.

A job with credentials takes all of this from its workflow and nothing from `.dvc/config`, which a
branch can change.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from mlship.errors import ConfigError, shown

StorageKind = Literal["azure", "gs", "http", "local", "s3", "ssh"]

DVC: Final = "3.67.1"
"""The version of DVC that jobs install."""

GOOGLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
"""The variable with the file of Google's credentials, which its action for GitHub sets."""

_KINDS: Final[Mapping[str, StorageKind]] = {
    "": "local",
    "azure": "azure",
    "gs": "gs",
    "http": "http",
    "https": "http",
    "s3": "s3",
    "ssh": "ssh",
}
_OPTIONS: Final[Mapping[StorageKind, frozenset[str]]] = {
    "azure": frozenset({"account_name", "allow_anonymous_login"}),
    "gs": frozenset({"allow_anonymous_login", "endpointurl", "projectname"}),
    "http": frozenset({"auth", "custom_auth_header", "method", "user"}),
    "local": frozenset(),
    "s3": frozenset({"allow_anonymous_login", "endpointurl", "region", "use_ssl"}),
    "ssh": frozenset({"port", "user"}),
}
"""The options that are written into a workflow: none of them is a secret or names a file."""

_SECRETS: Final[Mapping[StorageKind, tuple[str, ...]]] = {
    "azure": ("DVC_AZURE_CONNECTION_STRING",),
    "gs": ("DVC_GOOGLE_CREDENTIALS",),
    "http": ("DVC_PASSWORD",),
    "local": (),
    "s3": ("DVC_ACCESS_KEY_ID", "DVC_SECRET_ACCESS_KEY"),
    "ssh": ("DVC_SSH_KEY",),
}
_OTHER_LAYOUTS: Final = ("version_aware", "worktree")
_TRUE: Final = ("1", "on", "true", "yes")
_PLAIN: Final = re.compile(r"[^\s\x00-\x1f\x7f\"'`\\${}]+")


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """A storage of DVC.

    Attributes:
        url: such as `s3://bucket/folder`, or an absolute path.
        options: those of DVC's for it that may be shown, by name.
    """

    url: str
    options: dict[str, str] = {}

    @property
    def kind(self) -> StorageKind:
        """The kind of storage."""
        return _KINDS[_scheme(self.url)]

    @property
    def extra(self) -> str:
        """The extra of the distribution `dvc` that it needs; may be empty."""
        return "" if self.kind in ("http", "local") else self.kind

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the secrets that it needs; none if everybody may read it."""
        if self.options.get("allow_anonymous_login", "").lower() in _TRUE:
            return ()
        if self.kind == "http" and "auth" not in self.options:
            return ()
        return _SECRETS[self.kind]

    def arguments(self) -> tuple[str, ...]:
        """Return the options of `mlship fetch-data` for it."""
        options = (f"--option={name}={value}" for name, value in sorted(self.options.items()))
        return (f"--remote={self.url}", *options)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a project that DVC keeps.

    Attributes:
        files: paths that mlship.yaml names and DVC keeps, from the project's folder.
        pointers: the files of DVC that stand for them.
        storage: where they are; `None` if jobs cannot fetch from it.
        reason: why they cannot.
    """

    files: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()
    storage: Storage | None = None
    reason: str = ""


NOTHING: Final = Kept(reason="nothing that mlship.yaml names is kept by DVC")


def storage(url: str, options: Mapping[str, str]) -> Storage:
    """Return a storage from its URL and DVC's options for it; others than known ones are left out.

    Raises:
        ConfigError: jobs cannot fetch from it, or it would show a secret in a workflow.
    """
    scheme = _scheme(url)
    kind = _KINDS.get(scheme)
    hint = f"use a remote of DVC by {', '.join(sorted(filter(None, _KINDS)))}, or a mounted folder"
    if kind is None:
        raise ConfigError(f"jobs cannot fetch from a remote of DVC by {scheme}://", hint=hint)
    if kind == "local" and not url.startswith("/"):
        message = f"the remote of DVC is the folder {url} of this machine, which jobs do not reach"
        raise ConfigError(message, hint=hint)
    for address in (url, options.get("endpointurl", "")):
        _check_secrets(address, kind)
    for name in _OTHER_LAYOUTS:
        if options.get(name, "").lower() in _TRUE:
            message = f"DVC's remote {url} is {name}, and jobs fetch by MD5"
            raise ConfigError(message, hint=f"`dvc remote modify NAME {name} false`")
    known = {name: value for name, value in options.items() if name in _OPTIONS[kind]}
    for text in (url, *known.values()):
        if not _PLAIN.fullmatch(text):
            message = f"DVC's remote has a character that a workflow cannot hold: {text[:80]!r}"
            raise ConfigError(message, hint="leave out spaces, quotes, $, braces and backslashes")
    return Storage(url=url, options=known)


def _check_secrets(url: str, kind: StorageKind) -> None:
    """Refuse a URL with a password, or with a query or a fragment, which may be a token.

    Raises:
        ConfigError: it has one.
    """
    rest = url.partition("://")[2]
    address, *others = re.split(r"[?#]", rest, maxsplit=1)
    user, is_user, _ = address.partition("/")[0].rpartition("@")
    if others:
        message = f"the URL of DVC's remote {shown(url.removesuffix(others[0]))[:-1]} has a query "
        message += "or a fragment, which a workflow would show with any token in it"
    elif is_user and (kind != "ssh" or ":" in user):
        message = f"the URL of DVC's remote {shown(url)} has credentials, which a workflow would "
        message += "show"
    else:
        return
    raise ConfigError(message, hint="set credentials with `dvc remote modify --local`")


def _scheme(url: str) -> str:
    scheme, is_address, _ = url.partition("://")
    return scheme.lower() if is_address else ""
