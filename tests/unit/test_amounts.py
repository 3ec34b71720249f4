"""Amounts of memory are those of Kubernetes."""

import pytest

from mlship.config.amounts import bytes_of


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("1000", 1000), ("2k", 2000), ("512Mi", 512 << 20), ("1.5Gi", 3 << 29), ("3T", 3 * 10**12)],
)
def test_an_amount_is_a_number_of_bytes(amount: str, expected: int) -> None:
    assert bytes_of(amount) == expected
