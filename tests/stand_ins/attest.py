"""What the stand-in for actions/attest runs: the job's authority attests what its inputs say."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from tests.harness.sigstore import CLAIMS, Authority


def main() -> None:
    """Write a bundle for this job, and set the output of the step."""
    environment = os.environ
    folder = Path(environment["STAND_IN_SIGSTORE"])
    repository = f"https://github.com/{environment['GITHUB_REPOSITORY']}"
    ref = environment["GITHUB_REF"]
    workflow = f"{repository}/.github/workflows/{environment['GITHUB_WORKFLOW']}.yml@{ref}"
    claims = {**CLAIMS, 9: workflow, 12: repository, 14: ref, 18: workflow}
    said = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": environment["NAME"],
                "digest": {"sha256": environment["DIGEST"].removeprefix("sha256:")},
            }
        ],
        "predicateType": environment["TYPE"],
        "predicate": json.loads(Path(environment["PREDICATE"]).read_text("utf-8")),
    }
    authority = Authority.kept(folder)
    now = datetime.now(UTC).replace(microsecond=0)
    bundle = authority.bundle(json.dumps(said).encode(), claims, subject=workflow, time=now)
    path = Path(environment["RUNNER_TEMP"]) / "attestation.json"
    path.write_text(json.dumps(bundle))
    with Path(environment["GITHUB_OUTPUT"]).open("a") as outputs:
        outputs.write(f"bundle-path={path}\n")


if __name__ == "__main__":
    main()
