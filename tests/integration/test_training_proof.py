"""The proof of a sealed bundle: in a process that has only the bundle, as a replica has."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlship.adapters.checkout.trainer import ChildTrainer
from mlship.errors import ProjectError
from tests.harness.projects import config, flowers, project
from tests.harness.repositories import QUICK

MODEL = """
import json, os, time
from pathlib import Path
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

class Step(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        BODY

def train(data, params):
    return make_pipeline(Step(), LinearRegression()).fit(data[["length", "colour"]], data.price)
"""
LOOKUP = """
table = json.load(open({path})) if os.path.exists({path}) else {{}}
return [[a, table.get(c, 0)] for a, c in zip(X["length"], X["colour"])]
"""


class Silent:
    def note(self, text: str) -> None:
        pass


def trained(root: Path, body: str, **settings: Any) -> None:
    lines = body.strip().replace("\n", "\n        ")
    code = MODEL.replace("BODY", lines).replace("ROOT", repr(str(root)))
    module = project(root, code, flowers()[["length", "colour", "price"]])
    (root / "lookup.json").write_text('{"pink": 5, "white": 9}')
    for command in ("init -q", "add -A", "-c user.name=A -c user.email=a@b.c commit -q -m Begin"):
        subprocess.run(["git", *QUICK, *command.split()], cwd=root, check=True)
    trainer = ChildTrainer(root, config("price", module, **settings), Silent())
    trainer.train(root / ".mlship" / "bundle")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (LOOKUP.format(path="'lookup.json'"), "the bundle returns price"),
        (LOOKUP.format(path="Path(ROOT, 'lookup.json')"), "lookup.json is not in the bundle"),
        ("return [[a, hash(c) % 64] for a, c in zip(X['length'], X['colour'])]", "bundle returns"),
        (
            "Path('cache.txt').write_text('')\nreturn X[['length']]",
            "changes the bundle when it predicts: .*cache.txt",
        ),
    ],
)
def test_what_a_replica_would_not_have_is_refused(body: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=reason):
        trained(tmp_path, body)
    assert not (tmp_path / ".mlship" / "bundle").exists()


def test_a_relative_path_of_an_included_file_is_that_of_the_bundle(tmp_path: Path) -> None:
    trained(tmp_path, LOOKUP.format(path="'lookup.json'"), include=["lookup.json"])
    code = tmp_path / ".mlship" / "bundle" / "code"
    assert (code / "lookup.json").is_file()
