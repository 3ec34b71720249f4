"""A wheel holds the whole package: the build leaves out what git ignores."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def ignored(paths: list[str]) -> list[str]:
    """Return the paths that .gitignore matches, tracked or not."""
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join(paths),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.split()


def test_no_file_of_the_package_is_ignored_by_git() -> None:
    examples = ("iris_example", "sentiment_example", "churn_example")
    shipped = ("templates", *examples, "docs/guide", "docs/reference")
    folders = ("mlship", *shipped)
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = listed.stdout.split()
    assert len(paths) > 100
    assert ignored(paths) == []
    assert ignored(["mlship/__pycache__/x.pyc"]) == ["mlship/__pycache__/x.pyc"]
