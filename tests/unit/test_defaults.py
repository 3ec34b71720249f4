"""`doctor` lists the settings that differ from their defaults, as mlship.yaml writes them."""

import pytest

from mlship.config.defaults import differing
from mlship.config.layers import from_environment, from_flags, from_yaml, resolve
from mlship.domain.notation import bare, literal
from mlship.templates import shipped

NEEDED = "name: a\ndata: {train: a.csv, test: b.csv, target: y}\nmodel: {train: 'p:train'}\n"


def told(text: str, environment: dict[str, str] | None = None, *flags: str) -> dict[str, str]:
    """Return the values of what differs, by key, without those of `NEEDED`."""
    layers = [
        from_yaml(NEEDED + text, "mlship.yaml"),
        from_environment(environment or {}),
        from_flags(flags),
    ]
    found = {setting.key: bare(setting.value) for setting in differing(resolve(layers))}
    needed = ("name", "data.train", "data.test", "data.target", "model.train")
    assert [found.pop(key) for key in needed] == ["a", "a.csv", "b.csv", "y", "p:train"]
    return found


@pytest.mark.parametrize(
    "text",
    [
        "targets: {staging: {kind: local}, production: {replicas: 2, challenger_weight: 10}}",
        "gates: {test: {}, staging: {errors: {max: 0}}, promote: {metric: accuracy}}",
        "report: {include: []}",
    ],
)
def test_a_default_that_is_written_down_is_not_listed(text: str) -> None:
    assert told(text) == {}


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("report: {include: [metrics.csv, b.md]}", {"report.include": '["metrics.csv", "b.md"]'}),
        ("gates: {baseline: false}", {"gates.baseline": "false"}),
        ("gates: {staging: {errors: {max: 1}}}", {"gates.staging.errors.max": "1.0"}),
        ("targets: {production: {replicas: 1}}", {"targets.production.replicas": "1"}),
        ("targets: {edge: {kind: local, port: 9000}}", {"targets.edge.port": "9000"}),
    ],
)
def test_what_differs_is_listed_as_in_the_file(text: str, listed: dict[str, str]) -> None:
    assert told(text) == listed


def test_params_have_no_defaults_and_any_names() -> None:
    text = NEEDED.replace("'p:train'", "'p:train', params: {a.b: null, c: {1: yes}}")
    layer = from_yaml(text, "mlship.yaml")
    found = {each.key: bare(each.value) for each in differing(resolve([layer]))}
    assert (found["model.params.a.b"], found["model.params.c.1"]) == ("null", "true")


def test_what_a_stronger_layer_replaced_is_not_listed() -> None:
    assert told("store: {kind: directory}", {"MLSHIP_STORE__KIND": "mlflow"}) == {}
    assert told("gates: {test: {f1_macro: {min: 0.5}}}", {}, "gates.test={}") == {
        "gates.test.f1_macro.min": "0.5"
    }
    assert told("", {"MLSHIP_DATA__SPLIT__SEED": "7"}, "data.split=null") == {}


def test_little_of_a_new_project_differs() -> None:
    text = shipped.files("templates/project")["mlship.yaml"].decode()
    layers = [from_yaml(text, "mlship.yaml")]
    keys = [setting.key for setting in differing(resolve(layers))]
    assert keys == ["data.split.seed", "data.target", "data.train", "model.train", "name"]


def test_values_are_written_as_json_and_cannot_move_the_cursor() -> None:
    assert [literal(value) for value in (None, True, "a", ("x",), {"n": None})] == [
        "null",
        "true",
        '"a"',
        '["x"]',
        '{"n": null}',
    ]
    assert literal("a\x1b[2J\x9b\u202e") == '"a\\u001b[2J\\u009b\\u202e"'
    assert (bare("a"), bare(float("inf"))) == ("a", "inf")
