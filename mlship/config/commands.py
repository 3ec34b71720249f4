"""Commands of mlship.yaml: a program and its arguments, which no shell reads."""

import re
import shlex
from collections.abc import Iterator
from typing import Final

from mlship.errors import ConfigError

_SIGNS: Final = re.compile(r"&&|\|\||>>|<<|&|\||>|<|;|\(|\)|\$|`|\*|\?|\[|\n")
_QUOTED_SIGNS: Final = re.compile(r"\$|`")
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*=")


def words(command: str) -> list[str]:
    """Return the program and its arguments; nothing if the quotation marks do not match."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def shell_syntax(command: str) -> str:
    """Return the first part of a command that only a shell understands; else an empty text.

    In single quotes and after a backslash everything is plain text. In double quotes a shell
    replaces `$` and backquotes.
    """
    command = command.strip()
    if match := _VARIABLE.match(command):
        return match[0]
    for place, is_first, is_quoted in _plain(command):
        match = (_QUOTED_SIGNS if is_quoted else _SIGNS).match(command, place)
        if match:
            return "a line end" if match[0] == "\n" else match[0]
        if is_first and not is_quoted and command[place] in "~#":
            return command[place]
    return ""


def check(command: str, key: str) -> None:
    """Refuse a command that is none, or that means something else in a shell.

    Raises:
        ConfigError: it is empty, its quotation marks do not match, or it has shell syntax.
    """
    if not words(command):
        message = f"mlship.yaml: {key} is not a command: check its quotation marks"
        raise ConfigError(message, hint="write it as in a shell: `command: python train.py`")
    if sign := shell_syntax(command):
        message = f"mlship.yaml: {key}: {sign} is shell syntax, and no shell reads the command"
        hint = (
            "put it into a script, such as train.sh, and run `sh train.sh`; an argument that "
            "contains such characters is written in single quotes"
        )
        raise ConfigError(message, hint=hint)


def _plain(command: str) -> Iterator[tuple[int, bool, bool]]:
    """Yield the places of the characters that a shell may interpret.

    Beside each: whether the character begins a word, and whether it is in double quotes.
    """
    quote, is_first, place = "", True, 0
    while place < len(command):
        char = command[place]
        if char == "\\" and quote != "'":
            # A shell joins two lines here, and shlex does not.
            if command[place + 1 : place + 2] == "\n":
                yield place + 1, False, False
            place, is_first = place + 2, False
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote, is_first = char, False
        elif quote != "'":
            yield place, is_first, bool(quote)
            is_first = char.isspace() and not quote
        place += 1
