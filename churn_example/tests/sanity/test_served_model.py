"""Tests of the served model. The fixture `client` comes from mlship."""

import pytest
from generate import customers

CUSTOMER = customers(1, 4).drop(columns="customer_id").to_dict("records")[0]


def test_who_calls_and_pays_late_is_likelier_to_leave(client):
    calm = client.predict({**CUSTOMER, "support_calls": 0, "late_payments": 0})
    angry = client.predict({**CUSTOMER, "support_calls": 6, "late_payments": 3})
    assert angry["probability_yes"] > calm["probability_yes"]


@pytest.mark.parametrize("column", ["contract", "months", "has_discount"])
def test_a_missing_column_is_refused_by_name(client, column):
    body = {name: value for name, value in CUSTOMER.items() if name != column}
    response = client.post("/predict", json=body)
    assert response.status_code == 400
    assert column in response.text
