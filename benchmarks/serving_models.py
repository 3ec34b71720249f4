"""The classifiers of iris that `serving.py` serves, as joblib files and as bundles."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import joblib
import msgspec
import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mlship.domain import bundle as bundles  # noqa: E402 (the root must be on the path first)
from mlship.domain.bundle import Dtype, Hooks  # noqa: E402
from tests.harness.bundles import CLASSES, OUTPUTS, iris_draft  # noqa: E402
from tests.harness.bundles import COLUMNS as NAMES  # noqa: E402

_INPUTS: Final = {"float32": FloatTensorType, "float64": DoubleTensorType}


@dataclass(frozen=True)
class Served:
    """A model.

    Attributes:
        name: for people.
        estimator: not fitted yet.
        dtype: what mlship tries first for such a model.
    """

    name: str
    estimator: Any
    dtype: Dtype

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.name.replace(" ", "-")


LOGISTIC: Final = Served("logistic regression", LogisticRegression(max_iter=1_000), "float64")
FOREST: Final = Served("forest of 100 trees", RandomForestClassifier(random_state=0), "float32")
SLOW: Final = Served(
    "forest of 1,000 trees", RandomForestClassifier(1_000, random_state=0), "float32"
)


def write(served: Served, folder: Path) -> None:
    """Write `model.joblib`, and the bundle with the same model as ONNX."""
    data, codes = load_iris(return_X_y=True)
    estimator = served.estimator.fit(data, np.array(CLASSES)[codes])
    bundle = folder / "bundle"
    (bundle / "model").mkdir(parents=True)
    joblib.dump(estimator, folder / "model.joblib")
    onnx = to_onnx(
        estimator,
        initial_types=[("features", _INPUTS[served.dtype]([None, len(NAMES)]))],
        options={"zipmap": False},
    )
    (bundle / "model" / "model.onnx").write_bytes(onnx.SerializeToString())
    lines = []
    for row, shares in zip(data[:3], estimator.predict_proba(data[:3]), strict=True):
        outputs: dict[str, object] = {"species": CLASSES[int(shares.argmax())]}
        outputs |= dict(zip([field.name for field in OUTPUTS[1:]], shares.tolist(), strict=True))
        lines.append({"inputs": dict(zip(NAMES, row.tolist(), strict=True)), "outputs": outputs})
    golden = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    (bundle / bundles.GOLDEN).write_bytes(golden)
    draft = iris_draft(Hooks(preprocess=None, postprocess=None))
    model = msgspec.structs.replace(draft.model, dtype=served.dtype)
    bundles.seal(bundle, msgspec.structs.replace(draft, model=model))
