"""Nobody reads facts by key, or text that mlship wrote itself: values are read, by their type."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mlship"
WORDS = ("ok: ", "NOT OK")
"""Made in domain/checks.py alone, for people."""

SEARCHES = ("startswith", "endswith", "find", "partition")

LOOKUPS = {
    "facts by key": 'record.evidence.facts["digest"]',
    "facts that may be there": 'record.evidence.facts.get("role")',
    "a key among the facts": '"weights" in record.evidence.facts',
    "words of a gate": 'reason.startswith("NOT OK")',
    "an exit code compared": "503 if error.exit_code == 4 else 500",
    "a message searched": '"not ready" in error.message',
    "a hint read": 'problem.hint.startswith("run")',
}


def lookups(source: str, *, words: bool = True) -> list[str]:
    """Return the expressions in which facts, messages or exit codes are looked into."""
    return [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.expr) and (_looks_into(node) or (words and _is_word(node)))
    ]


def _looks_into(node: ast.expr) -> bool:
    match node:
        case ast.Subscript(value=ast.Attribute(attr="facts")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="facts"), attr="get")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Attribute() as text, attr=method)):
            return method in SEARCHES and _is_ours(text)
        case ast.Compare(left=ast.Attribute(value=ast.Name(id="error"), attr="exit_code")):
            return True
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Attribute(attr=name)]):
            return name in ("facts", "message", "hint")
    return False


def _is_ours(text: ast.Attribute) -> bool:
    is_error = isinstance(text.value, ast.Name) and text.value.id in ("error", "problem")
    return is_error and text.attr in ("message", "hint")


def _is_word(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith(WORDS)
    )


@pytest.mark.parametrize("source", LOOKUPS.values(), ids=list(LOOKUPS))
def test_a_lookup_is_found(source: str) -> None:
    assert lookups(source)


def test_the_package_looks_into_no_facts_messages_or_exit_codes() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in sorted(PACKAGE.rglob("*.py"))
        if (lines := lookups(path.read_text(), words=path.name != "checks.py"))
    }
    assert found == {}
