"""Every command and option that a workflow calls exists."""

import re

import pytest
import yaml

from tests.docs.test_pages import problem
from tests.harness.workflows import PROJECTS, rendered


@pytest.mark.parametrize("project", PROJECTS)
def test_commands_and_options_of_the_workflows_exist(project: str) -> None:
    calls = [
        match[1]
        for text in rendered(project).values()
        for job in yaml.safe_load(text)["jobs"].values()
        for step in job["steps"]
        for match in re.finditer(r"(?m)^ *mlship( .*?)(?: -- .*| \|\| .*)?$", step.get("run", ""))
    ]
    assert len(calls) >= 10
    assert not [f"mlship{call}: {wrong}" for call in calls if (wrong := problem(call))]
