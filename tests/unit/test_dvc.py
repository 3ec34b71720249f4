"""Pointers of DVC and Git LFS, followed and told from what they point to."""

import hashlib
import json
from pathlib import Path

import pytest

from mlship.adapters.checkout import datafiles
from mlship.config.data import DataConfig
from mlship.config.project import ModelConfig
from mlship.errors import IntegrityError, MlshipError, ProjectError
from mlship.training.forms import saved

UNIX, DOS = b"a,y\n1,0\n", b"a,y\r\n1,0\r\n"


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def pointer(path: Path, digest: str, target: str, *, hashed: bool = True) -> None:
    field = "  hash: md5\n" if hashed else ""
    path.write_text(f"outs:\n- md5: {digest}\n{field}  size: 8\n  path: {target}\n")


def digest(root: Path, text: str) -> str:
    return datafiles.sources(root, DataConfig(train=text, target="y"))[text]


def fault(root: Path, text: str) -> MlshipError:
    with pytest.raises(MlshipError) as caught:
        digest(root, text)
    return caught.value


@pytest.mark.parametrize("text", ["d.csv.dvc", "d.csv"])
def test_version_3_hashes_the_bytes_and_version_2_text_with_unix_line_ends(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "d.csv").write_bytes(DOS)
    own = "sha256:" + hashlib.sha256(DOS).hexdigest()
    pointer(tmp_path / "d.csv.dvc", md5(DOS), "d.csv")
    assert digest(tmp_path, text) == own
    pointer(tmp_path / "d.csv.dvc", md5(UNIX), "d.csv", hashed=False)
    assert digest(tmp_path, text) == own
    pointer(tmp_path / "d.csv.dvc", md5(UNIX), "d.csv")
    assert isinstance(fault(tmp_path, text), IntegrityError)
    pointer(tmp_path / "d.csv.dvc", md5(DOS), "d.csv", hashed=False)
    error = fault(tmp_path, text)
    assert error.message == "d.csv is not the file that d.csv.dvc points to"
    assert error.hint == "dvc checkout d.csv.dvc, or dvc add d.csv to keep it"


@pytest.mark.parametrize(
    ("folder_md5", "file_md5", "hashed"),
    [
        ("76d2a8bc107502824ab5a02e97f9baf5.dir", "a491785eb9d2e6188f6889ccd8288cb2", True),
        ("818efae1fcaa62e420498e02c2612869.dir", "65986992be9436aeb5f790c17e6b66d9", False),
    ],
    ids=["as dvc 3.67.1 wrote it", "as dvc 2.58.2 wrote it"],
)
def test_pointers_that_dvc_itself_wrote(
    tmp_path: Path, folder_md5: str, file_md5: str, hashed: bool
) -> None:
    files = {"data/train.csv": DOS, "data/mehr/größe.csv": UNIX, "one.csv": b"a,y\r\n2,1\r\n"}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    pointer(tmp_path / "data.dvc", folder_md5, "data", hashed=hashed)
    pointer(tmp_path / "one.csv.dvc", file_md5, "one.csv", hashed=hashed)
    for name, data in files.items():
        assert digest(tmp_path, name) == "sha256:" + hashlib.sha256(data).hexdigest()


def test_version_2_hashes_what_is_no_text_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1\0" + DOS)
    pointer(tmp_path / "d.parquet.dvc", md5(b"PAR1\0" + DOS), "d.parquet", hashed=False)
    assert digest(tmp_path, "d.parquet")


def folder(root: Path, *, hashed: bool = True) -> bytes:
    """Write a folder of two files with its pointer; return the manifest."""
    (root / "data" / "more").mkdir(parents=True)
    files = {"a.csv": DOS, "more/b.csv": UNIX}
    for name, data in files.items():
        (root / "data" / name).write_bytes(data)
    taken = {name: data if hashed else data.replace(b"\r\n", b"\n") for name, data in files.items()}
    entries = [{"md5": md5(data), "relpath": name} for name, data in sorted(taken.items())]
    manifest = json.dumps(entries, sort_keys=True).encode()
    pointer(root / "data.dvc", f"{md5(manifest)}.dir", "data", hashed=hashed)
    return manifest


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_a_file_of_a_folder_is_checked_by_its_manifest(
    tmp_path: Path, hashed: bool, cached: bool
) -> None:
    manifest = folder(tmp_path, hashed=hashed)
    if cached:
        home = tmp_path / ".dvc" / "cache" / ("files/md5" if hashed else ".")
        place = home / md5(manifest)[:2] / (md5(manifest)[2:] + ".dir")
        place.parent.mkdir(parents=True)
        place.write_bytes(manifest)
    assert digest(tmp_path, "data/more/b.csv") == "sha256:" + hashlib.sha256(UNIX).hexdigest()
    # Only the manifest can tell which file is another one.
    (tmp_path / "data" / "a.csv").write_bytes(b"other")
    assert isinstance(fault(tmp_path, "data/a.csv"), IntegrityError)
    if cached:
        assert digest(tmp_path, "data/more/b.csv")
    else:
        assert isinstance(fault(tmp_path, "data/more/b.csv"), IntegrityError)


def test_what_was_not_pulled_is_named_with_the_command(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "data" / "more" / "b.csv").unlink()
    error = fault(tmp_path, "data/more/b.csv")
    assert error.message == "data file data/more/b.csv, which data.dvc points to, is missing"
    assert error.hint == "dvc pull data.dvc"
    pointer(tmp_path / "d.csv.dvc", md5(DOS), "d.csv")
    assert fault(tmp_path, "d.csv").hint == fault(tmp_path, "d.csv.dvc").hint
    assert fault(tmp_path, "d.csv").hint == "dvc pull d.csv.dvc"
    pointer(tmp_path / "my d.csv.dvc", md5(DOS), "my d.csv")
    assert fault(tmp_path, "my d.csv").hint == "dvc pull 'my d.csv.dvc'"


def test_a_folder_is_no_data_file_and_the_hint_says_what_is(tmp_path: Path) -> None:
    folder(tmp_path)
    assert fault(tmp_path, "data.dvc").hint == "name a file in it, such as data/train.csv"


def test_the_paths_that_are_data(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "d.csv").write_bytes(DOS)
    pointer(tmp_path / "d.csv.dvc", md5(DOS), "d.csv")
    config = DataConfig(train="data/a.csv", test="d.csv.dvc", target="y")
    assert datafiles.names(tmp_path, config) == {"data/a.csv", "data.dvc", "d.csv", "d.csv.dvc"}


def test_a_pointer_of_git_lfs_is_no_data(tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\n"
    (tmp_path / "d.csv").write_text(f"{text}oid sha256:{'0' * 64}\nsize 12\n")
    error = fault(tmp_path, "d.csv")
    assert isinstance(error, ProjectError)
    assert error.message == "data file d.csv is a Git LFS pointer, not the file itself"
    assert error.hint.startswith("git lfs pull")
    (tmp_path / "d.csv").rename(tmp_path / "model.onnx")
    with pytest.raises(ProjectError, match=r"^model\.onnx is a Git LFS pointer"):
        saved.read(tmp_path, ModelConfig(train="pipeline:train"), "model.onnx")


def test_files_are_named_from_the_projects_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pointer(tmp_path / "data/d.csv.dvc", md5(UNIX), "d.csv")
    error = fault(tmp_path, "data/d.csv")
    assert error.message == "data file data/d.csv, which data/d.csv.dvc points to, is missing"
    (tmp_path / "data/d.csv").write_bytes(DOS)
    hint = "dvc checkout data/d.csv.dvc, or dvc add data/d.csv to keep it"
    assert fault(tmp_path, "data/d.csv").hint == hint
