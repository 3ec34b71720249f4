"""What comes from elsewhere is only read by a terminal, never obeyed."""

import pytest

from mlship.cli import output
from mlship.cli.production import _shares
from mlship.config import layers
from mlship.domain.notation import visible
from mlship.errors import ConfigError, NotFoundError


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "\x9b31m", "\r", "\x7f", "\u202eabc\u2066"])
def test_control_characters_are_escaped(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.line(f"a {text}")
    output.warning(text)
    output.error(NotFoundError(text, hint=text), json=False, annotate=False)
    streams = capsys.readouterr()
    assert not set(text) & set(streams.out + streams.err) - set("]0;owned31mabc")
    assert "\\" in streams.out


def test_other_text_stays_as_it_is() -> None:
    text = "Größe 4\u00a0m\n\tµ → 日本 \U0001f680"
    assert visible(text) == text


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["challenger=50", "challenger=20"], "challenger has two shares"),
        (["challenger=\u0663"], "invalid share"),
        (["challenger=+3"], "invalid share"),
    ],
)
def test_shares_are_named_once_in_plain_digits(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _shares(texts)


@pytest.mark.parametrize(
    "name", ["bad header", "x\ninjected: y", ":authority", "Host", "mlship-route", "", "x-user\n"]
)
def test_a_sticky_header_is_one_that_users_send(name: str) -> None:
    values = {
        "name": "iris",
        "data": {"train": "train.csv", "target": "y", "split": {"fraction": 0.5}},
        "model": {"train": "pipeline:train"},
        "targets": {"production": {"sticky_header": name}},
    }
    with pytest.raises(ConfigError, match="sticky_header"):
        layers.resolve([layers.Layer(name="mlship.yaml", values=values)])
