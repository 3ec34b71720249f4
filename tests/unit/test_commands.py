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
