"""Options of the server that the environment may give, as in a pod."""

import pytest

from mlship.runtime.__main__ import _parser

SERVE = ("serve", "--bundle", "b", "--release", "r", "--slot", "s", "--log", "l", "--port", "1")


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({}, (), (1, 30.0)),
        ({"MLSHIP_WORKERS": "4", "MLSHIP_TIMEOUT": "2.5"}, (), (4, 2.5)),
        (
            {"MLSHIP_WORKERS": "4", "MLSHIP_TIMEOUT": "2.5"},
            ("--workers", "2", "--timeout", "7"),
            (2, 7.0),
        ),
    ],
)
def test_workers_and_the_timeout_are_options_or_variables(
    environment: dict[str, str], arguments: tuple[str, ...], expected: tuple[int, float]
) -> None:
    options = _parser(environment).parse_args([*SERVE, *arguments])
    assert (options.workers, options.timeout) == expected


@pytest.mark.parametrize(
    "environment", [{"MLSHIP_WORKERS": "0"}, {"MLSHIP_TIMEOUT": "soon"}, {"MLSHIP_TIMEOUT": "nan"}]
)
def test_a_variable_that_is_none_of_them_is_refused(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser(environment).parse_args(SERVE)
    assert "is not a number" in capsys.readouterr().err
