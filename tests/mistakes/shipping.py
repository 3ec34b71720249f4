"""Mistakes with tests, releases, approvals and traffic."""

from tests.mistakes.mistake import Mistake
from tests.mistakes.project import AUTHOR, Project
from tests.mistakes.training import written


def _dirty(project: Project) -> None:
    project.edit("pipeline.py", "max_iter=1000", "max_iter=999")
    project.done("train")


_FAILING = "def test_arithmetic():\n    assert 1 + 1 == 3\n"
_BROKEN = "def test_arithmetic()\n    pass\n"

RELEASES = (
    Mistake(
        name="a release that does not exist",
        on="shipped",
        command=("report", "iris@000000000000"),
        code=5,
        says="release iris@000000000000 not found",
        hints="mlship status --all",
    ),
    Mistake(
        name="a release that is garbage",
        on="shipped",
        command=("report", '"; touch pwned; #'),
        code=5,
        says="invalid release name",
        hints="iris@",
    ),
    Mistake(
        name="a release of another project",
        on="shipped",
        command=("report", "rose@000000000000"),
        code=5,
        says="release rose@000000000000 not found",
        hints="mlship status --all",
    ),
    Mistake(
        name="promote without a challenger",
        on="trained",
        command=("promote", "challenger"),
        code=5,
        says="production has no challenger",
        hints="mlship deploy-production",
    ),
    Mistake(
        name="promote what was never deployed",
        on="trained",
        command=("promote",),
        code=8,
        says="is not a challenger",
        hints="mlship deploy-production",
    ),
    Mistake(
        name="promote without evaluation and approval",
        on="shipped",
        command=("promote", "challenger"),
        code=3,
        says="evaluate: never run",
        hints="mlship evaluate",
    ),
    Mistake(
        name="approve what one wrote oneself",
        on="shipped",
        command=("approve", "challenger", "--by", AUTHOR.upper()),
        code=3,
        says="cannot approve",
        hints="ask another person",
    ),
    Mistake(
        name="approve as nobody",
        on="shipped",
        command=("approve", "challenger", "--by", " "),
        code=3,
        says="the approval of",
        hints="--by",
    ),
    Mistake(
        name="rollback with nothing to go back to",
        on="shipped",
        command=("rollback",),
        code=5,
        says="no former champion",
        hints="mlship status",
    ),
    Mistake(
        name="rollback before anything was deployed",
        on="trained",
        command=("rollback",),
        code=5,
        says="no former champion",
        hints="mlship status",
    ),
    Mistake(
        name="retire the champion",
        on="shipped",
        command=("retire", "champion"),
        code=3,
        says="is champion",
        hints="rollback",
    ),
    Mistake(
        name="retire with nothing to retire",
        on="shipped",
        command=("retire",),
        code=5,
        says="no former champion",
        hints="mlship retire challenger",
    ),
    Mistake(
        name="evaluate without a challenger",
        on="trained",
        command=("evaluate",),
        code=5,
        says="no challenger",
        hints="mlship deploy-production",
    ),
    Mistake(
        name="traffic that is no share",
        on="shipped",
        command=("traffic", "challenger=half"),
        code=2,
        says="challenger=half",
        hints="challenger=20",
    ),
    Mistake(
        name="traffic above 100 %",
        on="shipped",
        command=("traffic", "challenger=120"),
        code=2,
        says="challenger=120",
        hints="challenger=20",
    ),
    Mistake(
        name="traffic for a role that does not exist",
        on="shipped",
        command=("traffic", "chalenger=20"),
        code=2,
        says="unknown role: chalenger",
        hints="challenger=20",
    ),
    Mistake(
        name="to production without proof",
        on="trained",
        command=("deploy-production",),
        code=3,
        says="test: never run",
        hints="mlship run",
    ),
    Mistake(
        name="a dirty tree to production",
        on="trained",
        do=_dirty,
        command=("deploy-production",),
        code=3,
        says="with uncommitted changes",
        hints="commit all changes",
    ),
    Mistake(
        name="verify what staging does not run",
        on="trained",
        command=("verify-staging-workload",),
        code=8,
        says="is not running in staging",
        hints="mlship deploy-staging iris@",
    ),
)

TESTS = (
    Mistake(
        name="a gate on a metric that does not exist",
        on="trained",
        command=("--set", "gates.test.acuracy.min=0.9", "test"),
        code=2,
        says="gates.test.acuracy",
        hints="did you mean accuracy?",
        leaves=("plots",),
    ),
    Mistake(
        name="a test that fails",
        on="shipped",
        do=written("tests/unit/test_arithmetic.py", _FAILING),
        command=("test", "champion"),
        code=3,
        says="unit tests: 0 passed, 1 failed",
        hints="mlship report",
        leaves=("ledger", "plots"),
        shows=("store",),
    ),
    Mistake(
        name="a test file with a syntax error",
        on="shipped",
        do=written("tests/unit/test_arithmetic.py", _BROKEN),
        command=("test", "champion"),
        code=3,
        says="unit tests: 0 passed, 1 failed",
        hints="mlship report",
        leaves=("ledger", "plots"),
        shows=("store",),
        is_rare=True,
    ),
    Mistake(
        name="a gate that does not hold",
        on="shipped",
        command=("--set", "gates.test.accuracy.min=0.99", "test", "champion"),
        code=3,
        says="needs at least 0.99",
        hints="mlship report",
        leaves=("ledger", "plots"),
        shows=("store",),
        is_rare=True,
    ),
)
