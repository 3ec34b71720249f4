"""The arrows of import: cli -> wire -> adapters -> ports -> values, and steps -> ports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mlship"

VALUES = {
    "approvals",
    "backends",
    "bundle",
    "clusters",
    "config",
    "container",
    "deployment",
    "digests",
    "errors",
    "evidence",
    "generated",
    "history",
    "image",
    "job",
    "prediction",
    "profiles",
    "pullrequest",
    "release",
    "repository",
    "scores",
    "versions",
    "workflows",
}
PURE = VALUES | {
    "confidence",
    "drift",
    "gates",
    "keys",
    "ports",
    "probes",
    "settings",
    "shifts",
    "workload",
}
ADAPTERS = {"checkout", "forges", "images", "ledgers", "observations", "stores", "targets"}
VENDORS = {
    "docker",
    "envoy",
    "google",
    "granian",
    "kubernetes",
    "lightgbm",
    "matplotlib",
    "mlflow",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "prometheus_client",
    "psycopg",
    "skl2onnx",
    "sklearn",
    "skops",
    "xgboost",
}

MAY_IMPORT = {
    **dict.fromkeys(VALUES, VALUES),
    "confidence": VALUES,
    "drift": VALUES,
    "gates": VALUES,
    "ports": VALUES,
    "keys": VALUES,
    "settings": VALUES | {"keys"},
    "probes": VALUES,
    "shifts": VALUES,
    "workload": VALUES,
    "reports": PURE | {"reports"},
    "steps": PURE | {"steps", "reports"},
    # How MLflow is reached: two kinds of adapters keep things there.
    "tracking": {"digests", "errors", "tracking"},
    **{name: PURE | {name} for name in ADAPTERS},
    **{name: PURE | {name, "tracking"} for name in ("ledgers", "stores")},
    "runtime": {"bundle", "prediction", "digests", "errors", "runtime"},
    # Its process shares files, requests and locks with the adapter that starts it.
    "training": PURE | {"checkout", "runtime", "training"},
    "testing": {"bundle", "digests", "errors", "runtime", "testing"},
    "templates": PURE | {"templates"},
    "__main__": {"cli"},
    "reference": PURE | {"cli"},
    "wire": PURE | ADAPTERS | {"steps"},
    "wire_doctor": PURE | ADAPTERS | {"steps", "wire"},
    "cli": PURE | {"cli", "steps", "reports", "wire", "wire_doctor", "templates"},
}
MAY_USE_VENDORS = ADAPTERS | {"runtime", "tracking", "training"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        yield (relative.parts[0].removesuffix(".py"), path)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "mlship":
                yield from ((node.lineno, f"mlship.{name.name}") for name in node.names)
            else:
                yield node.lineno, node.module


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_follow_the_arrows(part: str) -> None:
    wrong = []
    for owner, path in modules():
        for line, name in imported(path):
            other = name.split(".")[1] if name.startswith("mlship.") else ""
            arrow = other and not other.startswith("__")
            if owner == part and arrow and other not in MAY_IMPORT[part]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_part_of_the_package_has_a_rule() -> None:
    assert {owner for owner, _ in modules()} - {"__init__"} <= set(MAY_IMPORT)


def test_only_adapters_and_what_runs_models_use_vendors() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for owner, path in modules()
        if owner not in MAY_USE_VENDORS
        for line, name in imported(path)
        if name.split(".")[0] in VENDORS
    ]
    assert not wrong, "\n".join(wrong)


def test_adapters_do_not_import_each_other() -> None:
    for part in ADAPTERS:
        assert not (MAY_IMPORT[part] & (ADAPTERS - {part}))


def test_a_port_has_at_most_five_methods() -> None:
    tree = ast.parse((PACKAGE / "ports.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            assert len(methods) <= 5, node.name


def test_a_module_has_at_most_300_lines_and_a_function_at_most_50() -> None:
    wrong = []
    for _, path in modules():
        text = path.read_text()
        if text.count("\n") > 300:
            wrong.append(f"{path.relative_to(PACKAGE)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                words = ast.get_docstring(node, clean=False) or ""
                length = node.end_lineno - node.lineno + 1 - words.count("\n")
                if length > 50:
                    wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: {length}")
    assert not wrong, "\n".join(wrong)
