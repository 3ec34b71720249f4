"""What the verification of an image adds to a deployment, with a real registry.

The same release is deployed with and without it, in turns: without it, anybody's signature counts,
so that nothing can be verified. The target does nothing. The registry is the one at localhost:5000,
with library/python.

    python benchmarks/verification.py --rounds 20
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from mlship.adapters.images.registry.registries import Registries
from mlship.adapters.keys import Verifier
from mlship.config.project import ImageConfig, TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain.evidence import Step
from mlship.domain.release import Release
from mlship.domain.trust import OPEN, Signatures, Signer, Trust
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_staging
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, world
from tests.harness.images import Wheels, oci_images
from tests.harness.places import Notes
from tests.harness.samples import nothing
from tests.harness.signing import key

REGISTRY = "localhost:5000"


def pushed(folder: Path, registries: Registries, config: ImageConfig) -> tuple[Pipeline, Release]:
    """Train, sign, build and push a release with real documents."""
    signing = key()
    trust = Trust(signers=(Signer(name="ci", key=signing.public),), unsigned=False)
    target = TargetConfig(kind="kubernetes", kubernetes=KubernetesConfig(namespace="iris"))
    here = world(folder, msgspec.structs.replace(CONFIG, image=config, targets={"staging": target}))
    here.ledger.by = signing
    images = oci_images(config, folder / "images", registries, Notes(), Wheels())
    pipeline = dataclasses.replace(
        here.pipeline,
        images=lambda: images,
        signatures=Signatures(
            signing=signing, trust=lambda: trust, verify=Verifier({"HOME": str(folder)})
        ),
    )
    release = train(pipeline).evidence.release
    test: Step = "test"
    pipeline.learn(release, test, "passed", nothing(test))
    containerize(pipeline, release)
    push(pipeline, release)
    return pipeline, release


def seconds(deploy: Callable[[], object]) -> float:
    """Return how long a deployment takes."""
    began = time.perf_counter()
    deploy()
    return time.perf_counter() - began


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, choices=range(1, 201))
    options = parser.parse_args()
    name = f"{REGISTRY}/verification/{uuid.uuid4().hex}"
    config = ImageConfig(repository=name, base=f"{REGISTRY}/library/python:3.11-slim")
    registries = Registries(config, {})
    with tempfile.TemporaryDirectory() as folder, closing(registries):
        verifying, release = pushed(Path(folder), registries, config)
        anybody = dataclasses.replace(verifying.signatures, trust=lambda: OPEN)
        trusting = dataclasses.replace(verifying, signatures=anybody)
        with_it, without = [], []
        for _ in range(options.rounds):
            without.append(seconds(lambda: deploy_staging(trusting, release)))
            with_it.append(seconds(lambda: deploy_staging(verifying, release)))
    verified, plain = statistics.median(with_it), statistics.median(without)
    print(f"deployment, median of {options.rounds}: {verified * 1000:.0f} ms verified, ", end="")
    print(f"{plain * 1000:.0f} ms not; ratio {verified / plain:.1f}")
    print(f"verification adds {(verified - plain) * 1000:.0f} ms (bound 500)")


if __name__ == "__main__":
    main()
