"""A skops file as what it is made of, read without importing or building anything of it.

skops writes a zip archive: `schema.json`, a tree of nodes that name a loader, a module and a class
or function each, and arrays and bytes in members beside it. All of it is untrusted input. `read`
returns every name that loading would look up; `mlship.runtime.trust` decides about them.
"""

import functools
import io
import json
import math
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

import msgspec

from mlship.errors import IntegrityError

KEY, FACTORY, GENERATOR = "key", "default_factory", "bit_generator"
"""Uses that skops calls at once, with values of the file: each has a list of its own."""

_SCHEMA = "schema.json"
_START = b"PK\x03\x04"
_MEMBER = re.compile(r"[A-Za-z0-9-]{1,80}\.(npy|npz|bin)")
_NESTED = re.compile(r"[a-z_]{1,20}\.npy")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME = re.compile(r"[A-Za-z_]\w*|<lambda>")
_TEXT = "sklearn.feature_extraction.text"
_ENDINGS = {"NdArrayNode": "npy", "SparseMatrixNode": "npz"}
_SAVED_ANEW = frozenset({"__id__", "file"})
"""What differs where one object was saved twice."""

_PROTOCOL = 2
"""In older ones some names stand elsewhere; newer ones are not known."""

_FIXED = 8
_LENGTHS = {b"\x01\x00": 2, b"\x02\x00": 4}
"""How many bytes say the length of an array's header, by the version of its format."""

_LARGEST = 1 << 30
_LARGEST_RATIO = 200

_Where: TypeAlias = "tuple[_Where, str | int] | None"


class Part(msgspec.Struct, frozen=True):
    """A name that loading looks up.

    Attributes:
        use: the loader, which decides what is done with it, or `KEY`, `FACTORY`, `GENERATOR`.
        module: the module to import.
        name: the attribute of the module.
        where: the place in the estimator, such as `steps[0][1].func`.
        identity: the number by which the file tells objects apart.
    """

    use: str
    module: str
    name: str
    where: str
    identity: int | None

    @property
    def full(self) -> str:
        """The module and the name."""
        return f"{self.module}.{self.name}"


class _RefusedError(Exception):
    """Carries why a file is refused."""


def read(data: bytes, name: str) -> tuple[Part, ...]:
    """Return each name of a skops file once for each use.

    Args:
        data: the file.
        name: of the file, for the message.

    Raises:
        IntegrityError: it is no such file, or is made to mislead or to exhaust who reads it.
    """
    return _refused_by_name(lambda: _read(data), name)


def names(schema: Any, members: Iterable[str], name: str) -> tuple[Part, ...]:
    """Return each name of a skops file that is yet to be written once for each use.

    Args:
        schema: its schema, as JSON gives it.
        members: the names of its other members.
        name: of the file, for the message.

    Raises:
        IntegrityError: as `read`, for what the schema says.
    """
    return _refused_by_name(lambda: _Nodes(frozenset(members)).of(schema), name)


def _refused_by_name(call: Callable[[], tuple[Part, ...]], name: str) -> tuple[Part, ...]:
    try:
        return call()
    except _RefusedError as error:
        reason = str(error)
    except RecursionError:
        reason = "its objects are nested too deeply"
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError) as error:
        reason = f"it is damaged: {error}"
    hint = "nothing was loaded; save it again with skops, or train again"
    raise IntegrityError(f"{name} was refused: {reason}", hint=hint)


def _read(data: bytes) -> tuple[Part, ...]:
    if not data.startswith(_START):
        _refuse("it is not a zip archive")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _check_members(archive.infolist(), len(data))
        _check_arrays(archive)
        schema = json.loads(archive.read(_SCHEMA))
        return _Nodes(frozenset(archive.namelist())).of(schema)


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    names = [member.filename for member in members]
    if _SCHEMA not in names:
        _refuse(f"it has no {_SCHEMA}")
    if len(set(names)) != len(names):
        _refuse("two of its members have one name")
    for member in members:
        if member.filename != _SCHEMA and not _MEMBER.fullmatch(member.filename):
            _refuse(f"its member {member.filename[:80]!r} is none that skops writes")
        if stat.S_ISLNK(member.external_attr >> 16):
            _refuse(f"its member {member.filename} is a symbolic link")
    if sum(member.file_size for member in members) > max(_LARGEST, size * _LARGEST_RATIO):
        _refuse("it unpacks to far more than its size")


def _check_arrays(archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        if member.filename.endswith(".npy"):
            with archive.open(member) as file:
                _check_array(file, member)
        elif member.filename.endswith(".npz"):
            with zipfile.ZipFile(io.BytesIO(archive.read(member))) as nested:
                _check_sparse(nested, member)


def _check_sparse(nested: zipfile.ZipFile, outer: zipfile.ZipInfo) -> None:
    members = nested.infolist()
    size = sum(member.file_size for member in members)
    if size > max(_LARGEST, outer.file_size * _LARGEST_RATIO):
        _refuse(f"its member {outer.filename} unpacks to far more than its size")
    for member in members:
        if not _NESTED.fullmatch(member.filename):
            _refuse(f"its member {outer.filename} holds {member.filename[:80]!r}")
        with nested.open(member) as file:
            _check_array(file, member)


def _check_array(file: Any, member: zipfile.ZipInfo) -> None:
    """Refuse an array of objects, which is a pickle, and one whose size is not what it says."""
    start = file.read(_FIXED)
    size = _LENGTHS.get(start[6:8])
    if size is None:
        _refuse(f"its array {member.filename} is of an unknown version")
    start += file.read(size)
    header = start + file.read(int.from_bytes(start[_FIXED:], "little"))
    if (length := _length(header)) is None:
        _refuse(f"its array {member.filename} is a pickle")
    if length != member.file_size:
        _refuse(f"its array {member.filename} does not have the size that it says")


@functools.lru_cache(maxsize=1_000)
def _length(header: bytes) -> int | None:
    """Return the length of the file of an array with a header; `None` if it holds objects.

    The thousands of trees of a model have the same few headers, which take long to parse.
    """
    from numpy.lib import format as arrays

    file = io.BytesIO(header)
    is_first = arrays.read_magic(file) == (1, 0)
    read = arrays.read_array_header_1_0 if is_first else arrays.read_array_header_2_0
    shape, _, dtype = read(file)
    return None if dtype.hasobject else file.tell() + math.prod(shape) * dtype.itemsize


class _Nodes:
    """The nodes of a schema, each looked at."""

    def __init__(self, members: frozenset[str]) -> None:
        self._members = members
        self._parts: dict[tuple[str, str, str, int | None], Part] = {}
        self._known: dict[int, dict[str, Any]] = {}

    def of(self, schema: Any) -> tuple[Part, ...]:
        """Return the names in all nodes."""
        if not isinstance(schema, dict) or "__loader__" not in schema:
            _refuse(f"{_SCHEMA} is no node")
        if type(schema.get("protocol")) is not int or schema["protocol"] != _PROTOCOL:
            _refuse(f"its protocol is {schema.get('protocol')!r}")
        self._visit(schema, None)
        return tuple(self._parts.values())

    def _visit(self, value: Any, where: _Where) -> None:
        """Look at each node at any depth, whether or not its parent's loader gets to it."""
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)
        if isinstance(value, dict) and "__loader__" in value:
            self._look_at(value, where)
        for key, item in items:
            if isinstance(item, dict | list):
                self._visit(item, (where, key))

    def _look_at(self, node: dict[str, Any], where: _Where) -> None:
        use, module, name = (node.get(key) for key in ("__loader__", "__module__", "__class__"))
        if not (isinstance(use, str) and isinstance(module, str) and isinstance(name, str)):
            _refuse(f"a node at {_place(where)} does not say what it is")
        if not (_MODULE.fullmatch(module) and _NAME.fullmatch(name)):
            _refuse(f"a node at {_place(where)} has the impossible name {module}.{name}"[:200])
        self._check_identity(node, where)
        self._check_file(use, node, where)
        if use == "JsonNode":
            return
        self._add(use, module, _qualified(use, module, name, node), where, node)
        for inner_use, inner in _called(use, node):
            if not isinstance(inner, dict) or inner.get("__loader__") != "TypeNode":
                _refuse(f"a node at {_place(where)} calls what is no type")
            self._add(inner_use, str(inner["__module__"]), str(inner["__class__"]), where, inner)
        if use == "RandomGeneratorNode":
            generator = _inner(node, "content", "bit_generator", "content", "bit_generator")
            self._add(GENERATOR, "numpy.random", json.loads(generator["content"]), where, node)

    def _add(
        self, use: str, module: str, name: str, where: _Where, node: Mapping[str, Any]
    ) -> None:
        # Only functions are told apart: two of one name may be two.
        identity = node.get("__id__") if use == "FunctionNode" else None
        key = use, module, name, identity
        if key not in self._parts:
            self._parts[key] = Part(use, module, name, _place(where), identity)

    def _check_identity(self, node: dict[str, Any], where: _Where) -> None:
        """Refuse two nodes of one number that differ: loading takes one for the other."""
        number = node.get("__id__")
        if not isinstance(number, int) and not (number is None and where is None):
            _refuse(f"a node at {_place(where)} has no number")
        first = self._known.setdefault(number, node) if number is not None else node
        if first is not node and first != node and not _is_same(first, node):
            _refuse(f"two nodes have the number {number}, the second one at {_place(where)}")

    def _check_file(self, use: str, node: Mapping[str, Any], where: _Where) -> None:
        name = node.get("file")
        if name is None:
            return
        ending = _ENDINGS.get(use, "bin")
        if name not in self._members or not name.endswith(f".{ending}"):
            _refuse(f"a node at {_place(where)} names the member {str(name)[:80]!r}")


def _called(use: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return the nodes that a loader calls with values of the file, and the use that this is."""
    if use == "DictNode":
        keys = node.get("key_types")
        if not isinstance(keys, dict) or keys.get("__loader__") != "ListNode":
            _refuse("a dict does not say the types of its keys")
        yield from ((KEY, kind) for kind in keys["content"])
    elif use == "DefaultDictNode":
        factory = _inner(node, "content", "default_factory")
        if factory.get("__loader__") != "JsonNode":
            yield FACTORY, factory


def _qualified(use: str, module: str, name: str, node: Mapping[str, Any]) -> str:
    """Return a name with what makes it another: a method, or a vectorizer that opens files."""
    if use == "MethodNode":
        return f"{name}.{_inner(node, 'content', 'func')}"
    if use != "ObjectNode" or module != _TEXT:
        return name
    state = _inner(node, "content", "content")
    given = json.loads(_inner(state, "input", "content")) if "input" in state else "content"
    return name if given == "content" else f"{name}(input={given!r})"


def _inner(node: Any, *keys: str) -> Any:
    for key in keys:
        node = node[key] if isinstance(node, dict) else _refuse(f"a node has no {key}")
    return node


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            key in _SAVED_ANEW or _is_same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _place(where: _Where) -> str:
    steps: list[str] = []
    while where is not None:
        where, step = where
        if isinstance(step, int):
            steps.append(f"[{step}]")
        elif step not in ("content", "__reduce__"):
            steps.append(f".{step}")
    return "".join(reversed(steps)).lstrip(".")[:200] or "the top"


def _refuse(reason: str) -> NoReturn:
    raise _RefusedError(reason)
