"""The arrows of import, stated by folder: a new module needs no new line here."""

import ast
from collections import deque
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mlship"

FOUNDATION = {"mlship.errors", "mlship.files"}
SHARED = FOUNDATION | {"mlship.domain", "mlship.config"}
RUNTIME = FOUNDATION | {"mlship.domain", "mlship.runtime"}
ENVOY = "mlship.adapters.targets.envoy"
"""What the parent load balancers of several targets share."""
REPLICA = "mlship.adapters.targets.replica"
"""What a replica says of itself, wherever it runs."""
DOORS = {"mlship.adapters.http", "mlship.adapters.mlflow"}
REGISTRY = "mlship.adapters.images.registry"
ARTIFACTS = {"mlship.adapters.artifacts"}
TABLES = {"mlship.adapters.tables"}
"""Tables of a lake are data of a training and of a batch."""
EXCEPTIONS = {
    "mlship.adapters.artifacts": {REGISTRY},
    "mlship.adapters.checkout": TABLES,
    # For Google's token.
    "mlship.adapters.keys": {"mlship.adapters.targets.gke"},
    "mlship.adapters.ledgers": ARTIFACTS,
    "mlship.adapters.rows": TABLES,
    "mlship.adapters.stores": ARTIFACTS,
    "mlship.adapters.targets.gke": {"mlship.adapters.targets.kubernetes"},
    "mlship.adapters.targets.google": {
        "mlship.adapters.targets.gke",
        "mlship.adapters.targets.kubernetes",
    },
    "mlship.adapters.targets.kubernetes": {ENVOY, REPLICA},
    "mlship.adapters.targets.local": {ENVOY, REPLICA},
}
"""What adapters may import of others, beside the doors."""

ARROWS: dict[str, set[str]] = {
    "mlship.errors": set(),
    "mlship.files": set(),
    "mlship.domain": FOUNDATION | {"mlship.domain"},
    "mlship.config": SHARED,
    "mlship.reports": SHARED | {"mlship.reports"},
    "mlship.steps": SHARED | {"mlship.reports", "mlship.steps"},
    "mlship.adapters.http": FOUNDATION | {"mlship.adapters.http"},
    "mlship.adapters.load": SHARED | {"mlship.adapters.load"},
    "mlship.adapters.mlflow": SHARED | DOORS,
    "mlship.adapters.artifacts": SHARED | {"mlship.adapters.artifacts", REGISTRY},
    "mlship.adapters.checkout": SHARED | TABLES | {"mlship.adapters.checkout"},
    "mlship.adapters.forges": SHARED | DOORS | {"mlship.adapters.forges"},
    "mlship.adapters.images": SHARED | DOORS | {"mlship.adapters.images"},
    "mlship.adapters.keys": SHARED
    | DOORS
    | {"mlship.adapters.keys", "mlship.adapters.targets.gke"},
    "mlship.adapters.ledgers": SHARED | DOORS | ARTIFACTS | {"mlship.adapters.ledgers"},
    "mlship.adapters.observations": SHARED | {"mlship.adapters.observations"},
    "mlship.adapters.rows": SHARED | TABLES | {"mlship.adapters.rows"},
    "mlship.adapters.stores": SHARED | DOORS | ARTIFACTS | {"mlship.adapters.stores"},
    "mlship.adapters.streams": SHARED | {"mlship.adapters.streams"},
    "mlship.adapters.tables": SHARED | TABLES,
    "mlship.adapters.targets.envoy": SHARED | {ENVOY},
    REPLICA: SHARED,
    "mlship.adapters.targets.local": SHARED
    | DOORS
    | {"mlship.adapters.targets.local", ENVOY, REPLICA},
    "mlship.adapters.targets.kubernetes": SHARED
    | DOORS
    | {"mlship.adapters.targets.kubernetes", ENVOY, REPLICA},
    "mlship.adapters.targets.gke": SHARED
    | DOORS
    | {"mlship.adapters.targets.gke", "mlship.adapters.targets.kubernetes"},
    "mlship.adapters.targets.google": SHARED
    | DOORS
    | {
        "mlship.adapters.targets.gke",
        "mlship.adapters.targets.google",
        "mlship.adapters.targets.kubernetes",
    },
    "mlship.runtime": RUNTIME,
    # Tests of a project get its data, as a training reads them.
    "mlship.testing": RUNTIME | {"mlship.config", "mlship.testing", "mlship.training"},
    # Its process shares files, requests and locks with the adapter that starts it.
    "mlship.training": SHARED | {"mlship.adapters.checkout", "mlship.runtime", "mlship.training"},
    "mlship.templates": SHARED | {"mlship.templates"},
    "mlship.wire": SHARED | {"mlship.adapters", "mlship.steps", "mlship.wire"},
    "mlship.cli": SHARED
    | {"mlship.cli", "mlship.reports", "mlship.steps", "mlship.templates", "mlship.wire"},
    "mlship.__main__": {"mlship.cli"},
}
"""What each folder may import; the longest name that fits a module holds for it."""

VENDORS = {
    "aiohttp",
    "confluent_kafka",
    "cryptography",
    "docker",
    "envoy",
    "fastavro",
    "google",
    "httptools",
    "kubernetes",
    "lightgbm",
    "matplotlib",
    "mlflow",
    "numpy",
    "onnx",
    "onnxruntime",
    "opentelemetry",
    "pandas",
    "prometheus_client",
    "psycopg",
    "rfc3161_client",
    "sigstore",
    "sigstore_models",
    "skl2onnx",
    "sklearn",
    "skops",
    "uvloop",
    "xgboost",
    "xxhash",
}
MAY_USE_VENDORS = {"mlship.adapters", "mlship.runtime", "mlship.testing", "mlship.training"}
GOOGLE = {"google.api_core", "google.auth", "google.cloud"}
"""Not `google.protobuf`, which is of the extra for gRPC and loaded for it only."""
RUNTIME_ONLY = GOOGLE | {"docker", "matplotlib", "mlflow", "skl2onnx"}
"""What an image for serving does not hold, so that nothing that serving loads may lead to it."""


PROSE = {"its own vendor", "the standard library and msgspec"}


def is_in(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


def rule(module: str) -> str | None:
    return max((folder for folder in ARROWS if is_in(module, folder)), key=len, default=None)


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imported(module: str) -> tuple[tuple[int, str], ...]:
    """Return line and name of all that a module imports, wherever in it; names of modules whole."""
    names: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.append((node.lineno, whole if whole in modules() else node.module))
    return tuple(names)


def arrows(module: str) -> Iterator[str]:
    return (name for _, name in imported(module) if name in modules())


def chain(start: str, wrong: str) -> str:
    """Return the shortest way by imports from a module to a name, for the person who mends it."""
    seen, waiting = {start}, deque[tuple[str, ...]]([(start,)])
    while waiting:
        way = waiting.popleft()
        for _, name in imported(way[-1]):
            if is_in(name, wrong):
                return " -> ".join((*way, name))
            if name in modules() and name not in seen:
                seen.add(name)
                waiting.append((*way, name))
    return f"{start} -> ... -> {wrong}"


@pytest.mark.parametrize("folder", sorted(ARROWS))
def test_imports_follow_the_arrows(folder: str) -> None:
    wrong = [
        f"{modules()[module].relative_to(PACKAGE.parent)}:{line}: {module} -> {name}"
        for module in modules()
        if rule(module) == folder
        for line, name in imported(module)
        if is_in(name, "mlship")
        and name not in {"mlship", folder}
        and not any(is_in(name, allowed) for allowed in ARROWS[folder])
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_rule_and_every_rule_a_module() -> None:
    folders = {rule(module) for module in modules()}
    packages = {"mlship", "mlship.adapters", "mlship.adapters.targets"}
    assert {module for module in modules() if rule(module) is None} == packages
    assert folders - {None} == set(ARROWS)


def test_the_page_of_layers_names_each_folder_and_its_arrows() -> None:
    page = PACKAGE.parent / "docs" / "architecture" / "02-layers-and-imports.md"
    rows = [
        line.split("|")[1:-1] for line in page.read_text().splitlines() if line.startswith("| ")
    ]
    told = {cells[0].strip().rstrip("/"): cells[2] for cells in rows[2:]}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert set(told) == folders
    for folder, arrows_told in told.items():
        rules = [allowed for name, allowed in ARROWS.items() if is_in(name, f"mlship.{folder}")]
        own = {f"mlship.{folder}"} | FOUNDATION
        expected = {
            name.removeprefix("mlship.").replace(".", "/")
            for name in set().union(*rules) - own
            if not is_in(name, f"mlship.{folder}")
        }
        named = {part.strip() for part in arrows_told.split(",")} - PROSE
        assert named == expected, folder


def test_an_adapter_imports_no_step_and_no_other_adapter() -> None:
    for folder, allowed in ARROWS.items():
        if is_in(folder, "mlship.adapters"):
            others = {one for one in allowed if is_in(one, "mlship.adapters")} - DOORS - {folder}
            assert others <= EXCEPTIONS.get(folder, set()), folder
            assert not {one for one in allowed if is_in(one, "mlship.steps")}, folder


def test_only_adapters_and_what_runs_models_use_vendors() -> None:
    wrong = [
        f"{modules()[module].relative_to(PACKAGE.parent)}:{line}: {module} -> {name}"
        for module in modules()
        if not any(is_in(module, folder) for folder in MAY_USE_VENDORS)
        for line, name in imported(module)
        if name.split(".")[0] in VENDORS
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("vendor", sorted(RUNTIME_ONLY))
def test_serving_reaches_nothing_that_its_image_lacks(vendor: str) -> None:
    ways = {
        module: chain(module, vendor) for module in modules() if rule(module) == "mlship.runtime"
    }
    wrong = [way for way in ways.values() if "..." not in way]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: set(arrows(module)) - {module} for module in modules()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_the_top_holds_few_things() -> None:
    folders = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    loose = [path for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert len(folders) <= 12, sorted(path.name for path in folders)
    assert len(loose) <= 3, sorted(path.name for path in loose)


def test_a_port_has_at_most_five_methods() -> None:
    files = [PACKAGE / "domain" / name for name in ("ports.py", "publishing.py", "pullrequest.py")]
    for node in (node for file in files for node in ast.parse(file.read_text()).body):
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            assert len(methods) <= 5, node.name


def test_a_module_has_at_most_400_lines_and_a_function_at_most_50() -> None:
    wrong = []
    for path in modules().values():
        text = path.read_text()
        if text.count("\n") > 400:
            wrong.append(f"{path.relative_to(PACKAGE)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                words = ast.get_docstring(node, clean=False) or ""
                length = node.end_lineno - node.lineno + 1 - words.count("\n")
                if length > 50:
                    wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: {length}")
    assert not wrong, "\n".join(wrong)
