"""What an image and a registered version have of mlship is all that the runtime imports."""

import ast
from pathlib import Path

from mlship.config import sources

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mlship"


def imported(path: Path) -> set[Path]:
    """Return the files of mlship that a file imports, also within functions."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE.name:
                found |= files_of(name)
    return found


def files_of(name: str) -> set[Path]:
    """Return the file of a module with those of the packages that it is in; none for a value."""
    parts = name.split(".")
    module = ROOT.joinpath(*parts).with_suffix(".py")
    package = ROOT.joinpath(*parts, "__init__.py")
    above = {ROOT.joinpath(*parts[:end], "__init__.py") for end in range(1, len(parts))}
    return {path for path in {module, package} | above if path.is_file()}


def test_the_runtime_has_all_that_it_imports_and_no_more() -> None:
    needed = set((PACKAGE / "runtime").rglob("*.py"))
    open_files = list(needed)
    while open_files:
        new = imported(open_files.pop()) - needed
        needed |= new
        open_files += new
    names = {path.relative_to(PACKAGE).as_posix() for path in needed}
    given = {name for name in sources.of_runtime() if name.endswith(".py")}
    assert given == names
