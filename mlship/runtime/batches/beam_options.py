"""The options of Beam's pipelines, as mlship.yaml has them."""

import argparse
import difflib
from collections.abc import Mapping
from typing import Any, Final

from mlship.domain.batch_work import BeamOption
from mlship.errors import ConfigError

LOCAL: Final = "DirectRunner"
"""Runs a pipeline in the process that describes it."""
_LOCAL_CLASS: Final = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""What the DirectRunner takes in the end. It tries Prism first, a program that it downloads."""


def options_of(options: Mapping[str, BeamOption], folder: str) -> tuple[Any, str]:
    """Return the options as Beam's, and the folder that all workers can reach.

    Args:
        options: by their names in mlship.yaml.
        folder: on this machine, for a runner that works on it.

    Raises:
        ConfigError: Beam has no such option, or its value is invalid, or one is missing.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    runner = str(options.get("runner", LOCAL))
    is_local = runner.lower() in {"direct", LOCAL.lower()}
    if not is_local and "temp_location" not in options:
        message = f"batch.beam has the runner {runner}, and no temp_location"
        hint = "name a folder or URL that this machine and all workers can read and write"
        raise ConfigError(message, hint=hint)
    flags = flags_of({**options, "runner": _LOCAL_CLASS if is_local else runner})
    _check(flags)
    return PipelineOptions(flags), str(options.get("temp_location", folder))


def flags_of(options: Mapping[str, BeamOption]) -> list[str]:
    """Return options as a command would have them.

    A flag that is false is left out; an option with many values is there many times.
    """
    return [
        f"--{name}" if each is True else f"--{name}={each}"
        for name, value in options.items()
        for each in (value if isinstance(value, tuple) else (value,))
        if each is not False
    ]


def _check(flags: list[str]) -> None:
    """Refuse what Beam would only warn of, or end the process for."""
    parser = _parser()
    try:
        _, unknown = parser.parse_known_args(flags)
    except argparse.ArgumentError as error:
        message = f"batch.beam: {error}"
        raise ConfigError(message, hint="correct the option in mlship.yaml") from error
    if unknown:
        name = unknown[0].partition("=")[0].removeprefix("--")
        near = difflib.get_close_matches(name, [text.removeprefix("--") for text in _names(parser)])
        hint = (
            f"did you mean {near[0]}?" if near else "`batch.beam` has options of Beam's pipelines"
        )
        raise ConfigError(f"batch.beam: Beam has no option {name}", hint=hint)


def _parser() -> argparse.ArgumentParser:
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, conflict_handler="resolve", exit_on_error=False
    )
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)  # noqa: SLF001 (how Beam does it)
    return parser


def _names(parser: argparse.ArgumentParser) -> list[str]:
    return list(parser._option_string_actions)  # noqa: SLF001 (there is no public list of them)
