"""Take PostgreSQL away under load: is any acknowledged prediction missing afterwards, or twice?

Two replicas of a release of iris run behind the router of the local target, log to PostgreSQL and
spool (`observations.when_away: spool`). Requests arrive at a constant 100 per second. After 15 s,
the database is killed, and it is away for 30 s; half-way through, one replica gets SIGKILL. When it
is back, another one does. Load ends 15 s later. After the replicas have reported that nothing
is left to deliver, each prediction id that a client received is looked up in the table.

Two controls: `refuse` has no spool and shows the requests that are refused. `lost` answers without
writing to its spool and shows that missing predictions are detected.

    python benchmarks/spool.py --away 30
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import demo
import httpx
import psycopg
from durability import Tally, Users, kill

from mlship import wire
from mlship.adapters.observations.postgres import PostgresObservations
from mlship.adapters.targets.local import LocalTarget
from mlship.adapters.targets.local.state import Logging, Spooling
from mlship.adapters.targets.local.target import RUNTIME
from mlship.cli.progress import Lines
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Split, slot_of
from mlship.domain.release import Release
from mlship.steps.pipeline import Pipeline
from tests.harness import postgres
from tests.harness.postgres import Server

RATE = 100
STEADY = 15.0
"""Seconds of load before the database goes away, and after it is back."""
PATIENCE = 60.0
FORGETFUL = (
    "import os, sys; from mlship.runtime import spool; from mlship.runtime.__main__ import main; "
    "spool.Spool.append = lambda self, rows: None; sys.exit(main(sys.argv[1:], os.environ))"
)


class Callers(Users):
    """Users who remember who refused a request: a replica, or the router without one."""

    def named(self, answer: httpx.Response) -> str:
        """Return the name under which a refusal is counted."""
        if answer.headers["content-type"] == "application/json":
            return f"{answer.status_code} by a replica"
        return f"{answer.status_code} by the router: {answer.text[:60]}"


class Side(NamedTuple):
    """The responses to clients, and what the table has of the acknowledged predictions."""

    name: str
    tally: Tally
    missing: int
    twice: int
    reported: list[str]
    delivered_after: float

    def row(self) -> str:
        """Return it as a line."""
        failed = self.tally.failed
        got = len(self.tally.acknowledged)
        return (
            f"{self.name:8} {got + failed.total()} requests, {got} acknowledged, "
            f"{self.missing} of them missing, {self.twice} twice, {failed.total()} refused or "
            f"failed {dict(failed) or ''}; right after its return the database knew of "
            f"{' and '.join(self.reported) or 'no spool'}; nothing was left "
            f"{self.delivered_after:.1f} s after the load"
        )


def main() -> None:
    """Run the benchmark; exit with 1 if a prediction is missing or twice, or a control shows none.

    The password of the database is in PGPASSWORD, as for replicas in production.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--away", type=float, default=30.0, help="seconds without the database")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, postgres.server() as database:
        os.environ["PGPASSWORD"] = database.password
        folder = Path(temporary) / "iris"
        demo.new_repository(folder)
        demo.mlship(folder, "train")
        config = wire.read(folder / "mlship.yaml", os.environ, ()).config
        pipeline = wire.assemble(config, folder, Lines(), os.environ)
        release = pipeline.release(None, pipeline.read())
        forgetful = (sys.executable, "-P", "-c", FORGETFUL)
        spooled, lost, refused = (
            measure(pipeline, release, database, name, runtime, options.away)
            for name, runtime in (("spool", RUNTIME), ("lost", forgetful), ("refuse", RUNTIME))
        )
    is_kept = spooled.missing == spooled.twice == 0
    is_shown = (
        lost.missing > 0 and refused.tally.failed["503 by a replica"] > 0 and refused.missing == 0
    )
    print(f"spooling keeps every prediction once: {is_kept}; the controls lose some: {is_shown}")
    sys.exit(not (is_kept and is_shown))


def measure(
    pipeline: Pipeline,
    release: Release,
    database: Server,
    name: str,
    runtime: tuple[str, ...],
    away: float,
) -> Side:
    """Serve a release, take its database away under load, and count what is missing."""
    url = database.create(name)
    folder = pipeline.state / "targets" / name
    spool = Spooling(folder=str(pipeline.state / "spool" / name), max_mb=256)
    target = LocalTarget(
        name,
        folder,
        TargetConfig(replicas=2),
        Logging(
            place=url.replace(f":{database.password}@", "@"),
            spool=None if name == "refuse" else spool,
        ),
        pipeline.progress,
        runtime=runtime,
    )
    artifact = pipeline.artifact(release, "production", pipeline.read())
    slot = slot_of(release)
    observations = PostgresObservations(url, {}, "iris")
    try:
        target.deploy(release, artifact, slot, replicas=2)
        target.route(Split(weights={slot: 100}), expected=target.routes().revision)
        users = Callers(target.routes().endpoint, demo.flowers(pipeline.root)[0][0], RATE)
        time.sleep(STEADY)
        database.kill()
        for part in range(2):
            time.sleep(away / 2)
            if part == 0 and name == "spool":
                kill(folder, "replica", 0)
        database.start()
        # At once, while the other replica has not reported yet.
        reported = [
            f"{one.rows} rows{' (silent)' * one.is_silent}"
            for one in observations.spools({release.id})
        ]
        if name == "spool":
            kill(folder, "replica", 1)
        time.sleep(STEADY)
        tally = users.end()
        ended = time.monotonic()
        while any(one.rows or one.is_silent for one in observations.spools({release.id})):
            if time.monotonic() > ended + PATIENCE:
                break
            time.sleep(0.1)
        seconds = time.monotonic() - ended
    finally:
        target.down()
    with psycopg.connect(url) as connection:
        logged = Counter(id_ for (id_,) in connection.execute("SELECT id FROM mlship_predictions"))
    missing = sum(id_ not in logged for id_ in tally.acknowledged)
    twice = sum(count > 1 for count in logged.values())
    side = Side(name, tally, missing, twice, reported, seconds)
    print(side.row(), flush=True)
    return side


if __name__ == "__main__":
    main()
