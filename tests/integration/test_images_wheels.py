"""pip as it resolves wheels for another platform: found, missing, incomplete, offline."""

from pathlib import Path

import pytest

from mlship.adapters.images.build import wheels
from mlship.adapters.images.build.contents import Lock
from mlship.domain.image import Platform
from mlship.errors import ProjectError, UnavailableError
from tests.harness.images import wheel


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that is all that pip looks at."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def fetched(tmp_path: Path, *pins: str, platform: Platform = "linux/amd64") -> list[str]:
    into = tmp_path / platform.replace("/", "-")
    into.mkdir(exist_ok=True)
    return [
        path.name for path in wheels.fetch(Lock(pins=pins, platform=platform, python="3.11"), into)
    ]


def compiled(shelf: Path, tag: str) -> None:
    made = wheel(shelf, "fast", {"fast.py": b""})
    made.rename(shelf / f"fast-1.0-cp311-cp311-{tag}.whl")


def test_each_platform_gets_its_own_wheel(shelf: Path, tmp_path: Path) -> None:
    wheel(shelf, "plain", {"plain.py": b""})
    for tag in ("manylinux_2_28_x86_64", "manylinux2014_aarch64", "macosx_11_0_arm64"):
        compiled(shelf, tag)
    amd64 = fetched(tmp_path, "fast==1.0", "plain==1.0")
    assert amd64 == ["fast-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "plain-1.0-py3-none-any.whl"]
    arm64 = fetched(tmp_path, "fast==1.0", platform="linux/arm64")
    assert arm64 == ["fast-1.0-cp311-cp311-manylinux2014_aarch64.whl"]


def test_a_requirement_without_a_wheel_is_named_with_its_platform(
    shelf: Path, tmp_path: Path
) -> None:
    compiled(shelf, "manylinux_2_28_x86_64")
    with pytest.raises(
        ProjectError, match=r"fast==1\.0 has no wheel for Python 3\.11 on linux/arm64"
    ):
        fetched(tmp_path, "fast==1.0", platform="linux/arm64")
    with pytest.raises(ProjectError, match=r"nothing==0\.0\.1"):
        fetched(tmp_path, "fast==1.0", "nothing==0.0.1")


def test_a_lock_from_another_system_that_lacks_something_here_is_refused(
    shelf: Path, tmp_path: Path
) -> None:
    needs = """\
Requires-Dist: more>=1 ; sys_platform == 'linux'
Requires-Dist: windows-only ; sys_platform == 'win32'
Requires-Dist: extra-only ; extra == 'all'"""
    wheel(shelf, "plain", {"plain.py": b""}, needs)
    with pytest.raises(
        ProjectError, match=r"plain-1.0.* needs more>=1 on linux/amd64, which is not pinned"
    ):
        fetched(tmp_path, "plain==1.0")
    wheel(shelf, "more", {"more.py": b""})
    assert len(fetched(tmp_path, "more==1.0", "plain==1.0")) == 2


def test_an_index_that_does_not_answer_is_not_the_projects_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UnavailableError, match="cannot download from the package index"):
        fetched(tmp_path, "numpy==2.4.6")
