"""Pushes to a real registry through a proxy in front of it that fails three requests in ten.

Each push goes to a repository of its own, so that every blob is sent. Then pushes are killed at
points that are spread over their time: no tag may name an incomplete image, and a second push must
end with the same digest. The registry is the one at localhost:5000, with library/python.

    python benchmarks/pushes.py --pushes 50 --kills 20
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx

from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.domain.image import Image
from mlship.errors import MlshipError
from tests.harness.images import MANIFEST, Wheels, a_release, oci_images
from tests.harness.places import Notes
from tests.stand_ins.faulty import ALL_KINDS, Proxy, Storm, before

REGISTRY = "http://localhost:5000"
BASE = "library/python:3.11-slim"


def push(folder: Path, host: str, repository: str) -> Image:
    """Build the image of one release, whose layers a folder has after the first time; push it."""
    config = ImageConfig(repository=f"{host}/{repository}", base=f"{host}/{BASE}")
    registries = Registries(config, {})
    with tempfile.TemporaryDirectory() as temporary, closing(registries):
        release, bundle = a_release(Path(temporary) / "bundle")
        images = oci_images(config, folder / "images", registries, Notes(), Wheels())
        image = images.build(release, bundle, base=None)
        images.push(image)
    return image


def stored(repository: str, tag: str) -> str:
    """Return the digest of a tag, empty if there is none, `incomplete` if a part is missing."""
    with httpx.Client(base_url=f"{REGISTRY}/v2/{repository}") as client:
        answer = client.get(f"/manifests/{tag}", headers={"Accept": MANIFEST})
        if answer.status_code == 404:
            return ""
        document = json.loads(answer.content)
        for part in (document["config"], *document["layers"]):
            if client.head(f"/blobs/{part['digest']}").status_code != 200:
                return "incomplete"
        return answer.headers["Docker-Content-Digest"]


def in_trouble(proxy: Proxy, count: int, seed: int) -> None:
    """Push so many times, four at once, and print what arrived."""
    proxy.storm = Storm(share=0.3, seed=seed, kinds=ALL_KINDS)

    def once(number: int) -> tuple[str, float]:
        repository, began = f"pushes/{uuid.uuid4().hex}", time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                image = push(Path(folder), proxy.host, repository)
            except MlshipError as error:
                return f"push {number}: {error}", time.monotonic() - began
        return stored(repository, image.tag), time.monotonic() - began

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(once, range(count)))
    digests = Counter(digest for digest, _ in results)
    seconds = sorted(taken for _, taken in results)
    print(f"{count} pushes, {len(digests)} different results: {dict(digests)}")
    print(f"seconds: median {seconds[len(seconds) // 2]:.1f}, longest {seconds[-1]:.1f}")
    print(f"requests: {dict(proxy.storm.counts)}")
    proxy.storm = None


def killed(proxy: Proxy, points: int) -> None:
    """Kill pushes at points that are spread over their time; print what they left."""
    results: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seen = len(proxy.seen)
        image = push(folder, proxy.host, f"pushes/{uuid.uuid4().hex}")
        requests = len(proxy.seen) - seen
        for number in range(points):
            repository = f"pushes/{uuid.uuid4().hex}"
            command = [sys.executable, __file__, "--one", str(folder), proxy.host, repository]
            limit = len(proxy.seen) + 1 + number * requests // points
            child = subprocess.Popen(command)
            while child.poll() is None and len(proxy.seen) < limit:
                time.sleep(0.001)
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
            child.wait()
            left = stored(repository, image.tag)
            push(folder, proxy.host, repository)
            whole = stored(repository, image.tag) == image.digest
            left = {"": "no tag", image.digest: "whole"}.get(left, left)
            results[f"{left}, then {'the same digest' if whole else 'ANOTHER'}"] += 1
    print(f"killed at {points} of {requests} requests: {dict(results)}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=50, choices=range(1, 201))
    parser.add_argument("--kills", type=int, default=20, choices=range(1, 101))
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "HOST", "REPOSITORY"))
    options = parser.parse_args()
    if options.one:
        folder, host, repository = options.one
        push(Path(folder), host, repository)
        return
    with before(REGISTRY) as proxy:
        killed(proxy, options.kills)
        print(f"seed {options.seed}")
        in_trouble(proxy, options.pushes, options.seed)


if __name__ == "__main__":
    main()
