"""The start-up time of fast commands, compared with the minimal imports of a command line.

`mlship --help` is compared with `python -c "import typer, rich"`; `status` and `report` run in a
project with a champion, a former champion and staging. Medians in seconds, both sides in turn.
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
    """Run a command once and return its duration."""
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark on the demonstration's folder; create it if missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=demo.ROOT / ".demo")
    parser.add_argument("--times", type=int, default=15)
    options = parser.parse_args()
    if not (options.folder / "mlship.yaml").exists():
        demo.new_repository(options.folder)
        demo.play(options.folder, 1500)
    script = str(Path(sys.executable).with_name("mlship"))
    commands = {
        'python -c "import typer, rich"': BASE,
        "mlship --help": [script, "--help"],
        "mlship status": [script, "status"],
        "mlship report champion": [script, "report", "champion"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.times):
        for name, command in commands.items():
            taken[name].append(seconds(command, options.folder))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    base = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:32} {median:6.3f} s   {median / base:5.2f} x")


if __name__ == "__main__":
    main()
