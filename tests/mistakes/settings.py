"""Mistakes in mlship.yaml, in the environment, in options, and in the repository."""

import shutil
from collections.abc import Callable

from tests.mistakes.mistake import Mistake
from tests.mistakes.project import Project
from tests.mistakes.training import SETTINGS, replaced


def _without_git(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")


def _with_commit(project: Project) -> None:
    project.git("init", "-q")
    project.commit()


def _without_commit(project: Project) -> None:
    _without_git(project)
    project.git("init", "-q")


def clusters(places: str, *more: str) -> Callable[[Project], None]:
    """Give production clusters of its own."""
    new = ", ".join(["kind: kubernetes", f"clusters: {{{places}}}", *more])
    return replaced(SETTINGS, "{kind: local, challenger_weight: 50}", f"{{{new}}}")


CONFIG = (
    Mistake(
        name="an unknown key in mlship.yaml",
        do=replaced(SETTINGS, "workload: ", "worklaod: "),
        code=2,
        says="mlship.yaml: unknown key worklaod",
        hints="did you mean workload?",
    ),
    Mistake(
        name="an unknown key deep in mlship.yaml",
        do=replaced(SETTINGS, "min_labels", "min_label"),
        code=2,
        says="gates.promote.min_label",
        hints="did you mean gates.promote.min_labels?",
    ),
    Mistake(
        name="a bound of the challenger in percent",
        do=replaced(
            SETTINGS,
            "{kind: local, challenger_weight: 50}",
            "{kind: local, challenger_weight: 50, challenger_bounds: {errors: 2}}",
        ),
        code=2,
        says="targets.production.challenger_bounds.errors",
        hints="0.02 is 2 %",
    ),
    Mistake(
        name="a timeout that is longer than the load balancer waits",
        do=replaced(
            SETTINGS,
            "{kind: local, challenger_weight: 50}",
            "{kind: local, challenger_weight: 50, timeout_seconds: 90}",
        ),
        code=2,
        says="targets.production.timeout_seconds",
        hints="60 s",
    ),
    Mistake(
        name="an unknown key in the environment",
        environment={"MLSHIP_STORE__KIN": "directory"},
        code=2,
        says="MLSHIP_STORE__KIN",
        hints="did you mean store.kind?",
    ),
    Mistake(
        name="an unknown key in --set",
        command=("--set", "stor.kind=directory", "train"),
        code=2,
        says="stor",
        hints="did you mean store?",
    ),
    Mistake(
        name="--set without a value",
        command=("--set", "store.kind", "train"),
        code=2,
        says="--set store.kind",
        hints="--set targets.staging.port=8080",
    ),
    Mistake(
        name="a value of the wrong type",
        do=replaced(SETTINGS, "challenger_weight: 50", "challenger_weight: half"),
        code=2,
        says="targets.production.challenger_weight",
        hints="percent",
    ),
    Mistake(
        name="a value out of range",
        command=("--set", "targets.production.challenger_weight=120", "train"),
        code=2,
        says="targets.production.challenger_weight",
        hints="100",
    ),
    Mistake(
        name="a needed key is missing",
        do=replaced(SETTINGS, "name: iris\n", ""),
        code=2,
        says="missing key name",
        hints="at most 40 characters: iris",
    ),
    Mistake(
        name="a section that is a text",
        do=replaced(SETTINGS, "store: {kind: directory}", "store: directory"),
        code=2,
        says="store: expected a mapping, got a string: 'directory'",
        hints="a section with kind, uri",
    ),
    Mistake(
        name="broken YAML",
        do=replaced(SETTINGS, "store: {kind: directory}", "store: {kind: directory"),
        code=2,
        says="mlship.yaml:",
        hints="correct",
    ),
    Mistake(
        name="YAML that is a list",
        do=lambda project: project.write(SETTINGS, "- name\n- data\n"),
        code=2,
        says="mlship.yaml",
        hints="mlship init",
    ),
    Mistake(
        name="mlship.yaml is empty",
        do=lambda project: project.write(SETTINGS, ""),
        code=2,
        says="mlship.yaml",
        hints="mlship init",
    ),
    Mistake(
        name="mlship.yaml is binary",
        do=lambda project: project.write(SETTINGS, bytes(range(256))),
        code=2,
        says="mlship.yaml",
        hints="UTF-8",
    ),
    Mistake(
        name="mlship.yaml is missing",
        do=lambda project: (project.folder / SETTINGS).unlink(),
        command=("status",),
        code=2,
        says="mlship.yaml not found in",
        hints="mlship init",
        mend=lambda project: project.git("checkout", SETTINGS),
    ),
    Mistake(
        name="--config names no file",
        command=("--config", "mlship.yml", "status"),
        code=2,
        says="mlship.yml not found in",
        hints="--config",
    ),
    Mistake(
        name="a gate of staging that does not exist",
        command=("--set", "gates.staging.p99ms.max=250", "train"),
        code=2,
        says="gates.staging.p99ms",
        hints="did you mean p99_ms?",
    ),
    Mistake(
        name="a name with capitals",
        do=replaced(SETTINGS, "name: iris\n", "name: Iris Model\n"),
        code=2,
        says="name: expected a string in another format: 'Iris Model'",
        hints="lower-case",
    ),
    Mistake(
        name="init of an example that does not exist",
        command=("init", "--example", "irises"),
        code=2,
        says="no example irises",
        hints="the examples are iris, sentiment, churn",
    ),
    Mistake(
        name="a cluster of a target named twice",
        do=clusters("blue: {context: a}, green: {context: a}"),
        code=2,
        says="targets.production.clusters.green: it is the same cluster as blue",
        hints="name another cluster",
    ),
    Mistake(
        name="a challenger that no cluster fits",
        do=clusters("blue: {context: a}, green: {context: b}", "challenger: teal"),
        code=2,
        says="targets.production.challenger: there is no cluster teal",
        hints="set it to other, or to one of: blue, green",
    ),
    Mistake(
        name="users that stay with a release, at a Gateway above clusters",
        do=clusters(
            "blue: {context: a}, green: {context: b}",
            "kubernetes: {gateway: gateway/gateway}, sticky_header: x-user",
        ),
        code=2,
        says="targets.production.sticky_header: a Gateway does not support it",
        hints="remove it, or targets.production.kubernetes.gateway",
    ),
)

REPOSITORY = (
    Mistake(
        name="no git repository",
        do=_without_git,
        code=2,
        says="is not in a git repository",
        hints="git init",
        mend=_with_commit,
    ),
    Mistake(
        name="a git repository without a commit",
        do=_without_commit,
        code=2,
        says="has no commit yet",
        hints="git add -A && git commit",
    ),
    Mistake(
        name="nothing was trained yet",
        command=("report",),
        code=5,
        says="has no release yet",
        hints="mlship train",
    ),
    Mistake(
        name="nothing was trained yet, and it is to be tested",
        command=("test",),
        code=5,
        says="has no release yet",
        hints="mlship train",
    ),
)
