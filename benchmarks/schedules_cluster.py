"""A CronJob in a real cluster, whose controller is killed and started again while a tick runs.

    TEST_KUBECONFIG=KUBECONFIG python benchmarks/schedules_cluster.py \
        --controller /var/lib/kubenode/NAME/run/kube-controller-manager.pid --netns kube-NAME

The cluster must be one of its own, because all of its controllers stand still meanwhile. The
objects are those of `mlship schedules render`. The pod asks this machine to run the tick, where it
is a process of `mlship schedules run` with a real ledger, which the pods of a test could not share.
Each minute has to have one record, whatever the controller did.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mlship.config.layers import from_yaml, resolve
from mlship.domain import shapes
from mlship.domain.ticks import Ticked
from mlship.templates import schedules
from tests.harness import clusters
from tests.harness.kills import Project
from tests.harness.samples import nothing
from tests.harness.samples import release as sample

SECTION = """
name: iris
data: {{train: train.csv, test: test.csv, target: species}}
model: {{train: "pipeline:train"}}
store: {{kind: directory}}
schedules:
  often: {{run: evaluate, cron: '* * * * *', where: kubernetes, folder: /srv, pod: {pod}}}
"""
ASK = (
    "import sys, urllib.request; "
    "sys.exit(int(urllib.request.urlopen(sys.argv[1] + sys.argv[-1], timeout=120).read()))"
)
LONG = 15.0
"""Seconds of a tick before its commands."""


class Controller:
    """The controller manager of a cluster.

    Args:
        file: with its process id.
        netns: the name of its network namespace.
    """

    def __init__(self, file: Path, netns: str) -> None:
        self._file = file
        self._netns = netns
        pid = int(file.read_text())
        self._argv = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        self._environment = dict(
            part.split("=", 1)
            for part in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if "=" in part
        )

    def kill(self) -> None:
        """Kill it."""
        os.kill(int(self._file.read_text()), signal.SIGKILL)

    def start(self) -> None:
        """Start it as it was started before."""
        argv = ["nsenter", f"--net=/run/netns/{self._netns}", "--", *self._argv]
        process = subprocess.Popen(
            argv,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._file.write_text(str(process.pid))


class Ticks(ThreadingHTTPServer):
    """Runs `mlship schedules run` for the pods that ask."""

    def __init__(self, host: str, folder: Path) -> None:
        self.asked: list[str] = []
        self.runs = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/")
                server.asked.append(name)
                server.runs += 1
                time.sleep(LONG)
                argv = [sys.executable, "-m", "mlship", "schedules", "run", "often", "--at", name]
                code = subprocess.run(argv, cwd=folder, check=False).returncode
                server.runs -= 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"%d" % code)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__((host, 0), Handler)


def measure(controller: Controller, kills: int) -> dict[str, Any]:
    """Kill the controller while ticks run, and count records."""
    with clusters.cluster() as place, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = Project(folder)
        server = Ticks(place.host(), project.folder)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        script = (
            f'#!/bin/sh\nexec python3 -c "{ASK}" http://{place.host()}:{server.server_port}/ "$@"\n'
        )
        (folder / "mlship").write_text(script)
        (folder / "mlship").chmod(0o755)
        base = "FROM localhost:5000/library/python:3.11-slim\nWORKDIR /srv\n"
        (folder / "Dockerfile").write_text(f"{base}COPY mlship /usr/local/bin/mlship\n")
        (folder / ".dockerignore").write_text("*\n!mlship\n")
        image = clusters.built("localhost:5000/iris-jobs:controller", folder)
        pod = f"{{image: '{image}', namespace: {place.namespace}, cpu: 10m, memory: 64Mi}}"
        text = SECTION.format(pod=pod)
        (project.folder / "mlship.yaml").write_text(text)
        project.pipeline().learn(sample("a"), "train", "passed", nothing("train"))
        schedule = resolve([from_yaml(text, "mlship.yaml")]).config.schedules["often"]
        assert schedule.pod is not None
        manifest = schedules.cron_job("iris", "often", schedule, schedule.pod)
        path = f"/apis/batch/v1/namespaces/{place.namespace}/cronjobs"
        place.kubectl("POST", path, json=manifest)
        for number in range(kills):
            before = len(server.asked)
            clusters.until(lambda before=before: len(server.asked) > before, seconds=150)  # type: ignore[misc]  # mypy knows no default of a lambda
            time.sleep(LONG / 3)
            controller.kill()
            # Every other time it is away at the next planned time, too.
            time.sleep(60 if number % 2 else 5)
            controller.start()
        clusters.until(lambda: len(server.asked) > kills and not server.runs, seconds=180)
        manifest["spec"]["suspend"] = True
        place.kubectl("PUT", f"{path}/{manifest['metadata']['name']}", json=manifest)
        clusters.until(lambda: not server.runs, seconds=60)
        server.shutdown()
        facts = [
            shapes.of(record, Ticked)
            for record in project.pipeline().read()
            if record.evidence.step == "tick"
        ]
    planned = Counter(str(each.planned) for each in facts)
    return {
        "kills of the controller": kills,
        "pods that asked": len(server.asked),
        "ticks that a pod asked for": len(set(server.asked)),
        "ticks with a record": len(planned),
        "ticks with two": sum(count > 1 for count in planned.values()),
        "of them missed": sum(each.outcome == "missed" for each in facts),
        "minutes without a record": _gaps(facts),
    }


def _gaps(facts: list[Ticked]) -> int:
    times = sorted(each.planned.timestamp() for each in facts if each.planned)
    return int((times[-1] - times[0]) / 60) + 1 - len(set(times)) if times else 0


def main() -> None:
    """Print the figures; exit with 1 if a tick has no record, or two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--controller", type=Path, required=True)
    parser.add_argument("--netns", required=True)
    parser.add_argument("--kills", type=int, default=4)
    arguments = parser.parse_args()
    found = measure(Controller(arguments.controller, arguments.netns), arguments.kills)
    print(json.dumps(found, indent=2))
    sys.exit(bool(found["ticks with two"] or found["minutes without a record"]))


if __name__ == "__main__":
    main()
