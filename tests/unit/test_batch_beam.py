"""The options of Beam, as mlship.yaml has them; what Beam makes of them is an integration test."""

import sys
import types
from argparse import ArgumentParser
from typing import Any

import pytest

from mlship.domain.batch_work import BeamOption
from mlship.errors import ConfigError
from mlship.runtime.batches.beam_options import flags_of, options_of


class PipelineOptions:
    """As Beam's: its kinds add their options to a parser."""

    def __init__(self, flags: list[str]) -> None:
        self.flags = flags


class Kind(PipelineOptions):
    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--runner")
        parser.add_argument("--temp_location")
        parser.add_argument("--num_workers", type=int)


@pytest.fixture(autouse=True)
def beam(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("apache_beam.options.pipeline_options")
    module.PipelineOptions = PipelineOptions
    for name in ("apache_beam", "apache_beam.options", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)


def test_flags_and_options_with_many_values_are_written_as_beam_reads_them() -> None:
    options: dict[str, BeamOption] = {"streaming": False, "save_main_session": True}
    options["experiments"] = ("a", "b")
    assert flags_of({**options, "region": "europe-west4", "num_workers": 3}) == [
        "--save_main_session",
        "--experiments=a",
        "--experiments=b",
        "--region=europe-west4",
        "--num_workers=3",
    ]


def test_the_direct_runner_needs_no_place_and_tries_no_other_program() -> None:
    options, place = options_of({}, "/here")
    assert place == "/here"
    assert options.flags[0].endswith("FnApiRunner")


def test_another_runner_needs_a_place_that_its_workers_reach() -> None:
    with pytest.raises(ConfigError, match="the runner FlinkRunner, and no temp_location"):
        options_of({"runner": "FlinkRunner"}, "/here")
    given = {"runner": "FlinkRunner", "temp_location": "gs://lake/tmp"}
    assert options_of(given, "/here")[1] == "gs://lake/tmp"


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"Beam has no option num_worker$") as error:
        options_of({"num_worker": 3}, "/here")
    assert error.value.hint == "did you mean num_workers?"


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_workers: invalid int value: 'many'"):
        options_of({"num_workers": "many"}, "/here")
