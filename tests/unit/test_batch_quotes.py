"""Quotes of CSV: what a lenient reader takes for another row is refused."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlship.errors import ProjectError
from mlship.runtime.batches.quotes import CheckedText, QuoteCheck


def checked(text: bytes, step: int, sep: str = ",") -> None:
    check = QuoteCheck("a.csv", sep)
    for start in range(0, len(text), step):
        check.feed(text[start : start + step])
    check.finish()


STEPS = pytest.mark.parametrize("step", [1, 2, 3, 1000])


@STEPS
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"a,b\n1,2\n",
        b'"a","b"\r\n"1\n","2"',
        b'"",""\n"""a""","b""c"\n',
        b'\xef\xbb\xbf"a",1\n',
        b'1,"a"\r"b",2\r',
    ],
)
def test_quotes_of_whole_fields_are_accepted(text: bytes, step: int) -> None:
    checked(text, step)


@STEPS
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'1,"5 inch\n2,3\n', "ends within quotes, which begin at '\"5 inch"),
        (b'1,"5 inch\n2,3\n4,"7 inch\n', "a quote within a field, at .*7 inch"),
        (b'1,"0.2"9\n', "a quote within a field"),
        (b'1,5" pipe\n', "a quote within a field"),
        (b'1, "a"\n', "a quote within a field"),
        (b'""a",1\n', "a quote within a field"),
    ],
)
def test_other_quotes_are_named(text: bytes, says: str, step: int) -> None:
    with pytest.raises(ProjectError, match=says.replace("'", ".")[:24] if step < 9 else says):
        checked(text, step)


def test_the_separator_is_that_of_the_file() -> None:
    checked(b'"a";"b"\n', 1000, ";")
    with pytest.raises(ProjectError, match="within a field"):
        checked(b'"a","b"\n', 1000, ";")


@given(
    st.lists(st.lists(st.text(st.sampled_from('ab,"\n\r '), max_size=6), min_size=2, max_size=3)),
    st.integers(1, 9),
)
def test_what_a_writer_of_csv_writes_is_accepted(rows: list[list[str]], step: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_MINIMAL, lineterminator="\n").writerows(rows)
    checked(text.getvalue().encode(), step)


def test_a_file_is_checked_as_it_is_read() -> None:
    file = CheckedText(io.BytesIO(b'a,"b'), QuoteCheck("a.csv.gz", ","))
    assert file.read(3) == b'a,"'
    assert file.read(3) == b"b"
    with pytest.raises(ProjectError, match="ends within quotes"):
        file.read(3)
