"""The README lists every extra, and says which of them `all` includes."""

import re
import tomllib

from tests.docs.blocks import ROOT

_ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)


def test_every_extra_is_listed_above_all_if_it_is_part_of_it() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = _ROW.findall(readme.partition("\n## Extras\n")[2].partition("\n## ")[0])
    listed = [name for row in rows for name in re.findall(r"\w+", row)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    [everything] = re.findall(r"\[(.*)\]", "".join(extras["all"]))
    assert sorted(listed) == sorted(extras)
    assert sorted(listed[: listed.index("all")]) == sorted(everything.split(","))
