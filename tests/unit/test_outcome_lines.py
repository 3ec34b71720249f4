"""Lines of outcomes that a lenient reader would take for something else are refused."""

from pathlib import Path

import pytest

from mlship.errors import ProjectError
from mlship.steps import outcome_files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("customer,outcome\nc1,1,234\n", r":2: the line has 3 fields, and the header 2"),
        ("customer,outcome,outcome\nc1,1,2\n", r":1: the header has outcome twice"),
        ("customer,customer,outcome\nc1,c2,1\n", r":1: the header has customer twice"),
        ('customer,outcome,note\nc1,1,"5" pipe\nc2,2,"x"\n', r"cannot read .*outcomes.csv"),
        ('customer,outcome,note\nc1,1,"open\nc2,2,x\n', r"cannot read .*outcomes.csv"),
    ],
)
def test_a_line_that_is_not_as_its_header_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text(text)
    with pytest.raises(ProjectError, match=message):
        outcome_files.read(path, ["amount"], "customer")


def test_a_comma_in_quotes_and_a_column_of_notes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text('customer,outcome,note\n"c,1",1,"a ""b"""\nc2,2,\n')
    read = outcome_files.read(path, ["amount"], "customer")
    assert [(each.name, each.value) for each in read] == [("c,1", "1"), ("c2", "2")]
