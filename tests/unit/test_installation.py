"""Where mlship came from, as installers record it, and which lines install it verifiably."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlship.config import distributions, installation
from mlship.config.installation import Installation, Origin, arguments, refusal
from mlship.config.requirements import of_text
from mlship.errors import ConfigError

COMMIT = "3f9a0c12be77" * 3 + "beef"
SHA256 = "5e" * 32
GIT = f"git+https://github.com/ada/mlship@{COMMIT}"
WHEEL = "https://example.org/mlship_cd-0.1.0-py3-none-any.whl"


def origin(record: Mapping[str, Any] | None) -> Origin:
    return installation.origin_of(None if record is None else json.dumps(record), "0.1.0")


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, 'pip install "mlship-cd[gcp,mlflow]==0.1.0"'),
        (
            {
                "url": "https://github.com/ada/mlship",
                "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": COMMIT},
            },
            f'pip install "mlship-cd[gcp,mlflow] @ {GIT}"',
        ),
        (
            {
                "url": "https://ada:secret@h/t.git",
                "vcs_info": {"vcs": "git", "commit_id": COMMIT},
                "subdirectory": "m",
            },
            f'pip install "mlship-cd[gcp,mlflow] @ git+https://h/t.git@{COMMIT}#subdirectory=m"',
        ),
        (
            {"url": WHEEL, "archive_info": {"hashes": {"sha256": SHA256}}},
            f'pip install "mlship-cd[gcp,mlflow] @ {WHEEL}#sha256={SHA256}"',
        ),
        (
            {"url": WHEEL, "archive_info": {"hash": f"sha256={SHA256}"}},
            f'pip install "mlship-cd[gcp,mlflow] @ {WHEEL}#sha256={SHA256}"',
        ),
        (
            {"url": "file:///home/mlship_cd-0.1.0-py3-none-any.whl", "archive_info": {}},
            'pip install "mlship-cd[gcp,mlflow] @ file:///home/mlship_cd-0.1.0-py3-none-any.whl"',
        ),
        (
            {"url": "file:///home/ada/ml%20ship", "dir_info": {}},
            'pip install "/home/ada/ml ship[gcp,mlflow]"',
        ),
        (
            {"url": "file:///home/ada/mlship", "dir_info": {"editable": True}},
            'pip install -e "/home/ada/mlship[gcp,mlflow]"',
        ),
    ],
)
def test_hints_use_the_way_in_which_the_installation_came(
    record: Mapping[str, Any] | None, command: str
) -> None:
    hint = installation.command(origin(record), ["gcp", "mlflow"])
    assert hint == command
    assert not installation.strangers_named(hint)


@pytest.mark.parametrize(
    "record", ["", "[]", "{", "{}", '{"url": 1}', '{"url": "file:///x", "dir_info": []}']
)
def test_a_record_that_is_none_names_nothing_to_install(record: str) -> None:
    hint = installation.command(installation.origin_of(record, "0.1.0"), ["gcp"])
    assert "mlship ==" not in hint
    assert "None" not in hint
    assert not installation.strangers_named(hint)


@pytest.mark.parametrize(
    "line",
    [
        GIT,
        f"git+ssh://git@example.org/ada/mlship@{COMMIT}",
        f"{GIT}#subdirectory=python",
        f"git+file:///srv/mlship@{COMMIT}",
        f"mlship-cd[all] @ {GIT}",
        f"mlship_cd @ {WHEEL}#sha256={SHA256}",
        f"{WHEEL}#sha256={SHA256}",
        f"https://example.org/archive/{COMMIT}.zip#sha256={SHA256}",
        ".",
        "./tools/mlship",
        "./vendor/mlship_cd-0.1.0-py3-none-any.whl",
    ],
)
def test_lines_that_can_only_be_this_mlship(line: str) -> None:
    assert refusal(line) == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("mlship", "unrelated package"),
        ("mlship==0.1.0", "unrelated package"),
        ("MLship[all]>=0.1", "unrelated package"),
        (f"mlship @ {GIT}", "unrelated package"),
        ("https://example.org/mlship-0.2.0-py3-none-any.whl#sha256=" + SHA256, "unrelated package"),
        ("./mlship-0.2.0.tar.gz", "unrelated package"),
        ("mlflow==3.1", "mlflow is not mlship-cd"),
        (f"mlship-cdx @ {GIT}", "is not mlship-cd"),
        ("mlship-cd", "does not name one version"),
        ("mlship-cd>=0.1", "does not name one version"),
        ("mlship-cd==0.1.*", "does not name one version"),
        ("mlship-cd==0.1.0", "has no hash"),
        ("git+https://github.com/ada/mlship", "branches and tags can move"),
        ("git+https://github.com/ada/mlship@main", "branches and tags can move"),
        ("git+https://github.com/ada/mlship@v1.2.0", "branches and tags can move"),
        (f"git+https://github.com/ada/mlship@{COMMIT[:12]}", "branches and tags can move"),
        (f"git+https://github.com/ada/mlship@{COMMIT}0", "branches and tags can move"),
        (f"git+http://github.com/ada/mlship@{COMMIT}", "does not use HTTPS or SSH"),
        (f"git+https://github.com/ada/mlship@{COMMIT.upper()}", "commit hash in lower case"),
        (f"{WHEEL}#sha256={SHA256.upper()}", "sha256 in lower case"),
        ("tools/mlship", "a folder must begin with ./"),
        (f"git+https://ada:token@github.com/ada/mlship@{COMMIT}", "user or a password"),
        (f"mlship-cd @ {WHEEL}", "has no #sha256="),
        (f"{WHEEL}#sha256=5e5e", "has no #sha256="),
        (f"git+https://github.com/ada/mlship@{COMMIT}#subdirectory=../x", "is outside of"),
        (f"git+https://github.com/ada/mlship@{COMMIT}#egg=x&subdirectory=a/%2e%2e/../x", "outside"),
        (f"git+https://github.com/ada/mlship@{COMMIT}#subdirectory=/x", "is outside of"),
        ("../mlship", "outside the repository"),
        ("./tools/../../mlship", "outside the repository"),
    ],
)
def test_lines_that_are_refused(line: str, why: str) -> None:
    assert why in refusal(line)


@pytest.mark.parametrize(
    ("source", "folder", "wanted"),
    [
        (GIT, "", (f"mlship-cd[gcp,mlflow] @ {GIT}",)),
        (f"{WHEEL}#sha256={SHA256}", "x", (f"mlship-cd[gcp,mlflow] @ {WHEEL}#sha256={SHA256}",)),
        (".", "", (".[gcp,mlflow]",)),
        (".", "iris_example", ("..[gcp,mlflow]",)),
        ("./tools/mlship", "", ("./tools/mlship[gcp,mlflow]",)),
        ("./tools/mlship", "models/iris", ("../../tools/mlship[gcp,mlflow]",)),
        ("mlship-cd==0.1.0", "", ("--require-hashes", "-r", "requirements.txt")),
    ],
)
def test_jobs_install_mlship_from_its_source(
    source: str, folder: str, wanted: tuple[str, ...]
) -> None:
    assert arguments(source, ["gcp", "mlflow"], folder) == wanted
    project = installation.with_requirements(wanted)
    assert project[-2:] == ("-r", "requirements.txt")
    assert project.count("requirements.txt") == 1


WHEEL_OF_ANOTHER = "./vendor/pandas-2.3-py3-none-any.whl\n"
PINNED = f"""# compiled
mlship-cd[all]==0.1.0 \\
    --hash=sha256:{SHA256} \\
    --hash=sha256:{SHA256}
numpy==2.4.0 --hash=sha256:{SHA256}  # via mlship-cd
"""


def test_a_version_counts_where_everything_beside_it_is_pinned_by_hashes() -> None:
    assert installation.hashed_version(of_text(PINNED)) == "mlship-cd==0.1.0"
    assert installation.hashed_version(of_text(f"{PINNED}pandas==2.3\n")) == ""
    assert installation.hashed_version(of_text(PINNED.replace("mlship-cd", "pandas"))) == ""
    assert installation.hashed_version(of_text("")) == ""
    known = Installation(origin=Origin(kind="index", version="0.1.0"), reason="no hash")
    assert installation.source_for_jobs(None, of_text(PINNED), known) == "mlship-cd==0.1.0"
    elsewhere = Installation(origin=Origin(kind="git"), source=GIT)
    assert installation.source_for_jobs(None, of_text(PINNED), elsewhere) == "mlship-cd==0.1.0"
    assert installation.source_for_jobs(None, of_text("pandas\n"), elsewhere) == GIT
    assert (
        installation.source_for_jobs("mlship-cd==0.1.0", of_text(PINNED), known)
        == "mlship-cd==0.1.0"
    )
    with pytest.raises(ConfigError, match=r"mlship-cd==0\.2\.0 has no hash") as caught:
        installation.source_for_jobs("mlship-cd==0.2.0", of_text(PINNED), known)
    assert "requirements.txt" in caught.value.hint


@pytest.mark.parametrize("line", ["mlship[all]", "mlship", "mlship-cd", "mlship-cd[all]==0.1.0"])
def test_requirements_that_are_not_verifiably_ours_are_refused(line: str) -> None:
    text = f"pandas\n\n{line}  # the pipeline\n"
    here = Origin(kind="folder", url="/home/ada/mlship", is_editable=True)
    with pytest.raises(ConfigError, match=r"requirements\.txt:3: ") as caught:
        installation.check_requirements(of_text(text), here)
    assert 'pip install -e "/home/ada/mlship[all]"' in caught.value.hint


def test_requirements_that_do_not_concern_mlship_are_left_alone() -> None:
    here = Origin(kind="index", version="0.1.0")
    for text in (
        "",
        "mlship-plugin\nmlshipx==1\n-r other.txt\n",
        f"mlship-cd @ {GIT}\n",
        PINNED,
        WHEEL_OF_ANOTHER,
    ):
        installation.check_requirements(of_text(text), here)


@pytest.mark.parametrize(
    "text",
    [
        "pip install mlship",
        "python -m pip install --upgrade mlship",
        "run: uv pip install 'mlship[all]==0.1.0' -r requirements.txt",
        "uv add mlship",
        "uv pip install --system mlship # the pipeline",
        "uvx --with mlship pytest",
        "pip install 'mlship>=0.1'",
        "mlship==0.1.0",
        "mlship~=0.1",
        "mlship[all]",
        "mlship @ git+https://example.org/mlship@main",
        'dependencies = ["mlship>=0.1"]',
    ],
)
def test_text_that_asks_for_the_stranger_is_found(text: str) -> None:
    assert installation.strangers_named(f"a line\n{text}\n") == [text]


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'mlship-cd[all]==0.1.0'",
        f"pip install 'mlship-cd[all] @ {GIT}'",
        "pip install ./tools/mlship[all]",
        'pip install -e "/home/ada/mlship[gcp]"',
        "mlship install",
        "run: mlship train",
        "uv run mlship train",
        "uvx --from ./tools/mlship mlship train",
        "--set workflows.mlship=.",
        "install mlship first, from where you have it",
        "pip install -r requirements.txt && mlship doctor",
        "iris@3f9a0c12be77",
    ],
)
def test_text_that_asks_for_ours_or_for_nothing_is_not(text: str) -> None:
    assert installation.strangers_named(text) == []


def test_other_distributions_that_provide_the_module_or_the_command_are_found() -> None:
    ours = {"mlship": ["mlship-cd"], "yaml": ["PyYAML"]}
    assert installation.others(ours, [("mlship", "mlship_cd")]) == ()
    assert installation.others(ours | {"mlship": ["mlship", "mlship-cd"]}, []) == ("mlship",)
    assert installation.others(ours, [("mlship", "other"), ("pip", "pip")]) == ("other",)


@pytest.mark.parametrize(
    ("names", "files", "commands", "others"),
    [
        (["other"], "mlship/__init__.py,,\nother.txt,,\n", "", ("other",)),
        (["other"], "other.py,,\n", "mlship = other:main\n", ("other",)),
        (["other"], "other/mlship.py,,\n", "mlships = other:main\n", ()),
        (["mlship_cd"], "mlship/__init__.py,,\n", "mlship = mlship.cli.main:main\n", ()),
        (["two", "one", "mlship_cd"], "mlship/cli/main.py,,\n", "", ("one", "two")),
    ],
)
def test_others_are_read_from_what_is_installed(
    names: list[str],
    files: str,
    commands: str,
    others: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in names:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "RECORD").write_text(files)
        (folder / "entry_points.txt").write_text(f"[console_scripts]\n{commands}")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert distributions.others() == others
