"""What a model file is by its content: its ending alone proves nothing, and picks no loader."""

import json
import pickletools
import re
from collections.abc import Callable

from mlship.errors import RefusedError
from mlship.runtime import onnx_contents

_STARTS: tuple[tuple[bytes, str], ...] = (
    (rb"\x80[\x02-\x05]", "a pickle, which runs code when it is loaded"),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"BZh", "a bzip2 archive"),
    (rb"\xfd7zXZ\x00", "an xz archive"),
    (rb"\x28\xb5\x2f\xfd", "a zstd archive"),
    (rb"x[\x01\x5e\x9c\xda]", "a compressed joblib file, which runs code when it is loaded"),
    (rb".{257}ustar", "a tar archive"),
    (rb"\x93NUMPY", "a numpy array"),
    (rb"\x89HDF\r\n", "an HDF5 file"),
    (rb"binf|.{4}ORTM", "in a format of former versions, or of another program"),
    (rb"version https://git-lfs", "a Git LFS pointer, whose file was not fetched"),
    (rb"\s*<", "HTML or XML"),
    (rb"#!", "a script"),
)


def check(name: str, ending: str, data: bytes) -> None:
    """Refuse a file whose content is not of the format of its ending.

    Args:
        name: of the file, for the message.
        ending: `.skops`, `.onnx`, `.ubj`, `.json`, `.cbm`, `.keras` or `.txt`.
        data: its content.

    Raises:
        RefusedError: with what it is, where that can be told.
        IntegrityError: an ONNX file refers to other files or libraries.
    """
    wanted, is_such = _FORMATS[ending]
    if not is_such(data):
        message = f"{name} was refused: it is {_described(data)}, not {wanted}"
        hint = "nothing was loaded; save the model again in the format of its ending"
        raise RefusedError(message, hint=hint)
    if ending == ".onnx":
        onnx_contents.check(data, name)


def _described(data: bytes) -> str:
    if not data:
        return "empty"
    for start, what in _STARTS:
        if re.match(start, data, re.DOTALL):
            return what
    return "a pickle, which runs code when it is loaded" if _is_pickle(data) else "something else"


def _is_pickle(data: bytes) -> bool:
    """Tell whether it is a pickle of the text protocol; nothing of it is run."""
    try:
        for _ in pickletools.genops(data):
            pass
    except Exception:  # noqa: BLE001 (what is no pickle fails in many ways)
        return False
    return True


def _is_zip(data: bytes) -> bool:
    return data.startswith(b"PK\x03\x04")


def _is_catboost(data: bytes) -> bool:
    return data.startswith(b"CBM1")


def _is_json(data: bytes) -> bool:
    try:
        return "learner" in json.loads(data)
    except (ValueError, TypeError, RecursionError):
        return False


def _is_ubj(data: bytes) -> bool:
    """Tell whether it starts as an object whose first key has a length in binary."""
    return re.match(rb"\{[iUIlL]", data) is not None and b"learner" in data[:64]


def _is_lightgbm(data: bytes) -> bool:
    return data.startswith((b"tree\n", b"tree\r\n"))


_FORMATS: dict[str, tuple[str, Callable[[bytes], bool]]] = {
    ".skops": ("a skops file", _is_zip),
    ".onnx": ("an ONNX model", onnx_contents.is_model),
    ".json": ("an XGBoost model in JSON", _is_json),
    ".ubj": ("an XGBoost model in UBJSON", _is_ubj),
    ".keras": ("a Keras model", _is_zip),
    ".cbm": ("a CatBoost model", _is_catboost),
    ".txt": ("a LightGBM model in text", _is_lightgbm),
}
