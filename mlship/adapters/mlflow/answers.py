"""The shapes of a tracking server's responses: the fields that mlship reads."""

from typing import Annotated, Any, Final, Literal

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded

_Number = int | Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,19}$")]
"""A 64-bit number, which is a string in protobuf's JSON."""


class _Tag(msgspec.Struct):
    key: str
    value: str = ""


class _Metric(msgspec.Struct):
    key: str
    value: float | Literal["NaN", "Infinity", "-Infinity"] = 0.0


class _RunInfo(msgspec.Struct):
    run_id: str
    artifact_uri: str
    status: str
    lifecycle_stage: str = ""


class _RunData(msgspec.Struct):
    params: list[_Tag] = []
    metrics: list[_Metric] = []
    tags: list[_Tag] = []


class _Run(msgspec.Struct):
    info: _RunInfo
    data: _RunData


class _RunAnswer(msgspec.Struct):
    run: _Run


class _Runs(msgspec.Struct):
    runs: list[_Run] = []
    next_page_token: str = ""


class _Experiment(msgspec.Struct):
    experiment_id: int | str
    lifecycle_stage: str = ""


class _ExperimentAnswer(msgspec.Struct):
    experiment: _Experiment


class _Alias(msgspec.Struct):
    alias: str
    version: _Number


class _Model(msgspec.Struct):
    aliases: list[_Alias] = []


class _ModelAnswer(msgspec.Struct):
    registered_model: _Model


class _Version(msgspec.Struct):
    version: _Number
    creation_timestamp: _Number
    tags: list[_Tag] = []


class _VersionAnswer(msgspec.Struct):
    model_version: _Version


class _Versions(msgspec.Struct):
    model_versions: list[_Version] = []
    next_page_token: str = ""


class _LoggedInfo(msgspec.Struct):
    model_id: str
    artifact_uri: str


class _Logged(msgspec.Struct):
    info: _LoggedInfo


class _LoggedAnswer(msgspec.Struct):
    model: _Logged


class _LoggedModels(msgspec.Struct):
    models: list[_Logged] = []


_SHAPES: Final[dict[str, Any]] = {
    "experiments/create": _Experiment,
    "experiments/get-by-name": _ExperimentAnswer,
    "logged-models": _LoggedAnswer,
    "logged-models/search": _LoggedModels,
    "model-versions/create": _VersionAnswer,
    "model-versions/search": _Versions,
    "registered-models/get": _ModelAnswer,
    "runs/create": _RunAnswer,
    "runs/get": _RunAnswer,
    "runs/search": _Runs,
}
"""By path of the API, or by that of its parent; the others' responses are not read."""


def answer(response: httpx.Response, path: str) -> dict[str, Any]:
    """Return the object in the response to a request of a path; an empty path has any shape.

    Raises:
        msgspec.DecodeError: it is not JSON, or not of the path's shape.
    """
    document = decoded(response.content, dict[str, Any])
    shape = _SHAPES.get(path) or _SHAPES.get(path.rpartition("/")[0], dict[str, Any])
    msgspec.convert(document, shape)
    return document
