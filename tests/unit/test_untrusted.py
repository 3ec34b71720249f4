"""What others wrote may be any bytes: each reader says what is wrong with them."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.images.build import manifests
from mlship.adapters.keys import certificates
from mlship.adapters.targets.local.state import State
from mlship.domain import attestation, bundle, checkpoint, dsse, evidence, workload
from mlship.domain.untrusted import decoded
from mlship.errors import IntegrityError, ProjectError
from mlship.runtime import golden
from tests.harness.signing import key

BY = key()
DEEP = b"[" * 100_000


def checkpoint_with(payload: bytes) -> bytes:
    return dsse.seal(payload, BY, checkpoint.TYPE)


READERS: dict[str, Callable[[], object]] = {
    "a bundle": lambda: attestation.read(b'{"mediaType":"\xff"}'),
    "the statement of a bundle": lambda: attestation.read(
        attestation.seal(b'{"_type":"\xff"}', BY)
    ),
    "an envelope": lambda: evidence.decode(b'{"payload":"","payloadType":"\xff"}'),
    "a record": lambda: evidence.decode(b'{"_type":"\xff"}'),
    "a signed record": lambda: evidence.decode(dsse.seal(b'{"_type":"\xff"}', BY)),
    "a step": lambda: evidence.decode(b'{"predicate":{"step":"\xff"}}'),
    "a checkpoint": lambda: checkpoint.read(checkpoint_with(b'{"name":"\xff"}')),
    "a Sigstore bundle": lambda: certificates.read(b'{"mediaType":"\xff"}'),
    "an image": lambda: manifests.decode_manifest(b'{"config":{"mediaType":"\xff"}}', "image"),
}


@pytest.mark.parametrize("case", READERS)
def test_text_that_is_not_utf8_is_refused(case: str) -> None:
    with pytest.raises(IntegrityError, match="UTF-8"):
        READERS[case]()


def test_a_record_that_is_not_utf8_names_no_parents() -> None:
    assert evidence.parents(b'{"predicate":{"parents":["\xff"]}}') == ()


FILES: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    bundle.MANIFEST: (b'{"python":"\xff"}', bundle.read),
    bundle.GOLDEN: (b'{"inputs":{"\xff":1}}', golden.read),
    "slots.json": (b'{"slots":{"\xff":1}}', lambda folder: State(folder).wanted()),
    "workload.jsonl": (b'{"name":"\xff"}', lambda folder: workload.read(folder / "workload.jsonl")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_utf8_is_named(name: str, tmp_path: Path) -> None:
    data, read = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises((IntegrityError, ProjectError), match=name):
        read(tmp_path)


@pytest.mark.parametrize("wrong", [b"", b"garbage", b'{"payload":"", "payloadType":"\xff"}'])
def test_a_file_that_is_no_checkpoint_says_how_to_make_one(wrong: bytes) -> None:
    with pytest.raises(IntegrityError, match="not a checkpoint: ") as caught:
        checkpoint.read(wrong)
    assert "mlship ledger checkpoint" in caught.value.hint


def test_json_that_is_nested_too_deeply_is_no_document() -> None:
    with pytest.raises(msgspec.DecodeError, match="nested too deeply"):
        decoded(msgspec.json.decode, DEEP)
