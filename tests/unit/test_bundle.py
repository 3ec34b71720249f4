from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mlship.domain import bundle, digests
from mlship.domain.digests import Digest
from mlship.errors import IntegrityError, NotFoundError
from tests.fakes.store import tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def add(folder: Path) -> None:
    (folder / "code" / "extra.py").write_text("")


def change(folder: Path) -> None:
    (folder / "model" / "model.onnx").write_text("MODEL")


def truncate(folder: Path) -> None:
    (folder / "model" / "model.onnx").write_text("")


def remove(folder: Path) -> None:
    (folder / "code" / "pipeline.py").unlink()


def link_file(folder: Path) -> None:
    path = folder / "model" / "model.onnx"
    path.rename(folder.parent / "model.onnx")
    path.symlink_to(folder.parent / "model.onnx")


def link_folder(folder: Path) -> None:
    (folder / "code").rename(folder.parent / "code")
    (folder / "code").symlink_to(folder.parent / "code")


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (add, r"code/extra\.py is not listed"),
        (change, r"model/model\.onnx does not match its digest"),
        (truncate, r"model/model\.onnx does not match its digest"),
        (remove, r"code/pipeline\.py is missing"),
        (link_file, r"model/model\.onnx is a symbolic link"),
        (link_folder, "code"),
    ],
)
def test_a_changed_bundle_is_refused_and_the_file_named(
    folder: Path, tamper: Callable[[Path], None], problem: str
) -> None:
    assert bundle.read(folder).name == "iris"
    tamper(folder)
    with pytest.raises(IntegrityError, match=problem):
        bundle.read(folder)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "code/../../outside.txt"])
def test_a_manifest_cannot_reach_out_of_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside.txt").write_text("secret")
    manifest = bundle.read(folder)
    entry = bundle.File(digest=digests.of_bytes(b"secret"), size=6)
    _write(folder, msgspec.structs.replace(manifest, files={**manifest.files, name: entry}))
    with pytest.raises(IntegrityError, match="is outside"):
        bundle.read(folder)


def _write(folder: Path, manifest: bundle.Bundle) -> Digest:
    data = digests.canonical_json(manifest)
    (folder / bundle.MANIFEST).write_bytes(data)
    return digests.of_bytes(data)


def test_a_manifest_that_was_edited_has_another_digest(folder: Path) -> None:
    sealed = digests.of_file(folder / bundle.MANIFEST)
    manifest = bundle.read(folder, expected=sealed)
    _write(folder, msgspec.structs.replace(manifest, metrics={"mae": 0.0}))
    with pytest.raises(IntegrityError, match=sealed):
        bundle.read(folder, expected=sealed)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2}', "\x00"])
def test_what_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / bundle.MANIFEST).write_text(text)
    with pytest.raises(IntegrityError, match="not a valid manifest"):
        bundle.read(folder)


def test_an_unknown_key_of_the_manifest_is_refused(folder: Path) -> None:
    fields = msgspec.json.decode((folder / bundle.MANIFEST).read_bytes())
    (folder / bundle.MANIFEST).write_bytes(msgspec.json.encode({**fields, "run": "rm"}))
    with pytest.raises(IntegrityError, match="run"):
        bundle.read(folder)


def test_a_folder_without_a_manifest_holds_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no bundle"):
        bundle.read(tmp_path)
    with pytest.raises(NotFoundError, match="no bundle"):
        bundle.read(tmp_path / "absent")


def test_the_same_content_has_the_same_digest_wherever_it_lies(tmp_path: Path) -> None:
    assert tiny_bundle(tmp_path / "a") == tiny_bundle(tmp_path / "b")
    assert tiny_bundle(tmp_path / "c", "other model") != tiny_bundle(tmp_path / "d")


def test_a_compiled_module_that_python_would_run_is_refused(folder: Path) -> None:
    (folder / "code" / "__pycache__").mkdir()
    (folder / "code" / "__pycache__" / "pipeline.cpython-311.pyc").write_bytes(b"")
    with pytest.raises(IntegrityError, match="__pycache__"):
        bundle.read(folder)


def test_sealing_again_changes_nothing(folder: Path) -> None:
    sealed = digests.of_file(folder / bundle.MANIFEST)
    assert bundle.seal(folder, bundle.read(folder)) == sealed
