"""The command of mlship.yaml, which no shell reads."""

import shlex

import pytest

from mlship.config import commands
from mlship.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "sign"),
    [
        ("rm -rf models && python train.py", "&&"),
        ("python train.py || true", "||"),
        ("python train.py | tee log", "|"),
        ("python train.py > log", ">"),
        ("python train.py >> log", ">>"),
        ("python train.py < data.csv", "<"),
        ("python a.py; python train.py", ";"),
        ("python train.py;", ";"),
        ("python train.py &", "&"),
        ("(python train.py)", "("),
        ("python train.py $OUT", "$"),
        ("python train.py ${train.c}", "$"),
        ('python train.py "$OUT"', "$"),
        ("python train.py `date`", "`"),
        ("python train.py data/*.csv", "*"),
        ("python train.py data/?.csv", "?"),
        ("python train.py data/[ab].csv", "["),
        ("python train.py ~/data", "~"),
        ("python train.py # fast", "#"),
        ("OUT=models python train.py", "OUT="),
        ("python prepare.py\npython train.py", "a line end"),
        ("python train.py \\\n --fast", "a line end"),
        ("python train.py 'a' && x", "&&"),
        ("python train.py 'a\\' && x", "&&"),
    ],
)
def test_shell_syntax_is_refused_with_what_to_do(command: str, sign: str) -> None:
    with pytest.raises(ConfigError) as caught:
        commands.check(command, "model.command")
    assert f"model.command: {sign} is shell syntax" in caught.value.message
    assert "run `sh train.sh`" in str(caught.value.hint)


@pytest.mark.parametrize(
    "command",
    [
        "python train.py",
        "python train.py\n",
        "python -m src.train --depth=3 --name 'a && b' model.c=0.5",
        'python train.py "a | b" "it\'s; (here)"',
        "python train.py a\\&b \\$x 'c\\d' \"\\$y\"",
        "sh -c 'rm -rf models && python train.py > $LOG'",
        "python train.py issue#3 data~",
        "./train.sh",
    ],
)
def test_quoted_arguments_are_plain_text(command: str) -> None:
    commands.check(command, "model.command")
    assert commands.words(command) == shlex.split(command)


@pytest.mark.parametrize("command", ["", " ", "python 'train.py"])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(ConfigError, match="check its quotation marks"):
        commands.check(command, "model.command")


@pytest.mark.parametrize(
    ("command", "options", "source", "arguments"),
    [
        ("python train.py --depth 3", (), "train.py", ("--depth", "3")),
        ("python -u src/train.py -u", ("-u",), "src/train.py", ("-u",)),
        ("python -uB -W ignore train.py", ("-u", "-B", "-Wignore"), "train.py", ()),
        (
            "python -Wignore -W error::UserWarning a.py",
            ("-Wignore", "-Werror::UserWarning"),
            "a.py",
            (),
        ),
        ("python3 -OO -X dev train.py", ("-O", "-O", "-Xdev"), "train.py", ()),
        ("python3.11 -m pkg.train -m 2", (), "pkg/train.py", ("-m", "2")),
        ("python -uW ignore -m pkg.train", ("-u", "-Wignore"), "pkg/train.py", ()),
        ("python -um pkg.train", ("-u",), "pkg/train.py", ()),
        ("python -mpkg.train x", (), "pkg/train.py", ("x",)),
        (".venv/bin/python -W ignore -m pkg.train", ("-Wignore",), "pkg/train.py", ()),
        ("python -- train.py", (), "train.py", ()),
        (
            "python --check-hash-based-pycs always train.py",
            ("--check-hash-based-pycs=always",),
            "train.py",
            (),
        ),
    ],
)
def test_the_options_of_python_are_not_its_script(
    command: str, options: tuple[str, ...], source: str, arguments: tuple[str, ...]
) -> None:
    call = commands.python_call(shlex.split(command))
    assert call is not None
    assert (call.options, call.source(), call.arguments) == (options, source, arguments)
    assert commands.sources_of(command) == [source]
    commands.check(command, "model.command")


@pytest.mark.parametrize(
    "command", ["Rscript train.R", "uv run train.py", "pythonic x.py", "sh python"]
)
def test_other_programs_are_not_python(command: str) -> None:
    assert commands.python_call(shlex.split(command)) is None
    commands.check(command, "model.command")


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("python", "python runs no file"),
        ("python -u", "python runs no file"),
        ("python -m", "python runs no file"),
        ("python -", "python - runs no file"),
        ("python3 -c 'import train'", "python3 -c runs no file"),
        ("python -ic x", "python -i runs no file"),
        ("python -V", "python -V runs no file"),
    ],
)
def test_python_without_a_script_is_refused(command: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        commands.check(command, "model.command")
    assert f"model.command: {what} of the project" in caught.value.message
    assert "run `python train.py`" in str(caught.value.hint)
    assert commands.sources_of(command) == []
