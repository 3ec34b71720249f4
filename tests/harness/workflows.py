"""The workflows of every kind of project, for the tests that judge them."""

import functools
import re
from pathlib import Path
from typing import Any

import yaml

from mlship.config.layers import from_yaml, resolve
from mlship.config.project import Config
from mlship.domain.storage import NOTHING, Kept, storage
from mlship.templates import names, workflows

ROOT = Path(__file__).parents[2]

_LEAST = """
name: iris
data: {train: data/train.csv, test: data/test.csv, target: species}
model: {train: "pipeline:train"}
"""
SOURCE = f"git+https://example.org/mlship@{'c0ffee' * 7:.40}"
"""Where jobs install mlship from, where a project does not say it."""

_GKE = "kind: gke, gke: {project: my-project, location: europe-west1, cluster: one}"

PROJECTS = {
    "one machine": "",
    "one machine, without CML, an image": """
image: {repository: "localhost:5000/iris"}
workflows: {report: github, python: "3.12"}
""",
    "Google": f"""
image: {{repository: europe-docker.pkg.dev/my-project/models/iris}}
targets: {{staging: {{{_GKE}}}, production: {{{_GKE}}}}}
workflows: {{evaluate: "0 4 * * 1-5"}}
ledger: {{kind: mlflow}}
""",
    "Kubernetes and a registry": """
image: {repository: registry.example.org/models/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
store: {kind: directory}
""",
    "Kubernetes and GitHub's registry": """
image: {repository: ghcr.io/ada/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
workflows: {mlship: "https://example.org/mlship_cd-0.1.0-py3-none-any.whl#sha256=5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"}
""",
    "Kubernetes and images by Docker": """
image: {repository: registry.example.org/models/iris, builder: docker, extend: system.Dockerfile}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
""",
    "GKE and images by Docker, staging in the job": f"""
image: {{repository: europe-docker.pkg.dev/my-project/models/iris, builder: docker}}
targets: {{production: {{{_GKE}}}}}
gates: {{container: false}}
""",
    "one machine, an image by Docker": """
image: {repository: "localhost:5000/iris", builder: docker}
workflows: {mlship: "mlship-cd==0.1.0"}
""",
    "Kubernetes and Google's registry": """
image: {repository: europe-docker.pkg.dev/my-project/models/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
""",
    "GitHub's registry, main alone": """
image: {repository: ghcr.io/ada/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
workflows: {branches: {develop: null, main: master}, challenger: queue}
""",
    "Google, release branches": f"""
image: {{repository: europe-docker.pkg.dev/my-project/models/iris}}
targets: {{staging: {{{_GKE}}}, production: {{{_GKE}}}}}
workflows: {{branches: {{release: "release/**"}}, challenger: replace}}
""",
    "staging in the job": f"""
image: {{repository: ghcr.io/ada/iris}}
targets: {{staging: {{kind: local}}, production: {{{_GKE}}}}}
""",
    "data of DVC on S3, and steps of the user": """
workload: workload/staging.jsonl
image: {repository: ghcr.io/ada/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
ledger: {kind: mlflow, uri: "https://mlflow.example.org"}
workflows:
  steps:
    before_train:
    - name: "packages: of the system"
      run: |
        sudo apt-get install --yes libgomp1

        cat <<END
          run: mlship status
        END
    - uses: actions/setup-node@820762786026740c76f36085b0efc47a31fe5020
      with: {node-version: "20", always-auth: false}
    after_test:
    - {id: extra, if: "${{ always() }}", env: {A: "${{ secrets.own_token1 }}"}, run: make more}
""",
    "data of DVC on Google Cloud": f"""
image: {{repository: europe-docker.pkg.dev/my-project/models/iris}}
targets: {{production: {{{_GKE}}}}}
workflows: {{public_data: true}}
""",
    "GitHub's registry for all": """
image: {repository: ghcr.io/ada/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
ledger: {kind: registry}
store: {kind: registry}
""",
    "Google's registry for all": f"""
image: {{repository: europe-docker.pkg.dev/my-project/models/iris}}
targets: {{staging: {{kind: kubernetes}}, production: {{{_GKE}}}}}
ledger: {{kind: registry}}
store: {{kind: registry}}
""",
    "another registry for all, without images": """
ledger: {kind: registry, uri: registry.example.org/models/iris}
store: {kind: registry, uri: registry.example.org/models/iris}
""",
    "jobs that sign with keys of their own": """
image: {repository: ghcr.io/ada/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
ledger: {kind: mlflow, uri: "https://mlflow.example.org"}
trust:
  root: trusted_root.jsonl
  signers:
    main: {workflow: ada/iris/.github/workflows/main.yml, ref: refs/heads/main}
""",
    "jobs that sign with keys of their own, on Google Cloud": f"""
image: {{repository: europe-docker.pkg.dev/my-project/models/iris}}
targets: {{production: {{{_GKE}}}}}
ledger: {{kind: mlflow, uri: "https://mlflow.example.org"}}
observations: {{kind: postgres, url: "postgresql://mlship@db.example.org:5432/predictions"}}
trust:
  root: trusted_root.jsonl
  signers:
    main: {{workflow: ada/iris/.github/workflows/main.yml, ref: refs/heads/main}}
""",
    "schedules, and data of DVC on S3": """
image: {repository: ghcr.io/ada/iris}
targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}
ledger: {kind: mlflow, uri: "https://mlflow.example.org"}
observations: {kind: postgres, url: "postgresql://mlship@db.example.org:5432/predictions"}
schedules:
  weekly: {run: retrain, cron: "0 3 * * 1", where: github, deadline: 30}
  daily: {run: evaluate, cron: "30 4 * * *", where: github, deadline: 20}
  nightly: {run: batch, cron: "30 4 * * *", where: github, deadline: 29.5, options: [--output, out]}
""",
    "schedules alone": """
schedules: {weekly: {run: retrain, cron: "0 3 * * 1", where: github, deadline: 30}}
""",
    "data of DVC, mlship pinned with hashes": """
workflows: {mlship: "mlship-cd==0.1.0"}
""",
    "data of DVC, mlship in the repository": """
ledger: {kind: mlflow}
workflows: {mlship: ./tools/mlship, claims: false, public_data: true}
""",
}

_FILES = ("data/train.csv", "data/test.csv")

KEPT = {
    "data of DVC on S3, and steps of the user": Kept(
        files=(*_FILES, "workload/staging.jsonl"),
        storage=storage("s3://bucket/iris", {"region": "eu-west-1"}),
    ),
    "schedules, and data of DVC on S3": Kept(
        files=_FILES, storage=storage("s3://bucket/iris", {"region": "eu-west-1"})
    ),
    "data of DVC on Google Cloud": Kept(files=_FILES, storage=storage("gs://bucket/iris", {})),
    "data of DVC, mlship pinned with hashes": Kept(
        files=_FILES,
        storage=storage("https://data.example.org/iris", {"auth": "basic", "user": "ci"}),
    ),
    "data of DVC, mlship in the repository": Kept(
        files=_FILES, storage=storage("ssh://ci@data.example.org/iris", {"port": "2222"})
    ),
}
"""What DVC keeps of the projects whose data are not in git."""


def config(project: str) -> Config:
    """Return the settings of a project."""
    return resolve([from_yaml(_LEAST + PROJECTS[project], "mlship.yaml")]).config


def rendered(project: str, folder: str = "") -> dict[str, str]:
    """Return the workflows of a project by their path, as the first of its repository."""
    settings = config(project)
    source = settings.workflows.mlship or SOURCE
    kept = KEPT.get(project, NOTHING)
    return workflows.render(settings, source, folder, names.prefix(folder, {}), kept)


def committed() -> dict[str, str]:
    """Return this repository's own workflows by their path."""
    folder = ROOT / workflows.FOLDER
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.glob("*.yml"))
    }


def shown() -> dict[str, str]:
    """Return the workflow that the guide lets its reader write, by its path."""
    page = (ROOT / "docs" / "guide" / "predictions.md").read_text("utf-8")
    [text] = re.findall(r"^```text\n(name: .*?)^```$", page, re.MULTILINE | re.DOTALL)
    return {f"{workflows.FOLDER}/feedback.yml": text}


def write(texts: dict[str, str], folder: Path) -> None:
    """Write workflows into a folder, as `mlship init` would."""
    for name, text in texts.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")


@functools.cache
def parsed(text: str) -> Any:
    """Return a workflow's document, which tests read and never change.

    libyaml, if PyYAML was built with it, reads it much faster.
    """
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (it is safe)
