"""Options of the server that the environment may give, as in a pod."""

import pytest

from mlship.runtime.__main__ import _parser

SERVE = ("serve", "--bundle", "b", "--release", "r", "--slot", "s", "--log", "l", "--port", "1")
SET = {"MLSHIP_WORKERS": "4", "MLSHIP_TIMEOUT": "2.5", "MLSHIP_CACHE_ROWS": "9"}


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({}, (), (1, 30.0, 0)),
        (SET, (), (4, 2.5, 9)),
        (SET, ("--workers", "2", "--timeout", "7", "--cache-rows", "0"), (2, 7.0, 0)),
    ],
)
def test_settings_of_a_target_are_options_or_variables(
    environment: dict[str, str], arguments: tuple[str, ...], expected: tuple[int, float, int]
) -> None:
    options = _parser(environment).parse_args([*SERVE, *arguments])
    assert (options.workers, options.timeout, options.cache_rows) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"MLSHIP_WORKERS": "0"},
        {"MLSHIP_TIMEOUT": "soon"},
        {"MLSHIP_TIMEOUT": "nan"},
        {"MLSHIP_CACHE_ROWS": "-1"},
        {"MLSHIP_CACHE_ROWS": "1000001"},
    ],
)
def test_a_variable_that_is_none_of_them_is_refused(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser(environment).parse_args(SERVE)
    assert "is not a number" in capsys.readouterr().err
