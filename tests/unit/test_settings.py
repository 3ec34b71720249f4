import re
from pathlib import Path

import jsonschema
import pytest
import yaml

import mlship
from mlship.config.bounds import check_metrics
from mlship.config.explain import hint_of_reading
from mlship.config.layers import from_environment, from_flags, from_yaml, resolve
from mlship.config.project import Config, json_schema
from mlship.errors import ConfigError

LEAST = """
name: iris
data: {train: data/train.csv, test: data/test.csv, target: species}
model: {train: "pipeline:train"}
"""


def read(text: str, environment: dict[str, str] | None = None, *flags: str) -> Config:
    layers = [
        from_yaml(text, "mlship.yaml"),
        from_environment(environment or {}),
        from_flags(flags),
    ]
    return resolve(layers).config


def complaint(text: str, environment: dict[str, str] | None = None, *flags: str) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(text, environment, *flags)
    return caught.value.message, caught.value.hint


def test_three_keys_are_enough() -> None:
    config = read(LEAST)
    assert config.targets["production"].replicas == 2
    assert config.store.kind == "mlflow"
    assert config.gates.promote.min_labels == 200


def test_flags_beat_the_environment_which_beats_the_file() -> None:
    text = LEAST + "targets: {staging: {port: 1000}}"
    environment = {"MLSHIP_TARGETS__STAGING__PORT": "2000"}
    assert read(text).targets["staging"].port == 1000
    assert read(text, environment).targets["staging"].port == 2000
    assert read(text, environment, "targets.staging.port=3000").targets["staging"].port == 3000


def test_each_value_remembers_where_it_came_from() -> None:
    layers = [
        from_yaml(LEAST, "mlship.yaml"),
        from_environment({"MLSHIP_STORE__KIND": "directory"}),
        from_flags(["targets.staging.port=3000"]),
    ]
    origins = resolve(layers).origins
    assert origins["name"] == "mlship.yaml"
    assert origins["store.kind"] == "environment"
    assert origins["targets.staging.port"] == "flags"
    assert "gates.promote.metric" not in origins


def test_mlflows_own_variable_names_the_server() -> None:
    environment = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    assert read(LEAST, environment).store.uri == "http://mlflow:5000"
    environment["MLSHIP_STORE__URI"] = "http://other:5000"
    assert read(LEAST, environment).store.uri == "http://other:5000"


@pytest.mark.parametrize(
    ("addition", "named", "nearest"),
    [
        ("gatse: {}", "gatse", "gates"),
        ("targets: {staging: {prot: 1}}", "targets.staging.prot", "targets.staging.port"),
        ("gates: {test: {accuracy: {mn: 1}}}", "gates.test.accuracy.mn", "gates.test.accuracy.min"),
        ("gates: {promote: {aprovals: 1}}", "gates.promote.aprovals", "gates.promote.approvals"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(
    addition: str, named: str, nearest: str
) -> None:
    message, hint = complaint(LEAST + addition)
    assert named in message
    assert nearest in hint


def test_an_unknown_key_is_found_in_the_environment_and_in_flags_too() -> None:
    assert "targets.staging.prot" in complaint(LEAST, {"MLSHIP_TARGETS__STAGING__PROT": "1"})[0]
    assert "--set stroe" in complaint(LEAST, {}, "stroe.kind=mlflow")[0]


@pytest.mark.parametrize(
    ("addition", "named"),
    [
        ("targets: {staging: {port: many}}", "targets"),
        ("targets: {staging: {replicas: 0}}", "replicas"),
        ("targets: {production: {challenger_weight: 101}}", "challenger_weight"),
        ("targets: {Prod!: {}}", "targets"),
        ("targets: {staging: {kind: kubernets}}", "kind"),
        ("gates: {promote: {confidence: 1.5}}", "confidence"),
        ("gates: {promote: {metric: auc}}", "metric"),
        ("gates: {promote: {metric: 'pinball[1.5]'}}", "metric"),
        ("gates: {promote: {metric: 'pinball[0.0]'}}", "metric"),
        ("gates: {promote: {metric: 'a:b', better: up}}", "better"),
        ("gates: {promote: {metric: 'a:b', better: lower, range: [0]}}", "range"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(addition: str, named: str) -> None:
    assert named in complaint(LEAST + addition)[0]


@pytest.mark.parametrize(
    ("addition", "says", "explains"),
    [
        (
            "targets: {staging: {port: 1}, production: {port: many}}",
            "targets.production.port: expected a whole number, got a string: 'many'",
            "of the load balancer",
        ),
        ("store: directory", "store: expected a mapping", "kind, uri"),
        ("store: {kind: mlflw}", "store.kind: unknown value 'mlflw'", "one of mlflow, directory"),
        ("gates: {staging: {p99ms: {max: 1}}}", "gates.staging.p99ms", "did you mean p99_ms?"),
        (
            "gates: {promote: {metric: auc}}",
            "gates.promote.metric",
            "pinball[0.9] or pipeline:cost",
        ),
        ("gates: {promote: {metric: 'a:b'}}", "a:b needs gates.promote.better", "better: lower"),
        ("gates: {promote: {better: lower}}", "gates.promote.better is for a function", "remove"),
        ("gates: {promote: {range: [0, 1]}}", "gates.promote.range is for a function", "remove"),
        (
            "gates: {promote: {metric: 'a:b', better: lower, range: [1, 1]}}",
            "gates.promote.range: [1, 1] is no range",
            "least number first",
        ),
    ],
)
def test_a_wrong_value_is_told_in_words(addition: str, says: str, explains: str) -> None:
    message, hint = complaint(LEAST + addition)
    assert says in message
    assert explains in hint


@pytest.mark.parametrize(
    "promote",
    [
        "{metric: brier}",
        "{metric: log_loss}",
        "{metric: 'pinball[0.05]'}",
        "{metric: 'pinball[.5]'}",
        "{metric: 'costs.of_loans:cost', better: lower}",
        "{metric: 'a:b', better: higher, range: [-1, 2.5]}",
    ],
)
def test_metrics_of_a_promotion(promote: str) -> None:
    assert read(f"{LEAST}gates: {{promote: {promote}}}").gates.promote.metric in promote


def test_the_form_of_a_name_is_explained() -> None:
    message, hint = complaint(LEAST.replace("name: iris", "name: Iris Model"))
    assert "'Iris Model'" in message
    assert "lower-case letters" in hint


def test_the_name_of_a_ledger_in_mlflow_is_no_name_of_a_project() -> None:
    named = LEAST.replace("name: iris", "name: iris-ledger")
    assert read(named).name == "iris-ledger"
    for addition in ("ledger: {kind: mlflow}", "store: {uri: 'http://mlflow:5000'}"):
        message, hint = complaint(f"{named}{addition}")
        assert "iris-ledger is the ledger of project iris in MLflow" in message
        assert "does not end in -ledger" in hint


def test_a_wrong_value_names_the_variable_or_the_option_that_set_it() -> None:
    assert "MLSHIP_STORE__KIND" in complaint(LEAST, {"MLSHIP_STORE__KIND": "none"})[0]
    assert "--set store.kind" in complaint(LEAST, {}, "store.kind=none")[0]


@pytest.mark.parametrize(
    ("addition", "says"),
    [
        ("gates: {test: {accuracy: {min: .nan}}}", "gates.test.accuracy.min is nan"),
        ("gates: {test: {accuracy: {min: -.inf}}}", "gates.test.accuracy.min is -inf"),
        ("gates: {promote: {max_age_hours: .inf}}", "gates.promote.max_age_hours is inf"),
        ("targets: {staging: {ready_seconds: .nan}}", "targets.staging.ready_seconds"),
        ("gates: {test: {recall_macro: {}}}", "gates.test.recall_macro has no bound"),
        ("gates: {staging: {p99_ms: {max: null}}}", "gates.staging.p99_ms has no bound"),
    ],
)
def test_a_number_that_is_none_and_a_gate_without_a_bound_are_refused(
    addition: str, says: str
) -> None:
    assert says in complaint(LEAST + addition)[0]


@pytest.mark.parametrize("text", ["1:30", "0100", "-1_0:20", "1:30.5"])
def test_a_number_that_yaml_reads_as_another_is_refused(text: str) -> None:
    place = LEAST.count("\n") + 1
    message, _ = complaint(f"{LEAST}gates: {{promote: {{min_labels: {text}}}}}")
    assert message.startswith(f"mlship.yaml:{place}:31: {text} is ")
    assert f"{text} is " in complaint(LEAST, {}, f"gates.promote.min_labels={text}")[0]


def test_numbers_of_other_bases_that_say_so_and_texts_are_taken() -> None:
    text = "{a: 0x1F, b: 0b11, c: '0100', d: '1:30', e: 08:30x, f: 0, g: 0.5, h: 1e3, i: -7}"
    params = read(LEAST, {}, f"model.params={text}").model.params
    assert list(params.values()) == [31, 3, "0100", "1:30", "08:30x", 0, 0.5, "1e3", -7]


@pytest.mark.parametrize(
    "name", ["f1_macro", "'mae[width]'", "cost", "'recall[a]'", "slices_worse"]
)
def test_metrics_that_may_exist_can_be_bound(name: str) -> None:
    own = "metrics: {cost: 'pipeline:cost', 'recall[a]': 'recall[a]'}"
    check_metrics(read(f"{LEAST}{own}\ngates: {{test: {{{name}: {{min: 0}}}}}}"))


def test_a_bound_on_a_metric_that_no_task_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gates.test.acuracy: there is no such") as caught:
        check_metrics(read(LEAST + "gates: {test: {acuracy: {min: 0.9}}}"))
    assert caught.value.hint == "did you mean accuracy?"


def test_two_targets_of_this_machine_need_two_ports() -> None:
    targets = "targets: {{staging: {{port: {0}}}, production: {{port: {1}}}}}"
    message, hint = complaint(LEAST + targets.format(9321, 9321))
    assert message.endswith("targets.staging and targets.production have the same port, 9321")
    assert "its own port" in hint
    assert read(LEAST + targets.format(9321, 9322)).targets["production"].port == 9322
    assert read(LEAST + targets.format(0, 0)).targets["production"].port == 0


def test_what_is_missing_is_named() -> None:
    assert "model" in complaint("name: iris\ndata: {train: x, test: y}")[0]
    assert "data" in complaint("name: iris\nmodel: {train: 'a:b'}\ndata: {train: x}")[0]


@pytest.mark.parametrize("text", ["name: [", "- a\n- b", "name: a\nname: b", "\x00"])
def test_what_is_no_mapping_of_keys_is_refused(text: str) -> None:
    assert complaint(text)[0].startswith("mlship.yaml")


def test_a_key_that_stands_twice_is_named_with_its_line() -> None:
    assert "mlship.yaml:6" in complaint(LEAST + "\nname: other")[0]


def test_pickle_needs_its_digest() -> None:
    text = LEAST.replace('"pipeline:train"', '"pipeline:train", allow_pickle: true')
    assert "pickle_sha256" in complaint(text)[0]


_SECTION = re.compile(
    rf"`(?:{'|'.join(set(Config.__struct_fields__) - {'name', 'home', 'workload'})}): ?\{{"
)


def test_no_hint_has_a_section_to_paste_which_would_stand_twice() -> None:
    assert _SECTION.search('add to mlship.yaml: `data: {read: {decimal: ","}}`')
    paths = sorted(Path(mlship.__file__).parent.rglob("*.py"))
    assert len(paths) > 100
    assert [path.name for path in paths if _SECTION.search(path.read_text("utf-8"))] == []


def test_the_line_that_reads_data_keeps_what_is_set() -> None:
    config = read(LEAST.replace("species}", 'species, read: {sep: ";", na_values: [x]}}'))
    hint = hint_of_reading(config.data.read, decimal=",", sep="\t")
    line = 'read: {sep: "\\t", na_values: ["x"], decimal: ","}'
    assert hint == f"set `{line}` under data in mlship.yaml"
    assert yaml.safe_load(line)["read"] == {"sep": "\t", "na_values": ["x"], "decimal": ","}


def test_params_are_the_users_own() -> None:
    text = LEAST.replace('"pipeline:train"', '"pipeline:train", params: {C: 1.5, deep: {x: [1]}}')
    assert read(text).model.params == {"C": 1.5, "deep": {"x": [1]}}


def test_the_schema_for_editors_agrees_with_the_reader() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(yaml.safe_load(LEAST))
    assert not validator.is_valid(yaml.safe_load(LEAST + "gatse: {}"))
    assert not validator.is_valid(yaml.safe_load(LEAST + "targets: {staging: {port: many}}"))


@pytest.mark.parametrize(
    "fault", ["targets: {production: {sticky_header: x, kind: kubernetes, port: 1}}", "ledgers: {}"]
)
def test_an_error_names_the_file_that_was_read(fault: str) -> None:
    for name in ("mlship.yaml", "other.yaml"):
        with pytest.raises(ConfigError) as caught:
            resolve([from_yaml(f"{LEAST}{fault}", name), from_flags([])])
        assert caught.value.message.startswith(f"{name}: ")
