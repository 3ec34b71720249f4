"""The CPU time of `mlship status` on a large ledger, compared with a small one.

A long history (releases are trained, tested, deployed, evaluated, approved, promoted, rolled back,
retired) is written as signed records of realistic size: into a folder, and into an MLflow database,
which with --server is also read through a tracking server. With --registry, it is also written into
the container registry at localhost:5000, and read by a machine that has read it before and by a new
one. Then `mlship status --json` runs in a new process, and its time is measured: that of the CPU
(user and system), and in all.

    python benchmarks/ledger.py [--records 10000] [--server] [--registry] [--profile]
"""

import argparse
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mlship.adapters.artifacts.artifacts import SharedArtifacts  # noqa: E402
from mlship.adapters.artifacts.collection import Collection  # noqa: E402
from mlship.adapters.images.registry.registries import Registries  # noqa: E402
from mlship.adapters.ledgers.mlflow import MlflowLedger, as_run  # noqa: E402
from mlship.config.project import ImageConfig  # noqa: E402
from mlship.domain import digests  # noqa: E402
from mlship.domain.digests import Digest  # noqa: E402
from mlship.domain.evidence import Record, decode, encode  # noqa: E402
from mlship.domain.image import reference  # noqa: E402
from mlship.domain.release import Release  # noqa: E402
from tests.harness import tracking  # noqa: E402
from tests.harness.signing import HERE  # noqa: E402

LIMIT: Final = 1.0
RUNS: Final = 5
SMALL: Final = 43
CONFIG: Final = """\
name: iris
data: {{train: train.csv, test: test.csv, target: species}}
model: {{train: "pipeline:train"}}
store: {{kind: directory}}
ledger: {ledger}
"""

Stored = Sequence[tuple[Record, bytes]]


def main() -> None:
    """Write the ledgers, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--server", action="store_true", help="measure a tracking server too")
    parser.add_argument("--registry", action="store_true", help="measure a registry too")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    small, large = list(islice(story(), SMALL)), list(islice(story(), options.records))
    kinds = ["directory", "database", *(["server"] if options.server else [])]
    kinds += ["registry", "registry, anew"] if options.registry else []
    print(f"{'ledger':20} {'records':>8} {'CPU seconds':>12} {'seconds':>8}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        figures = [
            measured(kind, Path(place), (small, large), profile=options.profile) for kind in kinds
        ]
    sys.exit(any(seconds > LIMIT for seconds in figures))


def story() -> Iterator[tuple[Record, bytes]]:
    """Repeat the history of the recorded ledger, each time with other releases."""
    lines = (ROOT / "tests" / "recorded" / "ledger.jsonl").read_bytes().splitlines()
    told = [decode(line).evidence for line in lines]
    span = told[-1].time - told[0].time + timedelta(minutes=1)
    parents: tuple[Digest, ...] = ()
    for turn in range(sys.maxsize):
        for evidence in told:
            data = encode(
                msgspec.structs.replace(
                    evidence,
                    release=another(evidence.release, turn),
                    time=evidence.time + turn * span,
                    parents=parents,
                ),
                HERE,
            )
            record = decode(data)
            parents = (record.digest,)
            yield record, data


def another(release: Release, turn: int) -> Release:
    """Return a release with other data."""
    return msgspec.structs.replace(release, data=digests.of_value([release.data, turn]))


def measured(kind: str, folder: Path, ledgers: tuple[Stored, Stored], *, profile: bool) -> float:
    """Print the times of the small and the large ledger, and their ratio; return the large one."""
    seconds = []
    for stored in ledgers:
        project = folder / f"{kind}-{len(stored)}"
        (project / ".mlship").mkdir(parents=True)
        if kind == "server":
            in_database(project, stored)
            with tracking.server(project / ".mlship") as uri:
                configure(project, f"{{kind: mlflow, uri: {uri!r}}}")
                seconds.append(status(project, profile=profile))
        elif kind.startswith("registry"):
            in_registry(project, stored)
            forgets = kind == "registry, anew"
            seconds.append(status(project, profile=profile, forgets=forgets))
        else:
            (in_folder if kind == "directory" else in_database)(project, stored)
            seconds.append(status(project, profile=profile))
        cpu, wall = seconds[-1]
        print(f"{kind:20} {len(stored):8} {cpu:12.2f} {wall:8.2f}", flush=True)
    print(f"{kind:20} {'ratio':>8} {seconds[1][0] / seconds[0][0]:12.1f}", flush=True)
    return seconds[1][0]


def in_folder(project: Path, stored: Stored) -> None:
    """Write records in the format of a ledger in a directory."""
    configure(project, "{kind: directory}")
    for record, data in stored:
        digits = record.digest.removeprefix("sha256:")
        path = project / ".mlship" / "ledger" / digits[:2] / f"{digits}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def in_database(project: Path, stored: Stored) -> None:
    """Write records as runs in MLflow's database; all except the first by SQL, to be fast."""
    database = project / ".mlship" / "mlflow.db"
    uri = f"sqlite:///{database}"
    configure(project, f"{{kind: mlflow, uri: {uri!r}}}")
    MlflowLedger(uri, "iris", project / ".mlship" / "files", {}, by=HERE).append(
        stored[0][0].evidence, after=()
    )
    with closing(sqlite3.connect(database)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
        first = dict(zip(columns, connection.execute("SELECT * FROM runs").fetchone(), strict=True))
        slots = ", ".join("?" * len(columns))
        for record, data in stored[1:]:
            run = uuid.uuid4().hex
            row = {**first, "run_uuid": run, "name": str(record.evidence.step)}
            connection.execute(f"INSERT INTO runs VALUES ({slots})", list(row.values()))  # noqa: S608
            connection.executemany(
                "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
                [(key, value, run) for key, value in as_run(record, data).tags.items()],
            )


def in_registry(project: Path, stored: Stored) -> None:
    """Add records to a new repository of the registry, one after the other, as commands do."""
    where = f"localhost:5000/benchmark/{uuid.uuid4().hex}"
    configure(project, f"{{kind: registry, uri: {where!r}}}")
    registries = Registries(ImageConfig(repository=where), {})
    cache = project / ".mlship" / "elsewhere"
    collection = Collection(SharedArtifacts(registries, reference(where), "iris", cache), "record")
    for _, data in stored:
        collection.add(data)
    registries.close()


def configure(project: Path, ledger: str) -> None:
    """Write the project's configuration."""
    (project / "mlship.yaml").write_text(CONFIG.format(ledger=ledger))


def status(project: Path, *, profile: bool, forgets: bool = False) -> tuple[float, float]:
    """Return the median seconds of CPU and in all of the status; the first run is a warm-up.

    With `forgets`, each run is that of a machine that has read nothing before.
    """
    program = [sys.executable, "-m", "mlship", "status", "--json"]
    if profile:
        program[1:1] = ["-m", "cProfile", "-s", "tottime"]
        shown = subprocess.run(program, cwd=project, check=True, capture_output=True, text=True)
        start = shown.stdout.index("function calls")
        print("\n".join(shown.stdout[start:].splitlines()[:40]))
    # An installed program has its modules compiled; the first run does it here.
    environ = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    seen = project / ".mlship" / "seen"
    environ["XDG_STATE_HOME"] = str(seen)
    seconds, passed = [], []
    for _ in range(RUNS + 1):
        if forgets:
            shutil.rmtree(project / ".mlship" / "registry", ignore_errors=True)
            shutil.rmtree(seen, ignore_errors=True)
        began = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, *program[-4:]]
        subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, env=environ)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        passed.append(time.monotonic() - began)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return statistics.median(seconds[1:]), statistics.median(passed[1:])


if __name__ == "__main__":
    main()
