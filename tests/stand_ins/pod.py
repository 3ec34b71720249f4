"""The entry point of a test image: the stand-in for the runtime, told by the environment.

RELEASE and BEHAVIOUR (JSON, as tests/stand_ins/runtime.py describes it, and `megabytes` to use
before it starts) are baked into the image; MLSHIP_SLOT and MLSHIP_LOG come from the pod.
"""

import json
import os
import sys
from pathlib import Path

from tests.stand_ins import runtime


def main() -> int:
    behaviour = json.loads(os.environ.get("BEHAVIOUR", "{}"))
    ballast = bytearray(os.urandom(1024) * 1024 * int(behaviour.get("megabytes", 0)))
    folder = Path("/tmp/bundle")  # noqa: S108 (in the pod, a volume of its own)
    folder.mkdir(exist_ok=True)
    (folder / "stand-in.json").write_text(json.dumps(behaviour))
    options = {
        "--bundle": str(folder),
        "--release": os.environ.get("RELEASE", ""),
        "--name-of-release": os.environ.get("RELEASE", ""),
        "--digest": "",
        "--host": "0.0.0.0",  # noqa: S104 (in a pod)
        "--port": "8080",
        "--slot": os.environ["MLSHIP_SLOT"],
        "--log": os.environ["MLSHIP_LOG"],
        "--shutdown-seconds": "10",
    }
    arguments = [part for pair in options.items() for part in pair]
    code: int = runtime.main(["serve", *arguments])
    del ballast
    return code


if __name__ == "__main__":
    sys.exit(main())
