"""The bill of materials and the provenance of an image: valid, complete, the same each time."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from mlship.domain import digests, provenance
from mlship.domain.bundle import Bundle, Field, File, Hooks, Model, Schema
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record, Saw
from mlship.domain.facts import Containerized, Trained
from mlship.domain.image import Image, Layer, PlatformImage, Reference
from mlship.domain.inputs import Opened
from mlship.domain.inventory import Distribution, Inventory
from mlship.domain.release import Release
from mlship.domain.sbom import Material, sbom

NOON = datetime(2026, 11, 27, 12, 0, 0, 999, tzinfo=UTC)


def digest(text: str) -> Digest:
    return digests.of_bytes(text.encode())


RELEASE = Release(
    name="iris",
    commit="a" * 40,
    dirty=False,
    data=digest("data"),
    params=digest("params"),
    code=digest("code"),
    environment=digest("environment"),
    bundle=digest("bundle"),
)
BUNDLE = Bundle(
    name="iris",
    task="classification",
    target="species",
    schema=Schema(
        inputs=(Field(name="petal", kind="number"),), outputs=(Field(name="species", kind="text"),)
    ),
    model=Model(format="onnx", path="model/model.onnx", layout="matrix", columns=()),
    hooks=Hooks(),
    metrics={"accuracy": 0.97, "loss": "nan"},
    requirements=("numpy==2.1.0",),
    python="3.11",
    files={
        "model/model.onnx": File(digest=digest("model"), size=5),
        "requirements.txt": File(digest=digest("lock"), size=4),
    },
)
LAYER = Layer(
    role="bundle", media_type="x", digest=digest("layer"), diff_id=digest("inside"), size=9
)
IMAGE = Image(
    name="localhost:5000/team/iris",
    tag="3f9a0c12be77",
    digest=digest("image"),
    base=Reference(registry="docker.io", repository="library/python", digest=digest("base")),
    platforms=(
        PlatformImage(
            platform="linux/amd64",
            manifest=digest("image"),
            config=digest("config"),
            layers=(LAYER,),
        ),
    ),
)
PIP = Distribution(name="pip", version="24.0", path="usr/pip.dist-info/METADATA", license="MIT")
NUMPY = Distribution(
    name="Num.Py", version="2.1.0+local", path="opt/n/METADATA", expression="BSD-3-Clause"
)
TRAINED = Trained(
    data="https://ada:secret@example.org/train.csv",
    held_out="test.csv",
    opened=Opened(read={"test.csv": digest("rows")}),
)


def material(**changed: object) -> Material:
    known = Material(
        image=IMAGE,
        installed={"linux/amd64": Inventory(distributions=(NUMPY, PIP))},
        release=RELEASE,
        bundle=BUNDLE,
        trained=TRAINED,
        time=NOON,
    )
    return msgspec.structs.replace(known, **changed)


def checked(data: bytes) -> dict[str, Any]:
    """Return a bill of materials that the schema of CycloneDX accepts."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    document: dict[str, Any] = json.loads(data)
    return document


def component(document: dict[str, Any], reference: str) -> dict[str, Any]:
    (found,) = [each for each in document["components"] if each["bom-ref"] == reference]
    assert isinstance(found, dict)
    return found


def sha(text: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest(text).removeprefix("sha256:")}]


def test_the_schema_refuses_what_is_no_bill_of_materials() -> None:
    wrong = json.loads(sbom(material())) | {"unknown": 1}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(wrong)) is not None


def test_a_bill_of_materials_names_the_image_its_base_and_each_distribution() -> None:
    document = checked(sbom(material()))
    image = document["metadata"]["component"]
    assert image["hashes"] == sha("image")
    assert image["purl"].startswith("pkg:oci/iris@sha256%3A")
    assert image["purl"].endswith("?repository_url=localhost%3A5000/team/iris")
    assert component(document, "base")["hashes"] == sha("base")
    numpy = component(document, "pkg:pypi/num-py@2.1.0%2Blocal")
    assert (numpy["name"], numpy["version"]) == ("Num.Py", "2.1.0+local")
    assert numpy["licenses"] == [{"expression": "BSD-3-Clause"}]
    pip = component(document, "pkg:pypi/pip@24.0")
    assert pip["licenses"] == [{"license": {"name": "MIT"}}]
    assert pip["evidence"]["occurrences"] == [{"location": "/usr/pip.dist-info/METADATA"}]
    assert document["metadata"]["timestamp"] == "2026-11-27T12:00:00Z"


def test_the_model_is_a_component_with_its_hash_its_data_and_its_metrics() -> None:
    document = checked(sbom(material()))
    model = component(document, "model")
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == sha("model")
    assert [each["name"] for each in model["components"]] == sorted(BUNDLE.files)
    card = model["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert {each["type"]: each["value"] for each in metrics} == {"accuracy": "0.97", "loss": "nan"}
    held_out = component(document, "data:held-out data")
    assert held_out["hashes"] == sha("rows")
    assert {each["ref"] for each in card["modelParameters"]["datasets"]} == {
        "data:training data",
        "data:held-out data",
    }


def test_no_password_is_in_either_document() -> None:
    source = "https://ada:secret@example.org/iris"
    written = sbom(material()) + json.dumps(said(source=source)).encode()
    assert b"secret" not in written
    assert b"https://example.org/train.csv" in written


def test_the_same_image_gives_the_same_bytes_and_another_gives_another_number() -> None:
    other = msgspec.structs.replace(IMAGE, digest=digest("other"))
    one, two = json.loads(sbom(material())), json.loads(sbom(material(image=other)))
    assert sbom(material()) == sbom(material())
    assert one["serialNumber"] != two["serialNumber"]


def test_a_distribution_in_two_places_and_platforms_is_one_component() -> None:
    elsewhere = msgspec.structs.replace(PIP, path="opt/pip.dist-info/METADATA")
    installed = {
        "linux/amd64": Inventory(distributions=(PIP, elsewhere)),
        "linux/arm64": Inventory(distributions=(PIP,)),
    }
    pip = component(checked(sbom(material(installed=installed))), "pkg:pypi/pip@24.0")
    assert len(pip["evidence"]["occurrences"]) == 2
    assert [each["value"] for each in pip["properties"]] == ["linux/amd64", "linux/arm64"]


@pytest.mark.parametrize(
    "changed",
    [
        {"trained": Trained(), "time": None},
        {"bundle": msgspec.structs.replace(BUNDLE, files={}, metrics={}, task="clustering")},
        {"installed": {}},
    ],
)
def test_a_release_of_which_less_is_known_has_a_valid_one(changed: dict[str, object]) -> None:
    checked(sbom(material(**changed)))


def test_a_layer_that_was_not_read_is_named() -> None:
    inventory = Inventory(distributions=(), unread=(digest("layer"),))
    document = checked(sbom(material(installed={"linux/amd64": inventory})))
    entry = {"name": "mlship:layer-not-read", "value": digest("layer")}
    assert entry in document["metadata"]["component"]["properties"]
    assert document["compositions"][0]["aggregate"] == "incomplete"


BUILT = Containerized.of(IMAGE, base_name="python:3.11-slim", seconds=1.0)


def said(source: str | None = None, *, dirty: bool = False) -> dict[str, Any]:
    release = msgspec.structs.replace(RELEASE, dirty=dirty)
    saw = Saw(extension=digest("RUN a"))
    evidence = Evidence(
        release=release, step="containerize", verdict="passed", saw=saw, actor="ada", time=NOON
    )
    record = Record(digest=digest("record"), evidence=evidence)
    return provenance.provenance(record, BUILT, BUNDLE, data=TRAINED.data, source=source)


def test_provenance_names_what_the_image_was_made_from() -> None:
    predicate = said("https://github.com/team/iris")
    listed = predicate["buildDefinition"]["resolvedDependencies"]
    named = {each["name"]: each for each in listed}
    assert named["source"] == {
        "name": "source",
        "uri": f"git+https://github.com/team/iris@{'a' * 40}",
        "digest": {"gitCommit": "a" * 40},
    }
    for part in ("base", "data", "bundle", "lock"):
        assert named[part]["digest"] == {"sha256": digest(part).removeprefix("sha256:")}
    assert named["image.extend"]["digest"]["sha256"] == digest("RUN a").removeprefix("sha256:")


def test_provenance_claims_no_builder_that_mlship_cannot_know() -> None:
    run = said()["runDetails"]
    assert run["builder"]["id"] == "https://mlship.dev/builder/self-declared/v1"
    assert run["metadata"]["invocationId"] == digest("record")


def test_provenance_says_that_changes_were_not_committed() -> None:
    listed = said(dirty=True)["buildDefinition"]
    source = listed["resolvedDependencies"][0]
    assert source["annotations"] == {"uncommittedChanges": True}
