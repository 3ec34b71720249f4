"""The job of a batch for `spark-submit`, with the commands that submit it."""

import pprint
import shlex
from collections.abc import Mapping, Sequence
from string import Template
from typing import Final

from mlship.config.spark import MASTER

NAME: Final = "batch_job.py"

_HELP: Final = Template("""\
Spark's driver is where spark-submit starts this file, and its argument is the project's folder.
After a crash, submit it again: it goes on. The outputs of a run appear together in
$output

On this machine, and on a standalone cluster, which starts no drivers of Python elsewhere:

    $local
    $standalone

On Kubernetes, with an image that has Spark, Python, mlship, and the project in $folder:

    $kubernetes

On Dataproc without a cluster, with such an image; and on a cluster of Dataproc, with the project
in an archive (git archive --format zip --output project.zip HEAD):

    $batches
    $cluster

- Driver and executors need Python with mlship-cd[spark] in the version that wrote this file.
- The driver needs the variables with credentials of ledger and store, which must be shared.
- Inputs and outputs are URLs, or have the same path on all machines.
""")
_JOB: Final = Template('''\
"""Scores rows by $release on Spark, as `mlship batch` does."""

$help

import sys

from mlship.cli.main import main

CONFIG = $config
FLAGS = (
$flags
)
BATCH = (
$arguments
)

sys.argv = ["mlship", "--config", f"{sys.argv[1]}/{CONFIG}", *FLAGS, *BATCH]
main()
''')
_ANYWHERE: Final = {"local": "local[*]", "spark": "spark://HOST:7077", "k8s": "k8s://https://HOST"}
"""Where a project does not name such a master."""


def render(
    *,
    release: str,
    to: str,
    config: str,
    flags: Sequence[str],
    arguments: Sequence[str],
    settings: Mapping[str, str],
    path: str = NAME,
) -> str:
    """Return the job's file.

    Args:
        release: which scores.
        to: where the outputs go, for people.
        config: the name of the configuration file.
        flags: settings that options of the command override.
        arguments: of the command: `batch` with its options.
        settings: of Spark.
        path: of the job, from the project's folder.
    """
    folder = _folder(release)
    dataproc = ["gcloud", "dataproc"]
    text = _HELP.substitute(
        output=to,
        folder=folder,
        local=_client(settings, _master(settings, "local"), path),
        standalone=_client(settings, _master(settings, "spark"), path),
        kubernetes=_kubernetes(settings, folder, path),
        batches=_lines(
            [*dataproc, "batches", "submit", "pyspark", path, "--region=REGION"],
            ["--deps-bucket=BUCKET", "--container-image=IMAGE"],
            _properties(_own(settings)),
            ["--", folder],
        ),
        cluster=_lines(
            [*dataproc, "jobs", "submit", "pyspark", path, "--region=REGION"],
            ["--cluster=CLUSTER", "--archives=gs://BUCKET/project.zip#project"],
            _properties({"spark.submit.deployMode": "cluster", **_own(settings)}),
            ["--", "project"],
        ),
    )
    return _JOB.substitute(
        release=release,
        help="\n".join(f"# {line}".rstrip() for line in text.splitlines()),
        flags=_literals([part for flag in flags for part in ("--set", flag)]),
        arguments=_literals(arguments),
        config=repr(config),
    )


def submit(settings: Mapping[str, str], release: str, path: str = NAME) -> str:
    """Return the command that submits the job from the project's folder, to the project's master.

    Args:
        settings: of Spark.
        release: which scores.
        path: of the job.
    """
    master = settings.get(MASTER) or _master(settings, "local")
    if master.startswith("k8s"):
        return _kubernetes(settings, _folder(release), path)
    return _client(settings, master, path)


def _folder(release: str) -> str:
    """Return where the commands have the project in an image."""
    return f"/srv/{release.partition('@')[0]}"


def _client(settings: Mapping[str, str], master: str, path: str) -> str:
    return _lines(["spark-submit", "--master", master], _conf(settings), [path, "."])


def _kubernetes(settings: Mapping[str, str], folder: str, path: str) -> str:
    image = {"spark.kubernetes.container.image": "IMAGE"}
    return _lines(
        ["spark-submit", "--master", _master(settings, "k8s"), "--deploy-mode", "cluster"],
        _conf({**image, **settings}),
        [f"local://{folder}/{path}", folder],
    )


def _master(settings: Mapping[str, str], kind: str) -> str:
    master = settings.get(MASTER, "")
    return master if master.startswith(kind) else _ANYWHERE[kind]


def _own(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name != MASTER}


def _conf(settings: Mapping[str, str]) -> list[str]:
    own = _own(settings).items()
    return [part for name, value in own for part in ("--conf", f"{name}={value}")]


def _properties(settings: Mapping[str, str]) -> list[str]:
    """Return settings as gcloud takes them: with another delimiter if one has a comma."""
    pairs = [f"{name}={value}" for name, value in settings.items()]
    if any("," in pair for pair in pairs):
        return [f"--properties=^;^{';'.join(pairs)}"]
    return [f"--properties={','.join(pairs)}"] if pairs else []


def _lines(*parts: Sequence[str]) -> str:
    """Return a command on as many lines as it has parts."""
    return " \\\n        ".join(shlex.join(part) for part in parts if part)


def _literals(texts: Sequence[str]) -> str:
    """Return texts as elements of a tuple of Python."""
    return "\n".join(f"    {pprint.pformat(text, width=10_000)}," for text in texts)
