"""How soon the quick commands answer, against importing what a command line needs at least.

`mlship --help` against `python -c "import typer, rich"`; `status` and `report` of a project with a
champion, a former champion and staging, in seconds. Medians, both sides taken in turn.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import demo

BASE = [sys.executable, "-c", "import typer, rich"]


def seconds(command: list[str], folder: Path) -> float:
    """Run a command once and return how long it took."""
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark on the demonstration's folder, made where it is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=demo.ROOT / ".demo")
    parser.add_argument("--times", type=int, default=15)
    given = parser.parse_args()
    if not (given.folder / "mlship.yaml").exists():
        demo.new_repository(given.folder)
        demo.play(given.folder, 1500)
    script = str(Path(sys.executable).with_name("mlship"))
    commands = {
        'python -c "import typer, rich"': BASE,
        "mlship --help": [script, "--help"],
        "mlship status": [script, "status"],
        "mlship report champion": [script, "report", "champion"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(given.times):
        for name, command in commands.items():
            taken[name].append(seconds(command, given.folder))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    base = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:32} {median:6.3f} s   {median / base:5.2f} x")


if __name__ == "__main__":
    main()
