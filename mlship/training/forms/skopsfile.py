"""Estimators as skops files; the same estimator gives the same bytes.

skops writes a zip archive: `schema.json`, a tree of nodes with `__id__`, the memory address of
the object by which shared objects are told, and arrays in members that are named after such
addresses. Addresses and times differ from process to process; they are replaced here.
"""

import io
import json
import sys
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mlship.errors import ProjectError
from mlship.runtime import archive
from mlship.runtime.trust import load, skops_io
from mlship.training.libraries import compiled
from mlship.training.owncode import Admitted, Trust

_SCHEMA = "schema.json"
_SMALL = 1_000
"""Bytes of a member that is not compressed: each tree has two, which cost more than they gain."""
_ADDRESSES = ("_stop_words_id",)
"""Attributes in which an estimator keeps a memory address itself."""


@dataclass(frozen=True)
class Kept:
    """An estimator as a skops file.

    Attributes:
        admitted: what it names beyond the exact list.
        modules: top-level modules of other libraries that loading it needs.
    """

    data: bytes
    admitted: Admitted
    modules: tuple[str, ...]


def imported() -> Any:
    """Return `skops.io`; most models need none, and importing it takes a while."""
    with compiled():
        return skops_io()


def from_estimator(estimator: Any, trust: Trust) -> Kept:
    """Return an estimator as a skops file.

    Raises:
        ProjectError: it cannot be saved, or holds types or functions that serving would not load.
    """
    try:
        schema, members = _saved(estimator)
    except Exception as error:  # whatever an object's own state raises
        message = f"the model {type(estimator).__name__} cannot be saved: {error}"
        raise ProjectError(message, hint="use scikit-learn's own estimators") from error
    parts = archive.names(schema, members, f"the model {type(estimator).__name__}")
    admitted = trust.admit(parts, live=True)
    foreign = {part.module.partition(".")[0] for part in parts if part.full not in admitted.types}
    modules = tuple(sorted(foreign - set(sys.stdlib_module_names)))
    return Kept(data=_packed(schema, members), admitted=admitted, modules=modules)


def to_estimator(data: bytes, name: str, trust: Trust) -> Any:
    """Return the estimator of a skops file; `name` is for messages.

    Raises:
        IntegrityError: it is no such file, or is made to mislead.
        ProjectError: it holds types or functions that are not trusted.
    """
    parts = archive.read(data, name)
    trust.admit(parts, live=False)
    return load(data, parts)


class _Members:
    """Takes the members that skops writes into an archive, without the archive.

    skops asks for the list of all names before it writes an array. An archive makes that list
    anew each time, which takes longer than the writing when a model has thousands of trees.
    """

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def namelist(self) -> Collection[str]:
        """Return the names of the members so far."""
        return self.contents.keys()

    def writestr(self, name: str, data: bytes | memoryview) -> None:
        """Take a member."""
        self.contents[name] = bytes(data)


def _saved(estimator: Any) -> tuple[Any, dict[str, bytes]]:
    """Return the schema and the other members of the file that `skops.io.dumps` would write."""
    imported()
    import skops
    from skops.io._utils import SaveContext, get_state

    members = _Members()
    context = SaveContext(zip_file=members)
    state = get_state(estimator, context)
    state |= {"protocol": context.protocol, "_skops_version": skops.__version__}
    # As text first: it has lists for tuples, and texts for all keys. The context keeps what was
    # saved until then, so that no two objects have one address.
    return json.loads(json.dumps(state)), members.contents


def _packed(saved: Any, members: Mapping[str, bytes]) -> bytes:
    """Return a skops file with addresses numbered as they appear, and without times."""
    files = dict[str, str]()
    schema = _renumbered(saved, _Numbers(), files)
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as archive:
        text = json.dumps(schema, separators=(",", ":"), ensure_ascii=False).encode()
        archive.writestr(_member(_SCHEMA, text), text)
        for old, new in files.items():
            archive.writestr(_member(new, members[old]), members[old])
    return result.getvalue()


class _Numbers:
    """Gives each address the number of its first appearance."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._next = 0

    def of(self, address: int | None) -> int:
        """Return the number of an address, or a fresh one for `None`."""
        if address is not None and address in self._known:
            return self._known[address]
        self._next += 1
        if address is not None:
            self._known[address] = self._next
        return self._next


def _renumbered(node: Any, numbers: _Numbers, files: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_renumbered(item, numbers, files) for item in node]
    if not isinstance(node, dict):
        return node
    # Whether two equal numbers or texts are one object is Python's affair, and may change.
    is_plain = node.get("__loader__") == "JsonNode"
    changed: dict[str, Any] = {}
    for key, value in node.items():
        if key == "__id__":
            changed[key] = numbers.of(None if is_plain else value)
        elif key == "file" and isinstance(value, str):
            suffix = value.rpartition(".")[2]
            changed[key] = files.setdefault(value, f"{len(files)}.{suffix}")
        elif key in _ADDRESSES and isinstance(value, dict):
            changed[key] = {**value, "content": "0", "__id__": numbers.of(None)}
        else:
            changed[key] = _renumbered(value, numbers, files)
    return changed


def _member(name: str, data: bytes) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED if len(data) > _SMALL else zipfile.ZIP_STORED
    return member
