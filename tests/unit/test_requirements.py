"""Requirements files are read as installers read them: nothing gets into jobs unseen."""

import codecs
import os
from pathlib import Path

import pytest

from mlship.config import installation, requirements
from mlship.config.installation import Installation, Origin
from mlship.config.requirements import names_of, of_text, read
from mlship.errors import ConfigError
from tests.harness.workflows import SOURCE

HERE = Installation(origin=Origin(kind="git"), source=SOURCE)
SHA256 = "5e" * 32


def source_of(folder: Path, data: str | bytes, setting: str | None = None) -> str:
    """Return what jobs would install mlship from beside a requirements file."""
    path = folder / "requirements.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return installation.source_for_jobs(setting, read(path), HERE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a project's folder with files that name another program, beside such a program."""
    project = tmp_path / "project"
    (project / "more").mkdir(parents=True)
    (project / "o2.txt").write_text("mlship\n")
    (project / "o3.txt").write_text("pandas\n-r more/o4.txt\n")
    (project / "more/o4.txt").write_text("-r o5.txt\n-r ../requirements.txt\n")
    (project / "more/o5.txt").write_text("mlship>=0.1\n")
    for name, file, text in (
        ("modern", "pyproject.toml", '[project]\nname = "MLship"\n'),
        ("poetry", "pyproject.toml", '[tool.poetry]\nname = "mlship"\n'),
        ("configured", "setup.cfg", "[metadata]\nname = mlship\n"),
        ("old", "setup.py", "from setuptools import setup\nsetup(name='mlship')\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    (project / "vendor").symlink_to(tmp_path / "modern")
    for ours in (tmp_path / "ours", project / "vendored/ours"):
        ours.mkdir(parents=True)
        (ours / "pyproject.toml").write_text('[project]\nname = "mlship-cd"\n')
    return project


@pytest.mark.parametrize(
    "text",
    [
        "-r o2.txt",
        "-ro2.txt",
        "--requirement=o2.txt",
        "--requirement o2.txt",
        "--requirem o2.txt",
        "--pre -r o2.txt",
        "-r 'o2.txt'",
        "-r o3.txt",
        "-c o2.txt",
        "ml\\\nship",
        "-r \\\n  o2.txt",
        "pandas # why \\\nmlship",
        "git+https://x/y#egg=mlship",
        "git+https://x/y#subdirectory=a&egg=MLship[all]",
        "-e git+https://x/y#egg=mlship-1.0",
        "-e ../modern",
        "-e../modern",
        "--editable=../modern",
        "../modern",
        "../modern[all]",
        "../poetry",
        "../configured",
        "../old ; python_version > '3'",
        "vendor/",
        "../modern;python_version>'3'",
        "../modern#subdirectory=.",
        "https://x/mlship-0.2.0.tar.gz; python_version > '3'",
        "mlship#why",
        "mlship@https://x/y.whl",
        "mlship @ https://x/y.whl",
        "https://x/mlship-0.2.0-py3-none-any.whl",
        "./mlship-0.2.0.tar.gz",
    ],
)
def test_no_way_of_a_requirements_file_leads_to_the_other_program(folder: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"\.txt:\d: on package indexes, mlship is an unrelated"):
        source_of(folder, f"numpy\n{text}\n")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pipe", "cannot read pipe: not a regular file"),
        ("zero", "cannot read zero: not a regular file"),
        ("loop", "cannot read loop: Too many levels of symbolic links"),
        ("vast", "vast is larger than 10,000,000 bytes"),
    ],
)
@pytest.mark.parametrize("option", ["-r", "-c"])
def test_what_is_no_text_file_is_refused_and_never_waited_for(
    folder: Path, option: str, name: str, reason: str
) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    with (folder / "vast").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match=f"^requirements.txt:1: {reason}$"):
        source_of(folder, f"{option} {name}\n")


def test_a_folder_with_a_pipe_as_its_metadata_is_read_without_waiting(folder: Path) -> None:
    (folder / "odd").mkdir()
    for name in ("pyproject.toml", "setup.cfg", "setup.py"):
        os.mkfifo(folder / "odd" / name)
    assert source_of(folder, "-e ./odd\n") == SOURCE


def test_a_file_that_is_included_is_named_with_its_line(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^more/o5\.txt:1: "):
        source_of(folder, "-r o3.txt\n")
    (folder / "more/o5.txt").write_text("-r ../o3.txt\n")
    assert source_of(folder, "-r o3.txt\n-c o3.txt\n") == SOURCE, "a circle ends"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-r none.txt", r"requirements\.txt:2: cannot read none\.txt"),
        ("-c none.txt", r"requirements\.txt:2: cannot read none\.txt"),
        ("-r more", r"requirements\.txt:2: cannot read more"),
        ("-r", r"requirements\.txt:2: cannot read \."),
        ("-r https://x/o.txt", r"requirements\.txt:2: https://x/o\.txt cannot be checked"),
        ("-r 'o.txt", r"requirements\.txt:2: cannot parse .*"),
        ("${NAME}", r"requirements\.txt:2: .* environment variable"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(folder: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        source_of(folder, f"numpy\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "-c https://x/constraints.txt",
        "--extra-index-url https://${TOKEN}@x/simple",
        "-e .",
        "../ours",
        "vendored/ours",
        "./vendored",
        "git+https://x/mlship.git@main#egg=other",
        "mlship-plugin",
    ],
)
def test_what_is_another_projects_is_left_alone(folder: Path, text: str) -> None:
    assert source_of(folder, f"numpy\n{text}\n") == SOURCE


ENCODINGS = [
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (b"# -*- coding: latin-1 -*-\n# caf\xe9\n", "latin-1"),
]


@pytest.mark.parametrize(("mark", "encoding"), ENCODINGS)
def test_files_are_decoded_as_installers_do_it(folder: Path, mark: bytes, encoding: str) -> None:
    with pytest.raises(ConfigError, match="unrelated package"):
        source_of(folder, mark + "mlship\n".encode(encoding))
    pins = f"mlship-cd==0.1.0 --hash=sha256:{SHA256}\nnumpy==2.4 --hash=sha256:{SHA256}\n"
    data = mark + pins.encode(encoding)
    assert source_of(folder, data, "mlship-cd==0.1.0") == "mlship-cd==0.1.0"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"caf\xe9\n", r"requirements\.txt is not valid UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", r"requirements\.txt is not valid UTF-16-LE"),
        ("mlship\n".encode("utf-16-le"), r"requirements\.txt has NUL characters"),
        (b"# coding: nonsense\n", r"requirements\.txt: unknown encoding nonsense"),
        (b"# coding: utf-7\n+AG0-lship\n", r"requirements\.txt: encoding utf-7 is not supp"),
        (b"# coding: cp037\nmlship\n", r"requirements\.txt: encoding cp037 is not supported"),
        (b"# coding: rot13\nzyfuvc\n", r"requirements\.txt: unknown encoding rot13"),
    ],
)
def test_what_cannot_be_decoded_is_named(folder: Path, data: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        source_of(folder, data)
    assert caught.value.hint == "save it as UTF-8"


def test_the_line_without_a_hash_is_named() -> None:
    text = f"mlship-cd==0.1.0 --hash=sha256:{SHA256}\n\npandas==2.3\n"
    with pytest.raises(ConfigError, match=r"requirements\.txt:3: pandas==2\.3 has no") as caught:
        installation.source_for_jobs("mlship-cd==0.1.0", of_text(text), HERE)
    assert caught.value.hint == "add --hash=sha256:... to the line"


def test_names_are_normalised() -> None:
    assert names_of("MLship_CD[all]==1 --hash=sha256:a") == {"mlship-cd"}
    assert requirements.normalised("a._-B") == "a-b"
