"""Workflows run on this machine by act, with stand-ins of our own for the actions that they use."""

import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.harness import commands, shim
from tests.harness.workflows import SOURCE

ROOT = Path(__file__).parents[2]
ACT = Path(sys.executable).with_name("act")
STAND_INS = ROOT / "tests" / "stand_ins" / "actions"

_USES = re.compile(r"uses: ([\w.-]+/([\w.-]+)@[0-9a-f]{40})")
_STEP = re.compile(
    r"^\[[^/\]]*/(.*?) *\] +(✅  Success|❌  Failure) - Main (.*?)"
    r"(?: \[(?:(\d+)m)?([\d.]+)(s|ms|µs)\])?$",
    re.MULTILINE,
)
_UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}

# Stands in for uv: what jobs install is here already.
_UV = """#!/bin/sh
if [ "$1" = venv ]; then exit 0; fi
case "$1 $2" in "pip install"|"tool install") echo "$@" >> "$STAND_IN_INSTALLED"; exit 0;; esac
exit 2
"""
_TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_PROGRAM = '#!/bin/sh\nexec {argv} "$@"\n'
# act asks Node where it is before each job, which takes longer than most steps; no action needs it.
_NODE = "#!/bin/sh\necho /nowhere/node\n"
_OPTIONS = "PYTEST_ADDOPTS"
"""Which plugins the tests of a project leave out: see `tests/conftest.py`."""


def init(folder: Path, *arguments: str, sets: Collection[str] = ()) -> None:
    """Run `mlship init` for a project, whose jobs install mlship from `SOURCE`.

    Args:
        folder: that of the project.
        arguments: the command's own.
        sets: settings for its workflows, each as `--set` takes it.
    """
    given = [f"--set={setting}" for setting in (f"workflows.mlship={SOURCE}", *sets)]
    done = commands.run(
        *(*given, "init", str(folder), *arguments, "--yes"), folder=ROOT, environment=os.environ
    )
    assert done.returncode == 0, done.stderr


class Took(NamedTuple):
    """How long a step of a job took."""

    job: str
    step: str
    seconds: float


class Ran(NamedTuple):
    """How a workflow went: its exit code, each step that ran with whether it passed, its log."""

    code: int
    steps: dict[str, bool]
    log: str
    times: tuple[Took, ...]


class Runner:
    """A runner of workflows for one repository.

    Args:
        repository: a git repository with a commit; its remote `origin` tells owner and name.
        home: a folder for all that act and the jobs keep.
        environment: added to that of the jobs.
        installs: whether jobs install what they need, each with a cache of its own; else they
            find it here.
        cold: the commands of mlship that are processes of their own, from the start of Python on.
    """

    def __init__(
        self,
        repository: Path,
        home: Path,
        environment: Mapping[str, str],
        *,
        installs: bool = False,
        cold: Collection[str] = (),
    ) -> None:
        self.repository, self.home = repository, home
        self.artifacts, self.installed = home / "artifacts", home / "installed"
        self.log = home / "log"
        programs = home / "bin"
        programs.mkdir(parents=True)
        texts = {"node": _NODE, "python": _PROGRAM.format(argv=sys.executable)}
        if not installs:
            texts |= {"uv": _UV}
        for name, text in texts.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        if not installs:
            shim.write(programs / "mlship", cold)
        trusted = {name: os.environ[name] for name in _TRUSTED if name in os.environ}
        options = {_OPTIONS: os.environ[_OPTIONS]} if _OPTIONS in os.environ else {}
        here = trusted if installs else {"PYTHONPATH": str(ROOT), **options}
        self._environment = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            **here,
            "STAND_IN_REPOSITORY": str(repository),
            "STAND_IN_PROGRAMS": str(STAND_INS.parent),
            "STAND_IN_ARTIFACTS": str(self.artifacts),
            "STAND_IN_INSTALLED": str(self.installed),
            **environment,
        }

    def run(
        self,
        workflow: str,
        event: str = "push",
        *,
        payload: Path | None = None,
        variables: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        seconds: float = 120,
    ) -> Ran:
        """Run a workflow to its end, as GitHub would for an event."""
        file = self.repository / ".github" / "workflows" / workflow
        text = file.read_text("utf-8")
        used = dict(_USES.findall(text))
        argv = [
            str(ACT),
            event,
            "--workflows",
            str(file),
            "--platform",
            "ubuntu-latest=-self-hosted",
        ]
        argv += ["--no-skip-checkout", "--no-cache-server"]
        argv += [f"--local-repository={uses}={STAND_INS / name}" for uses, name in used.items()]
        argv += [f"--env={name}={value}" for name, value in self._environment.items()]
        argv += [f"--var={name}={value}" for name, value in (variables or {}).items()]
        argv += [f"--secret={name}={value}" for name, value in (secrets or {}).items()]
        argv += ["--eventpath", str(payload)] if payload else []
        with self.log.open("w") as log:
            done = subprocess.run(
                argv,
                cwd=self.repository,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        said = self.log.read_text()
        steps: dict[str, bool] = {}
        times: list[Took] = []
        for job, verdict, name, minutes, amount, unit in _STEP.findall(said):
            steps[name] = steps.get(name, True) and "Success" in verdict
            if f"- name: {name}\n" in text:  # what a composite action consists of is left out
                seconds = float(minutes or 0) * 60 + float(amount or 0) * _UNITS[unit or "s"]
                times.append(Took(job, name, seconds))
        return Ran(done.returncode, steps, said, tuple(times))
