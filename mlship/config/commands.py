"""Commands of mlship.yaml: a program and its arguments, which no shell reads.

The options of Python: https://docs.python.org/3/using/cmdline.html
"""

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from mlship.errors import ConfigError

TRAINING_ROWS: Final = "MLSHIP_TRAIN_DATA"
"""Names the file of the training rows to a command."""

_SIGNS: Final = re.compile(r"&&|\|\||>>|<<|&|\||>|<|;|\(|\)|\$|`|\*|\?|\[|\n")
_QUOTED_SIGNS: Final = re.compile(r"\$|`")
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*=")
_INTERPRETER: Final = re.compile(r"(?:.*/)?python(?:3(?:\.\d+)?)?")
_WITHOUT_SCRIPT: Final = "chiV?"
_WITH_VALUE: Final = "mWX"
_LONG_WITH_VALUE: Final = "--check-hash-based-pycs"


class PythonCall(msgspec.Struct, frozen=True, kw_only=True):
    """A command that runs Python.

    Attributes:
        program: Python, such as `python3.11` or `.venv/bin/python`.
        options: before the script, each an option with its value: `-u`, `-Wignore`.
        script: the path of the script; empty for a module.
        module: the name of the module; empty for a script.
        arguments: of the script or module.
        refused: the option with which it runs no file; `python` if it has neither a script nor such
            an option; else empty.
    """

    program: str
    options: tuple[str, ...] = ()
    script: str = ""
    module: str = ""
    arguments: tuple[str, ...] = ()
    refused: str = ""

    def source(self) -> str:
        """Return the path of the script, or the one that the module has: pkg/train.py."""
        return self.script or f"{self.module.replace('.', '/')}.py"


def python_call(argv: Sequence[str]) -> PythonCall | None:
    """Return what a command runs by Python; `None` for another program."""
    if not argv or not _INTERPRETER.fullmatch(argv[0]):
        return None
    options: list[str] = []
    waiting = list(argv[1:])
    while waiting and waiting[0].startswith("-") and waiting[0] not in ("-", "--"):
        word = waiting.pop(0)
        if word == _LONG_WITH_VALUE and waiting:
            word = f"{word}={waiting.pop(0)}"
        for option in _separated(word, waiting):
            if option[:2] == "-m":
                return _call(argv[0], options, "", option[2:], waiting)
            if option[1] in _WITHOUT_SCRIPT:
                return PythonCall(program=argv[0], refused=option)
            options.append(option)
    if waiting[:1] == ["--"]:
        waiting.pop(0)
    return _call(argv[0], options, "".join(waiting[:1]), "", waiting[1:])


def _separated(word: str, waiting: list[str]) -> Iterator[str]:
    """Yield the options that a word has: `-uW` and the word that waits after it have two."""
    if word.startswith("--"):
        yield word
        return
    for place, letter in enumerate(word[1:], start=2):
        if letter in _WITH_VALUE:
            yield f"-{letter}{word[place:] or (waiting.pop(0) if waiting else '')}"
            return
        yield f"-{letter}"


def _call(
    program: str, options: Sequence[str], script: str, module: str, arguments: Sequence[str]
) -> PythonCall:
    is_named = script not in ("", "-") or module != ""
    return PythonCall(
        program=program,
        options=tuple(options),
        script=script,
        module=module,
        arguments=tuple(arguments),
        refused="" if is_named else (script or "python"),
    )


def sources_of(command: str) -> list[str]:
    """Return the paths of the Python files that a command names, the first one first."""
    argv = words(command)
    call = python_call(argv)
    named = [call.source()] if call is not None and not call.refused else []
    rest = call.arguments if call is not None else argv
    named += [word for word in rest if word.endswith(".py")]
    return [posixpath.normpath(path) for path in named]


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
        ConfigError: it is empty, its quotation marks do not match, it has shell syntax, or it
            starts Python without a script.
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
    call = python_call(words(command))
    if call is not None and call.refused:
        what = "" if call.refused == "python" else f" {call.refused}"
        message = f"mlship.yaml: {key}: {call.program}{what} runs no file of the project"
        hint = "put the code into a script, such as train.py, and run `python train.py`"
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
