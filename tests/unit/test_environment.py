"""Processes that run models or the user's code get an exact list of variables."""

import pytest

from mlship.domain.environment import of_serving, of_supervisor, of_user_code

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AZURE_CLIENT_SECRET": "secret",
    "DOCKER_AUTH_CONFIG": "secret",
    "GH_TOKEN": "secret",
    "GITHUB_TOKEN": "secret",
    "GOOGLE_APPLICATION_CREDENTIALS": "secret",
    "HF_TOKEN": "secret",
    "KUBECONFIG": "secret",
    "MLFLOW_TRACKING_PASSWORD": "secret",
    "MLFLOW_TRACKING_TOKEN": "secret",
    "MLSHIP_STORE__URI": "secret",
    "PIP_INDEX_URL": "secret",
    "TWINE_PASSWORD": "secret",
}
USUAL = {
    "PATH": "/bin",
    "HOME": "/home/ann",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "400",
    "OPENBLAS_THREAD_TIMEOUT": "16",
    "COVERAGE_PROCESS_CONFIG": "x",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}
PROXIES = {"HTTPS_PROXY": "http://proxy:1", "no_proxy": "localhost", "HF_HOME": "/models"}
DATABASE = {"PGPASSWORD": "secret", "PGSSLMODE": "require"}
ALL = {**CREDENTIALS, **USUAL, **PROXIES, **DATABASE, "PYTHONIOENCODING": "ascii"}


def test_threads_sleep_while_they_wait_unless_somebody_says_otherwise() -> None:
    for variables in (of_user_code({}), of_serving({}), of_supervisor({})):
        assert variables["OMP_WAIT_POLICY"] == "PASSIVE"
        assert variables["GOMP_SPINCOUNT"] == "400"
        assert variables["OPENBLAS_THREAD_TIMEOUT"] == "16"
    chosen = {"OMP_WAIT_POLICY": "ACTIVE", "OPENBLAS_THREAD_TIMEOUT": "26"}
    for variables in (of_user_code(chosen), of_serving(chosen), of_supervisor(chosen)):
        assert variables.items() >= chosen.items()
        assert "GOMP_SPINCOUNT" not in variables, "it would go before the policy"
    assert of_serving({"GOMP_SPINCOUNT": "5"})["GOMP_SPINCOUNT"] == "5"


def test_user_code_may_reach_the_network_and_gets_no_credentials() -> None:
    assert of_user_code(ALL) == {**USUAL, **PROXIES}


def test_user_code_gets_what_the_project_names_and_no_more() -> None:
    named = of_user_code(ALL, ["AWS_ACCESS_KEY_ID", "NOT_SET"])
    assert named == {**USUAL, **PROXIES, "AWS_ACCESS_KEY_ID": "secret"}


def test_serving_gets_neither_proxies_nor_credentials() -> None:
    assert of_serving(ALL) == USUAL
    assert of_serving(ALL, "/var/log/predictions") == USUAL


@pytest.mark.parametrize("log", ["postgresql://a@b/c", "postgres://a@b/c"])
def test_serving_gets_the_database_password_for_a_log_there(log: str) -> None:
    assert of_serving(ALL, log) == {**USUAL, **DATABASE}
    assert of_supervisor(ALL) == {**USUAL, **DATABASE}
