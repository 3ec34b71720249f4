from generate import churned, customers
from pipeline import train

CUSTOMERS = customers(2000, 7)


def test_it_learns_that_a_contract_keeps_customers():
    model = train(CUSTOMERS.assign(churned=churned(CUSTOMERS, 8)), {})
    yes = list(model.classes_).index("yes")
    chances = {
        contract: model.predict_proba(CUSTOMERS.assign(contract=contract))[:, yes].mean()
        for contract in ("monthly", "two years")
    }
    assert chances["monthly"] > chances["two years"]


def test_a_larger_lake_has_the_customers_of_a_smaller_one():
    assert customers(100, 9).head(10).equals(customers(100, 9)[:10])
    assert customers(5, 9, first=20)["customer_id"].tolist()[0] == "c000000020"
