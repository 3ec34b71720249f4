"""Data that DVC keeps: what jobs may know of its storage, and what is taken from it."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlship.adapters.checkout import storage as adapter
from mlship.config.layers import from_yaml, resolve
from mlship.config.project import Config
from mlship.domain.storage import Kept, Storage, storage
from mlship.errors import (
    ConfigError,
    IntegrityError,
    MlshipError,
    NotFoundError,
    ProjectError,
    UnavailableError,
)

TRAIN, TEST, EVIL = b"a,y\n1,0\n", b"a,y\n2,1\n", b"evil"
CREDENTIALS = {"DVC_ACCESS_KEY_ID": "key", "DVC_SECRET_ACCESS_KEY": "secret"}
S3 = Storage(url="s3://bucket/data", options={"region": "eu-west-1"})


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def config(more: str = "", data: str = "{train: data/train.csv, test: data/test.csv}") -> Config:
    text = f"name: iris\ndata: {data}\nmodel: {{train: 'pipeline:train'}}\n{more}"
    return resolve([from_yaml(text, "mlship.yaml")]).config


def pointer(path: Path, data: bytes, *, more: str = "", target: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    target = target or path.name.removesuffix(".dvc")
    path.write_text(f"outs:\n- md5: {md5(data)}\n  hash: md5\n  size: 8\n  path: {target}\n{more}")


class Dvc:
    """Stands in for the program: `dvc fetch` in the folder where it is started.

    Attributes:
        objects: what the storage has, by its path there.
        tracked: what `git ls-files` says.
        config, environment, files: what the program was given.
    """

    def __init__(self, programs: Path, *objects: bytes) -> None:
        self.objects = {f"files/md5/{md5(data)[:2]}/{md5(data)[2:]}": data for data in objects}
        self.says, self.code, self.tracked = "", 0, b""
        self.config, self.environment, self.files = "", dict[str, str](), dict[str, str]()
        programs.mkdir()
        (programs / "dvc").write_text("")
        (programs / "dvc").chmod(0o755)
        self.path = str(programs)

    def __call__(self, argv: list[str], **given: Any) -> subprocess.CompletedProcess[bytes]:
        if argv[0] == "git":
            return subprocess.CompletedProcess(argv, 0, self.tracked, b"")
        home: Path = given["cwd"]
        self.config = (home / ".dvc/config").read_text()
        self.environment = given["env"]
        self.files = {path.name: path.read_text() for path in home.glob("[0-9]*.dvc")}
        for name, data in self.objects.items():
            place = home / ".dvc/cache" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return subprocess.CompletedProcess(argv, self.code, self.says.encode(), b"")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dvc:
    stand_in = Dvc(tmp_path / "bin", TRAIN, TEST)
    monkeypatch.setattr(subprocess, "run", stand_in)
    return stand_in


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a project with two pointers, in a folder of its repository."""
    folder = tmp_path / "repository" / "models" / "iris"
    pointer(folder / "data/train.csv.dvc", TRAIN)
    pointer(folder / "data/test.csv.dvc", TEST)
    return folder


def fetch(
    root: Path, program: Dvc, remote: Storage = S3, settings: Config | None = None, **more: str
) -> dict[str, bytes]:
    top, into = root.parents[1], root.parents[2] / "fetched"
    environment = {"PATH": program.path, **CREDENTIALS, **more}
    told = adapter.fetch(root, top, settings or config(), remote, into, environment)
    files = {
        path.relative_to(into).as_posix(): path.read_bytes()
        for path in into.rglob("*")
        if path.is_file()
    }
    assert all(any(name.startswith(place) for name in files) for place in told)
    return files


def test_what_the_pointers_stand_for_is_put_where_it_belongs(root: Path, program: Dvc) -> None:
    files = fetch(root, program)
    assert files == {"models/iris/data/train.csv": TRAIN, "models/iris/data/test.csv": TEST}
    # Nothing is left of the secrets.
    assert not [path for path in (root.parents[2]).iterdir() if path.name.startswith(".dvc-")]


def test_a_branch_has_no_say_in_where_the_credentials_go(root: Path, program: Dvc) -> None:
    evil = "['remote \"x\"']\nurl = s3://evil\nendpointurl = https://evil.example.org\n"
    for folder in (root, root.parents[1]):
        (folder / ".dvc").mkdir()
        (folder / ".dvc/config").write_text(f"[core]\nremote = x\n{evil}")
    more = "deps:\n- path: x\n  repo: {url: https://evil.example.org/r.git}\nremote: evil\ncmd: x\n"
    pointer(root / "data/train.csv.dvc", TRAIN, more=f"  remote: evil\n{more}")
    (root / "dvc.yaml").write_text("stages: {x: {cmd: touch /tmp/evil}}\n")
    fetch(root, program, AWS_ENDPOINT_URL="https://evil.example.org", PYTHONPATH="/evil")
    given = "".join([program.config, *program.files.values(), *program.environment.values()])
    assert "evil" not in given
    assert 'url = "s3://bucket/data"' in program.config
    assert set(program.files.values()) == {
        f"outs:\n- md5: {md5(data)}\n  hash: md5\n  path: '{number}'\n"
        for number, data in enumerate((TRAIN, TEST))
    }


def test_each_storage_gets_its_own_credentials_and_no_others(root: Path, program: Dvc) -> None:
    others = {"REGISTRY_PASSWORD": "other", "GITHUB_TOKEN": "other", "AWS_SECRET_ACCESS_KEY": "x"}
    fetch(root, program, S3, None, **others)
    assert program.environment["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert not {*CREDENTIALS, "GITHUB_TOKEN", "REGISTRY_PASSWORD"} & set(program.environment)
    http = storage("https://data.example.org", {"auth": "basic", "user": "ada"})
    shutil.rmtree(root.parents[2] / "fetched")
    fetch(root, program, http, DVC_PASSWORD='two "words, #1')
    assert "password = 'two \"words, #1'" in program.config
    assert "AWS_SECRET_ACCESS_KEY" not in program.environment
    shutil.rmtree(root.parents[2] / "fetched")
    fetch(root, program, storage("gs://bucket", {}), DVC_GOOGLE_CREDENTIALS="{}")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in program.environment


def test_without_credentials_nothing_is_asked(root: Path, program: Dvc) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch(root, program, DVC_SECRET_ACCESS_KEY="  ")
    assert caught.value.message == (
        "no credentials for s3://bucket/data: DVC_SECRET_ACCESS_KEY not set"
    )
    assert "fork" in caught.value.hint
    assert program.config == ""
    public = storage("s3://bucket", {"allow_anonymous_login": "true"})
    assert fetch(root, program, public, DVC_SECRET_ACCESS_KEY="")


def folder(root: Path, program: Dvc, *names: str) -> None:
    """Let `data.dvc` stand for a folder with files of these names."""
    entries = [{"md5": md5(TRAIN), "relpath": name} for name in names]
    manifest = json.dumps(entries).encode()
    digest = md5(manifest)
    (root / "data.dvc").write_text(f"outs:\n- md5: {digest}.dir\n  hash: md5\n  path: data\n")
    program.objects[f"files/md5/{digest[:2]}/{digest[2:]}.dir"] = manifest
    shutil.rmtree(root / "data")


def test_a_folder_comes_whole(root: Path, program: Dvc) -> None:
    folder(root, program, "train.csv", "test.csv", "more/.hidden.csv")
    files = fetch(root, program)
    names = ("train.csv", "test.csv", "more/.hidden.csv")
    assert files == {f"models/iris/data/{name}": TRAIN for name in names}


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "a/../../../../evil", ""])  # noqa: S108
def test_a_manifest_that_leaves_its_folder_is_refused(root: Path, program: Dvc, name: str) -> None:
    folder(root, program, "train.csv", name)
    with pytest.raises(IntegrityError, match="its manifest in s3://bucket/data names"):
        fetch(root, program)
    assert not list(root.parents[2].rglob("evil"))


@pytest.mark.parametrize("target", ["../../../../evil", "/evil", "../../../.git/hooks/pre-commit"])
def test_a_pointer_that_leaves_the_repository_is_refused(
    root: Path, program: Dvc, target: str
) -> None:
    pointer(root / "data/evil.csv.dvc", EVIL, target=target)
    settings = config(data="{train: data/evil.csv.dvc, test: data/test.csv}")
    with pytest.raises(ProjectError, match="no file of the repository"):
        fetch(root, program, settings=settings)
    assert program.config == ""


@pytest.mark.parametrize("digest", ["../../../evil", "x" * 32, md5(TRAIN).upper(), "[1]"])
def test_a_pointer_without_an_md5_is_none(root: Path, program: Dvc, digest: str) -> None:
    (root / "data/train.csv.dvc").write_text(f"outs: [{{md5: '{digest}', path: train.csv}}]\n")
    with pytest.raises(ProjectError, match="is not a DVC pointer"):
        fetch(root, program)


def test_what_the_storage_has_is_compared(root: Path, program: Dvc) -> None:
    name = next(iter(program.objects))
    program.objects[name] = EVIL
    with pytest.raises(IntegrityError, match=r"another file than data/train\.csv\.dvc"):
        fetch(root, program)
    del program.objects[name]
    shutil.rmtree(root.parents[2] / "fetched", ignore_errors=True)
    with pytest.raises(NotFoundError, match=r"does not have what data/train\.csv\.dvc") as caught:
        fetch(root, program)
    assert caught.value.hint.startswith("dvc push, where the data are; if ")
    program.code, program.says = 1, "ERROR: failed to connect\n  to s3"
    with pytest.raises(UnavailableError, match="failed to connect to s3"):
        fetch(root, program)
    with pytest.raises(UnavailableError, match="not on this machine"):
        fetch(root, program, Storage(url=str(root / "nowhere")))


def test_outputs_of_stages_are_fetched_and_named_where_they_are_missing(
    root: Path, program: Dvc
) -> None:
    (root / "data/train.csv.dvc").unlink()
    outs = f"{{path: data/train.csv, hash: md5, md5: {md5(TRAIN)}}}"
    (root / "dvc.lock").write_text(f"schema: '2.0'\nstages: {{prepare: {{outs: [{outs}]}}}}\n")
    assert fetch(root, program)["models/iris/data/train.csv"] == TRAIN
    (root / "dvc.lock").write_text("stages: [x]\n")
    shutil.rmtree(root.parents[2] / "fetched")
    with pytest.raises(ProjectError, match=r"dvc\.lock is not a lock file of DVC"):
        fetch(root, program)


def test_more_paths_are_fetched_as_the_settings_name_them(root: Path, program: Dvc) -> None:
    pointer(root / "words.txt.dvc", EVIL)
    program.objects[f"files/md5/{md5(EVIL)[:2]}/{md5(EVIL)[2:]}"] = EVIL
    settings = config("workflows: {dvc: [words.txt]}")
    assert fetch(root, program, settings=settings)["models/iris/words.txt"] == EVIL
    with pytest.raises(ConfigError, match=r"workflows\.dvc: other\.txt is not kept by DVC"):
        adapter.pointers_of(root, config("workflows: {dvc: [other.txt]}"))


def kept(root: Path, text: str) -> Kept:
    home = root.parents[1] / ".dvc"
    home.mkdir(exist_ok=True)
    (home / "config").write_text(text)
    return adapter.kept_by_dvc(root, root.parents[1], config())


def test_the_storage_is_read_from_the_configuration_of_the_repository(
    root: Path, program: Dvc
) -> None:
    text = """[core]
    remote = Storage
['remote "storage"']
    url = "s3://bucket/data"
    region = eu-west-1
    profile = ada
    access_key_id = AKIA
    secret_access_key = hidden
    credentialpath = ~/.aws
['remote "other"']
    url = s3://other
"""
    found = kept(root, text)
    assert found.storage == S3
    assert found.files == ("data/train.csv", "data/test.csv")
    assert found.pointers == ("data/train.csv.dvc", "data/test.csv.dvc")
    assert S3.arguments() == ("--remote=s3://bucket/data", "--option=region=eu-west-1")
    for place in ("/mnt/data", "/mnt/a?b@c"):
        assert kept(root, f"['remote \"only\"']\nurl = {place}\n").storage == Storage(url=place)
    assert not program.config


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[core]\nanalytics = false\n", "no default remote"),
        ("['remote \"a\"']\nurl = s3://a\n['remote \"b\"']\nurl = s3://b\n", "no default remote"),
        ("['remote \"a\"']\nurl = ../storage\n", "of this machine, which jobs do not reach"),
        ("['remote \"a\"']\nurl = gdrive://x\n", "by gdrive://"),
        ("['remote \"a\"']\nurl = https://ada:secret@example.org/\n", "has credentials"),
        ("['remote \"a\"']\nurl = https://h/f?token=secret\n", "remote https://h/f has a query"),
        ("['remote \"a\"']\nurl = azure://c/p?sv=1&sig=secret\n", "azure://c/p has a query"),
        ("['remote \"a\"']\nurl = https://h?secret@x\n", "remote https://h has a query"),
        ("['remote \"a\"']\nurl = https://h/f#secret\n", "https://h/f has a query or a fragment"),
        (
            "['remote \"a\"']\nurl = s3://a\nendpointurl = https://u:secret@h\n",
            "remote https://h has credentials",
        ),
        ("['remote \"a\"']\nurl = s3://a\nendpointurl = https://h/?k=secret\n", "has a query"),
        ("['remote \"a\"']\nurl = s3://a\nversion_aware = true\n", "is version_aware"),
        ("['remote \"a\"']\nurl = s3://${{ github.token }}\n", "cannot hold"),
        ("['remote \"a\"']\nurl = s3://a\nregion = $(x) y\n", "cannot hold"),
        ("no section\n", "cannot read"),
    ],
)
def test_a_storage_that_jobs_cannot_use_is_said(
    root: Path, program: Dvc, text: str, reason: str
) -> None:
    found = kept(root, text)
    assert found.files
    assert found.storage is None
    assert reason in found.reason
    assert not re.search(r"secret", found.reason)
    assert not program.config


def test_a_project_whose_data_git_has_needs_no_storage(root: Path, program: Dvc) -> None:
    shutil.rmtree(root / "data")
    assert kept(root, "['remote \"a\"']\nurl = s3://a\n").files == ()
    # An output with `cache: false` is in git.
    outs = f"{{path: data/train.csv, hash: md5, md5: {md5(TRAIN)}}}"
    (root / "dvc.lock").write_text(f"stages: {{prepare: {{outs: [{outs}]}}}}\n")
    assert adapter.pointers_of(root, config())
    program.tracked = b"data/train.csv\n"
    assert not adapter.pointers_of(root, config())
    with pytest.raises(MlshipError, match=r"nothing that mlship\.yaml names"):
        fetch(root, program)
