"""containerize and push-to-registry on fakes: what they record, and what they do not do twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlship import digests
from mlship.cli import output
from mlship.errors import ConflictError, NotFoundError
from mlship.evidence import Record
from mlship.release import Release
from mlship.steps.containerize import containerize
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from mlship.steps.train import train
from tests.fakes import World, world


@pytest.fixture
def made(tmp_path: Path) -> tuple[World, Release]:
    there = world(tmp_path)
    return there, train(there.pipeline).evidence.release


def test_containerize_records_the_image_by_digest_with_its_layers(
    made: tuple[World, Release],
) -> None:
    there, release = made
    facts = containerize(there.pipeline, release).evidence.facts
    assert facts["reference"] == f"localhost:5000/iris@{facts['digest']}"
    (platform,) = facts["platforms"]
    assert [layer["role"] for layer in platform["layers"]] == ["base", "bundle"]
    assert facts["size"] == 200
    assert facts["base"].endswith(there.images.base)


def test_both_run_twice_record_once(made: tuple[World, Release]) -> None:
    there, release = made
    first = containerize(there.pipeline, release), push(there.pipeline, release)
    records = len(there.ledger.records())
    assert (containerize(there.pipeline, release), push(there.pipeline, release)) == first
    assert len(there.ledger.records()) == records


def test_an_image_that_a_registry_lost_is_pushed_again(made: tuple[World, Release]) -> None:
    there, release = made
    containerize(there.pipeline, release)
    reference = push(there.pipeline, release).evidence.facts["reference"]
    there.images.registry.clear()
    assert push(there.pipeline, release).evidence.facts["reference"] == reference
    assert len(there.images.registry) == 1


def test_a_release_keeps_its_base_when_the_tag_moves(made: tuple[World, Release]) -> None:
    there, release = made
    first = containerize(there.pipeline, release)
    there.images.base = digests.of_bytes(b"patched")
    assert containerize(there.pipeline, release) == first
    pushed = push(there.pipeline, release).evidence.facts
    assert pushed["digest"] == first.evidence.facts["digest"]


def test_only_what_was_proven_is_pushed(made: tuple[World, Release]) -> None:
    there, release = made
    containerize(there.pipeline, release)
    there.images.tool = "2"
    with pytest.raises(ConflictError, match="was proven"):
        push(there.pipeline, release)
    assert not there.images.registry
    again = containerize(there.pipeline, release).evidence.facts
    assert push(there.pipeline, release).evidence.facts["digest"] == again["digest"]


def test_a_release_without_an_image_is_not_pushed(made: tuple[World, Release]) -> None:
    there, release = made
    with pytest.raises(NotFoundError, match="no image yet") as caught:
        push(there.pipeline, release)
    assert "mlship containerize" in caught.value.hint


@pytest.mark.parametrize("step", [containerize, push])
def test_a_job_is_given_the_reference_and_the_digest(
    made: tuple[World, Release],
    step: Callable[[Pipeline, Release], Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, release = made
    digest = containerize(there.pipeline, release).evidence.facts["digest"]
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    output.record(step(there.pipeline, release), json=True)
    lines = outputs.read_text().splitlines()
    told = {line.partition("<<")[0]: lines[at + 1] for at, line in enumerate(lines) if "<<" in line}
    assert told == {
        "release": str(release),
        "verdict": "passed",
        "reference": f"localhost:5000/iris@{digest}",
        "digest": digest,
    }
