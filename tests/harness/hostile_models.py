"""Model files that try to run code, read other files or exhaust who loads them.

Each is written for a path of a marker: a file that exists only if the attempt succeeded.
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import sklearn
import skops.io
from onnx import TensorProto, helper
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

Write = Callable[[Path], bytes]
Node = dict[str, Any]


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def pickled(marker: Path) -> bytes:
    return pickle.dumps(Touch(marker), 4)


def text_pickle(marker: Path) -> bytes:
    return pickle.dumps(Touch(marker), 0)


def compressed(marker: Path) -> bytes:
    file = io.BytesIO()
    joblib.dump(Touch(marker), file, compress=("zlib", 3))
    return file.getvalue()


def zipped(marker: Path) -> bytes:
    return archive({"archive/data.pkl": pickled(marker), "archive/version": b"3"})


def tarred(marker: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        data = pickled(marker)
        member = tarfile.TarInfo("model.pkl")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return file.getvalue()


def crafted(node: Node, **members: bytes) -> bytes:
    """Return a skops file of a node, with members beside it: `a_npy` is `a.npy`."""
    schema = {**node, "protocol": 2, "_skops_version": "0.14.0"}
    named = {name.replace("_", "."): data for name, data in members.items()}
    return archive({"schema.json": json.dumps(schema).encode(), **named})


def dumps(estimator: Any) -> bytes:
    data: bytes = skops.io.dumps(estimator)
    return data


def node(loader: str, name: str, **fields: Any) -> Node:
    module, _, kind = name.rpartition(".")
    known = {"__loader__": loader, "__module__": module, "__class__": kind}
    return {**known, "__id__": abs(hash((loader, name, repr(fields)))), **fields}


def plain(value: Any) -> Node:
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def listed(*nodes: Node, name: str = "builtins.list", loader: str = "ListNode") -> Node:
    return node(loader, name, content=list(nodes))


def mapped(nodes: dict[str, Node], keys: Node | None = None) -> Node:
    kinds = listed(*([keys or node("TypeNode", "builtins.str")] * len(nodes)))
    return node("DictNode", "builtins.dict", content=nodes, key_types=kinds)


def regression(**state: Node) -> Node:
    """Return an estimator whose state has something more."""
    state["_sklearn_version"] = plain(sklearn.__version__)
    return node("ObjectNode", "sklearn.linear_model._base.LinearRegression", content=mapped(state))


def array(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def touching(marker: Path) -> Node:
    return listed(plain("touch"), plain(str(marker)))


def popen_by(loader: str) -> Write:
    def write(marker: Path) -> bytes:
        if loader == "ListNode":
            made = listed(plain("touch"), plain(str(marker)), name="subprocess.Popen")
        elif loader == "LossNode":
            arguments = listed(touching(marker), loader="TupleNode", name="builtins.tuple")
            made = node(
                loader, "subprocess.Popen", __reduce__={"args": arguments}, content=mapped({})
            )
        else:
            arguments = listed(touching(marker), loader="TupleNode", name="builtins.tuple")
            made = node(loader, "subprocess.Popen", content=arguments)
        return crafted(regression(coef_=made))

    return write


def keyed(marker: Path) -> bytes:
    """A function for the type of a key, which is called with the key."""
    attributes = {f"touch {marker}": plain(1)}
    return crafted(regression(coef_=mapped(attributes, node("TypeNode", "posix.system"))))


def keyed_by_number(marker: Path) -> bytes:
    """The same, hidden behind the number of another node."""
    function = node("TypeNode", "posix.system")
    innocent = {**node("TypeNode", "builtins.str"), "__id__": function["__id__"]}
    attributes = {f"touch {marker}": plain(1)}
    return crafted(regression(a=function, coef_=mapped(attributes, innocent)))


def scalar(marker: Path) -> bytes:
    """A function for the type of a number, which is called with the number's array."""
    made = node("NdArrayNode", "subprocess.getoutput", type="numpy", file="a.npy")
    return crafted(regression(coef_=made), a_npy=array(np.array(f"touch {marker}")))


def called(marker: Path) -> bytes:
    """A class for the type of a dict, which is called without arguments."""
    made = node("DictNode", "tempfile.TemporaryFile", content={}, key_types=listed())
    return crafted(regression(coef_=made))


def default(marker: Path) -> bytes:
    """A function that makes the values of missing keys."""
    factory = node("TypeNode", "posix.getcwd")
    made = {"main": mapped({}), "default_factory": factory}
    return crafted(
        regression(coef_=node("DefaultDictNode", "collections.defaultdict", content=made))
    )


def generator(marker: Path) -> bytes:
    """A function of numpy.random for the name of a generator."""
    state = {"bit_generator": mapped({"bit_generator": plain("seed")}), "seed_seq": mapped({})}
    made = node("RandomGeneratorNode", "numpy.random._generator.Generator", content=state)
    return crafted(regression(coef_=made))


def distribution(marker: Path) -> bytes:
    """A distribution of scipy, which runs a text of its state when that is set."""
    frozen = stats.loguniform(1, 2)
    frozen.dist._parse_arg_template = f"open({str(marker)!r}, 'w')"
    return dumps(attribute("coef_", frozen))


def attribute(name: str, value: Any) -> LinearRegression:
    made = LinearRegression()
    setattr(made, name, value)
    return made


def method(marker: Path) -> bytes:
    return dumps(make_pipeline(FunctionTransformer(marker.write_text), LinearRegression()))


def functions(function: Any) -> Write:
    def write(marker: Path) -> bytes:
        return dumps(make_pipeline(FunctionTransformer(function), LinearRegression()))

    return write


def old_protocol(marker: Path) -> bytes:
    """The form of a former version, in which a function's name stands elsewhere."""
    made = node("FunctionNode", "numpy.exp", content={"module_path": "os", "function": "system"})
    schema = {**regression(coef_=made), "protocol": 0, "_skops_version": "0.1"}
    return archive({"schema.json": json.dumps(schema).encode()})


def object_array(marker: Path) -> bytes:
    made = node("NdArrayNode", "numpy.ndarray", type="numpy", file="a.npy")
    data = array(np.array([Touch(marker)], dtype=object), allow_pickle=True)
    return crafted(regression(coef_=made), a_npy=data)


def long_array(marker: Path) -> bytes:
    """An array that says to have a thousand times the numbers that follow."""
    made = node("NdArrayNode", "numpy.ndarray", type="numpy", file="a.npy")
    data = array(np.zeros(100_000))[:200].replace(b"(100000,)", b"(10**9,)", 1)
    return crafted(regression(coef_=made), a_npy=data.replace(b"(10**9,)", b"(999999,)"))


def bomb(marker: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("schema.json", json.dumps({**plain(1), "protocol": 2}))
        long = zipfile.ZipInfo("a.bin")
        long.compress_type = zipfile.ZIP_DEFLATED
        with target.open(long, "w", force_zip64=True) as member:
            for _ in range(1100):
                member.write(bytes(1 << 20))
    return file.getvalue()


def nested(marker: Path) -> bytes:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    return archive({"schema.json": deep.encode()})


def outside(marker: Path) -> bytes:
    schema = json.dumps({**plain(1), "protocol": 2}).encode()
    return archive({"schema.json": schema, f"../../{marker.name}": b"x"})


def twice(marker: Path) -> bytes:
    """Two schemas under one name: who checks may read another one than who loads."""
    good, bad = dumps(LinearRegression()), popen_by("ListNode")(marker)
    schemas = [zipfile.ZipFile(io.BytesIO(each)).read("schema.json") for each in (bad, good)]
    data = archive({"schema.json": schemas[0], "schemb.json": schemas[1]})
    return data.replace(b"schemb.json", b"schema.json")


def linked(marker: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("schema.json", json.dumps({**plain(1), "protocol": 2}))
        member = zipfile.ZipInfo("a.npy")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(member, "/etc/passwd")
    return file.getvalue()


def prefixed(marker: Path) -> bytes:
    """A pickle before a skops file: each reader sees its own."""
    return pickled(marker) + dumps(LinearRegression())


def onnx_model(
    *,
    initializer: TensorProto | None = None,
    attribute: TensorProto | None = None,
    domain: str = "",
    operator: str = "Identity",
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 2])]
    nodes = [helper.make_node(operator, ["x"], ["y"], domain=domain)]
    if attribute is not None:
        nodes.append(helper.make_node("Constant", [], ["c"], value=attribute))
    initializers = [initializer] if initializer is not None else []
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def serialised(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString()
    return data


def external(marker: Path) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.DOUBLE, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    return tensor


def in_subgraph(marker: Path) -> bytes:
    model = onnx_model()
    inner = helper.make_graph([], "inner", [], [], [external(marker)])
    model.graph.node.append(
        helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner)
    )
    return serialised(model)


def in_sparse(marker: Path) -> bytes:
    model = onnx_model()
    model.graph.sparse_initializer.add().values.CopyFrom(external(marker))
    return serialised(model)


def in_function(marker: Path) -> bytes:
    model = onnx_model(domain="own", operator="F")
    inner = helper.make_node("Load", ["x"], ["y"], domain="com.example")
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], [inner], []))
    return serialised(model)


def in_training(marker: Path) -> bytes:
    model = onnx_model()
    model.training_info.add().algorithm.initializer.append(external(marker))
    return serialised(model)


def _onnx(**parts: Any) -> Write:
    def write(marker: Path) -> bytes:
        made = {name: each(marker) if callable(each) else each for name, each in parts.items()}
        return serialised(onnx_model(**made))

    return write


FILES: dict[str, tuple[str, Write, str]] = {
    **{f"pickle as {end}": (end, pickled, "a pickle") for end in (".onnx", ".skops", ".ubj")},
    **{f"pickle as {end}": (end, pickled, "a pickle") for end in (".json", ".txt")},
    **{f"old pickle as {end}": (end, text_pickle, "a pickle") for end in (".onnx", ".skops")},
    **{f"old pickle as {end}": (end, text_pickle, "a pickle") for end in (".ubj", ".json", ".txt")},
    "pickle": (".pkl", pickled, "loading a pickle runs its code"),
    "joblib": (".joblib", pickled, "loading a pickle runs its code"),
    "compressed joblib as .skops": (".skops", compressed, "a compressed joblib file"),
    "compressed joblib as .onnx": (".onnx", compressed, "a compressed joblib file"),
    **{f"zip as {end}": (end, zipped, "a zip archive") for end in (".onnx", ".ubj", ".json")},
    "zip as .txt": (".txt", zipped, "a zip archive"),
    "zip of PyTorch as .skops": (".skops", zipped, r"has no schema\.json"),
    "gzip as .onnx": (".onnx", lambda m: gzip.compress(pickled(m)), "a gzip archive"),
    "bzip2 as .ubj": (".ubj", lambda m: bz2.compress(pickled(m)), "a bzip2 archive"),
    "xz as .txt": (".txt", lambda m: lzma.compress(pickled(m)), "an xz archive"),
    "tar as .onnx": (".onnx", tarred, "a tar archive"),
    "PyTorch": (".pt", zipped, "loading a pickle runs its code"),
    "HDF5": (".h5", lambda m: b"\x89HDF\r\n\x1a\n", "holds weights, or code beside them"),
    "pickle before skops": (".skops", prefixed, "a pickle"),
    "skops of a process as a list": (".skops", popen_by("ListNode"), r"subprocess\.Popen"),
    "skops of a process as an object": (
        ".skops",
        popen_by("ConstructorFromReduceNode"),
        r"subprocess\.Popen",
    ),
    "skops of a process as a loss": (".skops", popen_by("LossNode"), r"subprocess\.Popen"),
    "skops with a function as a key": (".skops", keyed, r"posix\.system"),
    "skops with two nodes of one number": (".skops", keyed_by_number, "two nodes have the number"),
    "skops with a function as a number": (".skops", scalar, r"subprocess\.getoutput"),
    "skops with a class as a dict": (".skops", called, r"tempfile\.TemporaryFile"),
    "skops with a function as a default": (".skops", default, r"posix\.getcwd"),
    "skops with a function as a generator": (".skops", generator, r"numpy\.random\.seed"),
    "skops of a distribution": (".skops", distribution, r"scipy\.stats\._"),
    "skops with a bound method": (".skops", method, "PosixPath"),
    "skops with a function": (".skops", functions(subprocess.getoutput), r"subprocess\.getoutput"),
    "skops of an old protocol": (".skops", old_protocol, "its protocol is 0"),
    "skops with a pickled array": (".skops", object_array, r"a\.npy is a pickle"),
    "skops with an array that ends early": (".skops", long_array, "the size that it says"),
    "skops that unpacks without end": (".skops", bomb, "far more than its size"),
    "skops nested without end": (".skops", nested, "nested too deeply"),
    "skops with a member outside": (".skops", outside, "none that skops writes"),
    "skops with two schemas": (".skops", twice, "two of its members have one name"),
    "skops with a link": (".skops", linked, "is a symbolic link"),
    "ONNX with external data": (".onnx", _onnx(initializer=external), "lie in another file"),
    "ONNX with an external constant": (".onnx", _onnx(attribute=external), "lie in another file"),
    "ONNX with an external tensor in a branch": (".onnx", in_subgraph, "lie in another file"),
    "ONNX with external sparse data": (".onnx", in_sparse, "lie in another file"),
    "ONNX with a custom operator": (
        ".onnx",
        _onnx(domain="com.example", operator="Load"),
        r"the operator Load of com\.example",
    ),
    "ONNX with one in a function": (".onnx", in_function, r"the operator Load of com\.example"),
    "ONNX with a context of a device": (
        ".onnx",
        _onnx(domain="com.microsoft", operator="EPContext"),
        "the operator EPContext",
    ),
    "ONNX to be trained": (".onnx", in_training, "training information"),
    "ORT as .onnx": (".onnx", lambda m: b"\x00\x00\x00\x00ORTM" + bytes(64), "not an ONNX model"),
    "ONNX that ends early": (".onnx", lambda m: _onnx()(m)[:-3], "not an ONNX model"),
}
"""By name: the ending, what writes the bytes, and what the refusal says."""
