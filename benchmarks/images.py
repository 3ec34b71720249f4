"""An image of a new model on a cold machine: mlship against `docker build` and `docker push`.

Only the model has changed, not the dependencies. "Cold" means that the machine has no layers and no
caches: mlship's folder is new, and Docker is a separate engine with an empty folder (this needs
root, dockerd and a registry at localhost:5000 with library/python:3.11-slim). Both push the same
files to the same registry, through a proxy that counts bytes. Docker gets the unpacked dependencies
beside its Dockerfile, so that its build only copies them. The time to download them without caches
is measured separately, and included in a second ratio.

Then two clones in two folders, the second with another user id, build images of the same release
again: their digests must be equal. The image runs read-only, as nobody, five times.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from mlship.adapters.images.build import contents, wheels
from mlship.domain import bundle as bundles

ROOT = Path(__file__).parents[1]
BASE = "library/python:3.11-slim"
ANOTHER = 1234
BRIDGE = "mlship-bench"
STEPS = """
import json, sys
from pathlib import Path
from mlship import wire
from mlship.cli.progress import Lines
from mlship.steps.containerize import containerize
from mlship.steps.push import push
root = Path(sys.argv[1])
config = wire.read(root / "mlship.yaml", wire.environment(), sys.argv[4:]).config
pipeline = wire.assemble(config, root, Lines(), wire.environment())
release = pipeline.release(sys.argv[3])
made = containerize(pipeline, release).evidence.facts
pushed = push(pipeline, release).evidence.facts if sys.argv[2] == "push" else {}
print(json.dumps({"made": made, "pushed": pushed, "bundle": str(pipeline.bundle(release))}))
"""
DOCKERFILE = """
FROM {base}
COPY opt /opt
COPY bundle /bundle
ENV PYTHONPATH=/opt/mlship/runtime:/opt/mlship/dependencies
USER 65532:65532
ENTRYPOINT ["python3", "-P", "-m", "mlship.runtime", "serve", "--bundle", "/bundle"]
"""


class Door:
    """A proxy to the registry that counts the bytes in each direction."""

    def __init__(self) -> None:
        self.sent = self.received = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Count from 0 again."""
        self.sent = self.received = 0

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            server = socket.create_connection(("127.0.0.1", 5000))
            for one, other, is_sent in ((client, server, True), (server, client, False)):
                arguments = (one, other, is_sent)
                threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, is_sent: bool) -> None:  # noqa: FBT001
        try:
            while data := one.recv(1 << 18):
                if is_sent:
                    self.sent += len(data)
                else:
                    self.received += len(data)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            one.close()


def run(*argv: str, cwd: Path | None = None, **environ: str) -> str:
    """Run a program; return its output."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{argv}: {done.stdout[-1000:]}{done.stderr[-3000:]}"
    return done.stdout


def steps(root: Path, what: str, flags: list[str], *before: str) -> dict[str, Any]:
    """Run containerize, and push where told, in a process of its own; return their facts.

    The release is named, as one job of a workflow names it to the next.
    """
    release = (root / ".mlship" / "release").read_text()
    told = run(*before, sys.executable, "-c", STEPS, str(root), what, release, *flags)
    found = json.loads(told)
    assert isinstance(found, dict)
    return found


def new_release(root: Path, penalty: float) -> None:
    """Commit another parameter and train."""
    config = root / "mlship.yaml"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(f"    C: {penalty}" if "    C:" in x else x for x in lines) + "\n")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    run("git", "add", "-A", cwd=root)
    run("git", *who, "commit", "-qm", f"Train with C = {penalty}", cwd=root)
    told = json.loads(run(sys.executable, "-m", "mlship", "--json", "train", cwd=root))
    (root / ".mlship" / "release").write_text(told["release"])


@contextmanager
def cold_engine(folder: Path) -> Iterator[str]:
    """Run an empty Docker engine; yield its address."""
    address = f"unix://{folder}/docker.sock"
    argv = ["dockerd", "--host", address, "--data-root", str(folder / "data")]
    argv += ["--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")]
    # Its own bridge: without one it would take the bridge of the machine's engine away.
    argv += ["--bridge", BRIDGE, "--iptables=false", "--ip-masq=false", "--ip-forward=false"]
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", "10.254.254.1/24", "dev", BRIDGE)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(
            ["docker", "--host", address, "info"], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
        run("ip", "link", "delete", BRIDGE)


def docker_side(address: str, context: Path, door: Door, repository: str) -> dict[str, float]:
    """Build and push with an engine; return seconds and bytes."""
    name = f"{door.host}/{repository}:docker"
    docker = ("docker", "--host", address)
    door.reset()
    started = time.monotonic()
    run(*docker, "build", "--quiet", "--tag", name, str(context), DOCKER_BUILDKIT="0")
    built = time.monotonic()
    run(*docker, "push", "--quiet", name)
    ended = time.monotonic()
    return {
        "build": built - started,
        "push": ended - built,
        "seconds": ended - started,
        "sent": door.sent,
        "received": door.received,
    }


def mlship_side(root: Path, door: Door, flags: list[str]) -> dict[str, float]:
    """Containerize and push in a new process on a machine without images; return the same."""
    shutil.rmtree(root / ".mlship" / "images", ignore_errors=True)
    door.reset()
    started = time.monotonic()
    told = steps(root, "push", flags)
    seconds = time.monotonic() - started
    return {
        "build": told["made"]["seconds"],
        "push": told["pushed"]["seconds"],
        "seconds": seconds,
        "sent": door.sent,
        "received": door.received,
    }


def fetch_seconds(root: Path, into: Path) -> float:
    """Fetch the packages of the image without a cache; return the seconds."""
    folder = next(path.parent for path in root.glob(".mlship/bundles/*/bundle.json"))
    started = time.monotonic()
    os.environ["PIP_NO_CACHE_DIR"] = "1"
    into.mkdir()
    wheels.fetch(contents.lock(bundles.read(folder), "linux/amd64"), into)
    return time.monotonic() - started


def docker_context(root: Path, into: Path, flags: list[str]) -> None:
    """Lay the files of mlship's image out beside a Dockerfile that copies them."""
    told = steps(root, "build", flags)
    into.mkdir()
    layers = told["made"]["platforms"][0]["layers"]
    door = httpx.Client(base_url=f"http://{flags[1].partition('=')[2].partition('/')[0]}")
    repository = flags[1].partition("=")[2].partition("/")[2]
    for layer in layers[1:]:
        digest = layer["digest"]
        path = root / ".mlship" / "images" / "blobs" / "sha256" / digest.partition(":")[2]
        if not path.exists():
            path = into.parent / "layer"
            blob = door.get(f"/v2/{repository}/blobs/{digest}").raise_for_status()
            path.write_bytes(blob.content)
        with tarfile.open(path) as archive:
            archive.extractall(into, filter="data")
    base = flags[0].partition("=")[2]
    (into / "Dockerfile").write_text(DOCKERFILE.format(base=base))
    door.close()


def ready_seconds(reference: str) -> list[float]:
    """Run an image five times with the restrictions of a cluster; return the seconds to ready."""
    run("docker", "pull", "--quiet", reference)
    found = []
    strict = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--memory", "512m"]  # noqa: S108
    for _ in range(5):
        started = time.monotonic()
        name = run("docker", "run", "-d", *strict, "-p", "127.0.0.1::8080", reference).strip()
        port = run("docker", "port", name, "8080").split()[0].rpartition(":")[2]
        while time.monotonic() - started < 30:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.01)
        found.append(time.monotonic() - started)
        run("docker", "rm", "--force", name)
    return found


def same_digest(root: Path, folder: Path, flags: list[str]) -> None:
    """Make the release again in two clones, the second as another user; compare digests."""
    other = ("unshare", "--user", f"--map-user={ANOTHER}", f"--map-group={ANOTHER}")
    found = []
    for name, before in (("a clone", ()), ("deeper/another", other)):
        clone = folder / name
        run("git", "clone", "-q", str(root), str(clone))
        shutil.copytree(
            root / ".mlship", clone / ".mlship", ignore=shutil.ignore_patterns("images")
        )
        if before:
            for path in clone.rglob("*"):
                path.chmod(0o700)
        made = steps(clone, "build", flags, *before)["made"]
        found.append(made["digest"])
        user = run(*before, "id", "-u").strip()
        print(f"  {made['digest']}  {name}, user {user}")
    assert len(set(found)) == 1, "the same release, two digests"


def show(name: str, one: dict[str, float]) -> None:
    """Print a line of figures."""
    print(
        f"{name:<28}{one['seconds']:7.2f} s ({one['build']:.2f} + {one['push']:.2f})"
        f"{one['sent'] / 1e6:10.3f} MB sent{one['received'] / 1e6:10.3f} MB received"
    )


def compare(
    ours: list[dict[str, float]], theirs: list[dict[str, float]], fetching: list[float]
) -> None:
    """Print the ratios, the least and the greatest of the rounds."""
    rounds = list(zip(ours, theirs, fetching, strict=True))
    ratios = {
        "faster, with the start of a process": [b["seconds"] / a["seconds"] for a, b, _ in rounds],
        "faster, with the fetching": [(b["seconds"] + f) / a["seconds"] for a, b, f in rounds],
        "faster, the work alone": [b["seconds"] / (a["build"] + a["push"]) for a, b, _ in rounds],
        "fewer bytes sent": [b["sent"] / a["sent"] for a, b, _ in rounds],
    }
    for what, found in ratios.items():
        print(f"{min(found):.0f} to {max(found):.0f} x {what}")


def main() -> None:
    """Measure both sides and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    door, repository = Door(), f"bench/{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory(prefix="images-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = folder / "iris"
        root.mkdir()
        flags = [f"image.base={door.host}/{BASE}", f"image.repository={door.host}/{repository}"]
        run(sys.executable, "-m", "mlship", "init", "--example", "iris", cwd=root)
        run("git", "init", "-q", "-b", "develop", cwd=root)
        new_release(root, 1.0)
        first = mlship_side(root, door, flags)
        show("mlship, first of all", first)
        ours, theirs, fetching = [], [], []
        for number in range(options.rounds):
            new_release(root, 2.0 + number)
            ours.append(mlship_side(root, door, flags))
            show("mlship, new model", ours[-1])
            context = folder / f"context-{number}"
            docker_context(root, context, flags)
            with (
                tempfile.TemporaryDirectory(prefix="engine-") as engine,
                cold_engine(Path(engine)) as address,
            ):
                theirs.append(docker_side(address, context, door, f"{repository}-{number}"))
            show("docker build, docker push", theirs[-1])
            fetching.append(fetch_seconds(root, folder / f"wheels-{number}"))
            print(f"{'  fetching its packages':<28}{fetching[-1]:7.2f} s")
        compare(ours, theirs, fetching)
        print("the same release in two clones:")
        same_digest(root, folder, flags)
        told = steps(root, "push", flags)
        size = sum(layer["size"] for layer in told["made"]["platforms"][0]["layers"])
        seconds = ready_seconds(told["pushed"]["reference"])
        unpacked = run("docker", "inspect", told["pushed"]["reference"], "--format", "{{.Size}}")
        print(f"image: {size / 1e6:.0f} MB compressed, {int(unpacked) / 1e6:.0f} MB unpacked")
        print(f"ready after {', '.join(f'{one:.2f}' for one in seconds)} s")
        run("docker", "rmi", "--force", told["pushed"]["reference"])


if __name__ == "__main__":
    main()
