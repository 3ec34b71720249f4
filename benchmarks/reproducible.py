"""Training the same inputs twice: the release and the bundle must be identical.

Two clones of one repository in two folders, with different hash seeds, train independently; a third
with one changed parameter is the control.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import demo


def trained(folder: Path, seed: int, *flags: str) -> tuple[str, str]:
    """Train anew and return the release's id and its bundle's digest."""
    told = subprocess.run(
        [*demo.command(), "--json", "--set", "store.kind=directory", *flags, "train", "--anew"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
    )
    name = str(json.loads(told.stdout)["release"])
    (manifest,) = (folder / ".mlship" / "bundles").glob("[0-9a-f]*")
    return name, manifest.name


def main() -> None:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory() as temporary:
        origin = Path(temporary) / "origin"
        demo.new_repository(origin)
        found = []
        for number, flags in enumerate(((), (), ("--set", "model.params.C=0.5"))):
            clone = Path(temporary) / f"clone {number}"
            subprocess.run(["git", "clone", "-q", str(origin), str(clone)], check=True)
            found.append(trained(clone, number, *flags))
            print(f"clone {number}: release {found[-1][0]}, bundle {found[-1][1]}")
        print(f"the same inputs: {'the same' if found[0] == found[1] else 'DIFFERENT'}")
        print(f"another param:   {'the same' if found[0] == found[2] else 'different'}")


if __name__ == "__main__":
    main()
