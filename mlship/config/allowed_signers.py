"""The file of `trust.allowed_signers`: people and their SSH keys, as git and ssh-keygen read it.

A line has one or more principals, options and a public key, see ALLOWED SIGNERS in ssh-keygen(1):

    ada@example.org,ada@home.example valid-before="20270131Z" ssh-ed25519 AAAA... a comment

A file that git reads, too, has lines that mean nothing here, or that cannot be honoured exactly as
they are written. These people approve of nothing, and `mlship doctor` says why.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from mlship import files
from mlship.config.trust import EMAIL
from mlship.domain import emails, ssh_keys
from mlship.domain.trust import Signer
from mlship.errors import ConfigError

NAMESPACE: Final = "mlship"
"""What an option `namespaces` must list."""

_FORMATS: Final = {9: "%Y%m%dZ", 13: "%Y%m%d%H%MZ", 15: "%Y%m%d%H%M%SZ"}
"""The forms of a time by their length. A time without Z is another one on each machine."""

_OPTION: Final = re.compile(r'([A-Za-z-]+)(?:="([^"]*)")?(,|[ \t]+)')
_KINDS: Final = re.compile(r"(sk-)?(ssh|ecdsa)-[A-Za-z0-9@.-]+(?![^ \t])")
_MOST: Final = 200_000
"""Bytes of a file: some 1,500 people. It is read by each command."""
_FORM: Final = "a line is: ada@example.org ssh-ed25519 AAAA..."


class AllowedSigners(NamedTuple):
    """The people of a file.

    Attributes:
        signers: may approve only.
        left_out: a line for each that is not used, with the reason.
    """

    signers: tuple[Signer, ...]
    left_out: tuple[str, ...]


NOBODY: Final = AllowedSigners((), ())


class _Line(NamedTuple):
    """A line of the file, in its parts."""

    principals: str
    options: dict[str, str]
    kind: str
    key: str


class _LeftOutError(Exception):
    """A line that cannot be honoured, with the reason."""


def load(path: str, root: Path, repository: Path | None) -> AllowedSigners:
    """Return the people of a file in the repository.

    Args:
        path: of the file, from the project's folder.
        root: the project's folder.
        repository: the folder of its repository, if it is in one.

    Raises:
        ConfigError: it cannot be read, is outside of the repository, or is not such a file.
    """
    place = (root / path).resolve()
    setting = f"trust.allowed_signers: {path}"
    if not place.is_relative_to((repository or root).resolve()):
        message = f"{setting} is outside of the repository, where nobody reviews it"
        raise ConfigError(message, hint="name a file of the repository")
    try:
        data = files.read_regular(place, _MOST + 1)
        if len(data) > _MOST:
            message = f"{setting} has more than {_MOST} bytes"
            raise ConfigError(message, hint="keep the people in it who approve")
        # Editors of Windows write a byte order mark at the beginning.
        return read(data.decode("utf-8-sig"), path)
    except OSError as error:
        message = f"cannot read {setting}: {error.strerror}"
        raise ConfigError(message, hint="name a file of the repository") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{setting} is not UTF-8 text", hint="save it as UTF-8 text") from error


def read(text: str, name: str) -> AllowedSigners:
    """Return the people of a file.

    Args:
        text: of the file.
        name: of the file, for errors.

    Raises:
        ConfigError: a line is not one of such a file.
    """
    signers: dict[str, Signer] = {}
    left_out: list[str] = []
    for number, line in _lines(text):
        place = f"{name}:{number}"
        try:
            signer = _signer(_split(line))
        except _LeftOutError as error:
            left_out.append(f"{place} is not used: {error}")
            continue
        except ConfigError as error:
            message, character = error.message, emails.invisible(line.replace("\t", " "))
            if character and character not in message:
                message += f"; the line has {character}"
            raise ConfigError(f"{place}: {message}", hint=error.hint) from error
        first = signers.setdefault(signer.key, signer)
        if first is not signer:
            left_out.append(f"{place} is not used: its key is that of {first.name}")
    return AllowedSigners(tuple(signers.values()), tuple(left_out))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not str.splitlines, which also breaks at form feeds and other separators inside a comment.
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(" \t\r")
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _split(line: str) -> _Line:
    """Return the parts of a line.

    Raises:
        ConfigError: it has not these parts.
    """
    quoted = re.match(r'"([^"]*)"[ \t]+|([^ \t"]+)[ \t]+', line)
    if quoted is None:
        raise ConfigError("no principal and key", hint=_FORM)
    rest = line[quoted.end() :]
    options: dict[str, str] = {}
    while not _KINDS.match(rest):
        option = _OPTION.match(rest)
        if option is None or option[1].lower() in options:
            raise ConfigError(f"no options and key at {rest[:40]!r}", hint=_FORM)
        options[option[1].lower()] = option[2] or ""
        rest = rest[option.end() :]
    kind, *key = re.split(r"[ \t]+", rest, maxsplit=2)
    if not key:
        raise ConfigError(f"no key after {kind[:40]!r}", hint=_FORM)
    return _Line(quoted[1] or quoted[2] or "", options, kind, key[0])


def _signer(line: _Line) -> Signer:
    """Return the person of a line.

    Raises:
        ConfigError: an option or the key is none, or an address has what nobody sees.
        _LeftOutError: the line cannot be honoured.
    """
    options = dict(line.options)
    if "cert-authority" in options:
        raise _LeftOutError("the keys that a certificate authority certifies are not known here")
    if line.kind != ssh_keys.KIND:
        raise _LeftOutError(f"{line.kind} keys do not sign approvals, {ssh_keys.KIND} keys do")
    _check_namespaces(options.pop("namespaces", NAMESPACE).split(","))
    principals = tuple(line.principals.split(","))
    for email in principals:
        if fault := emails.fault(email):
            message = f"principal {email[:80]!a} {fault}"
            raise ConfigError(message, hint="write the address without it")
        if not re.fullmatch(EMAIL, email):
            raise _LeftOutError(f"principal {email[:80]!r} is no email address")
    since, until = (_time(options.pop(each, None)) for each in ("valid-after", "valid-before"))
    if options:
        raise ConfigError(f"unknown option {min(options)[:40]!r}", hint=_FORM)
    return Signer(
        name=principals[0],
        key=ssh_keys.parse(f"{line.kind} {line.key}"),
        may=frozenset(("approve",)),
        since=since,
        until=until,
        emails=principals,
    )


def _check_namespaces(names: list[str]) -> None:
    """Check that signatures of approvals are among those that a line is for.

    A pattern admits nothing here. A negated one that matches excludes, whatever else is listed, as
    in OpenSSH.

    Raises:
        _LeftOutError: they are not.
    """
    if NAMESPACE not in names:
        raise _LeftOutError(f"its namespaces do not list {NAMESPACE}")
    for name in names:
        pattern = re.escape(name.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if name.startswith("!") and re.fullmatch(pattern, NAMESPACE):
            raise _LeftOutError(f"its namespaces exclude {NAMESPACE} by {name[:40]!r}")


def _time(text: str | None) -> datetime | None:
    """Return the time of an option.

    Raises:
        _LeftOutError: it is none, or one of this machine's time zone.
    """
    if text is None:
        return None
    try:
        return datetime.strptime(text, _FORMATS[len(text)]).replace(tzinfo=UTC)
    except (KeyError, ValueError) as error:
        reason = f"its time {text[:40]!r} is not in UTC, such as 20270131Z"
        raise _LeftOutError(reason) from error
