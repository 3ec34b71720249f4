"""What Envoy grants a client agrees with what a replica does."""

import re
from pathlib import PurePath

from mlship.adapters.targets.envoy import limits, resources, routes
from mlship.domain.deployment import Slot, Split
from mlship.runtime import http


def test_the_largest_body_is_that_of_a_replica() -> None:
    assert limits.BODY_BYTES == http.BODY_BYTES


def test_a_stream_may_be_silent_for_longer_than_a_route_waits_for_a_model() -> None:
    table = routes.table(Split(weights={Slot("r1"): 100}), None)
    seconds = table["virtual_hosts"][0]["routes"][-1]["route"]["timeout"]
    assert float(limits.DEADLINES["stream_idle_timeout"][:-1]) > float(seconds[:-1])


def test_a_request_that_a_replica_may_have_got_is_not_sent_to_another_one() -> None:
    table = routes.table(Split(weights={Slot("r1"): 100}), None)
    policy = table["virtual_hosts"][0]["routes"][-1]["route"]["retry_policy"]
    assert set(policy["retry_on"].split(",")) == {
        "connect-failure",
        "refused-stream",
        "reset-before-request",
    }


def test_retries_have_a_budget() -> None:
    cluster = resources.cluster("r1", {}, checked=True)
    (thresholds,) = cluster["circuit_breakers"]["thresholds"]
    assert thresholds["retry_budget"]["budget_percent"] == {"value": 100}


def test_what_envoy_answers_itself_has_the_shape_of_the_path() -> None:
    """Of the Open Inference Protocol and of V1, `error` is a text; a target may add a prefix."""
    own = resources.routing(PurePath("routes.json"))["local_reply_config"]
    (mapper,) = own["mappers"]
    assert set(mapper["body_format_override"]["json_format"]) == {"error"}
    assert isinstance(mapper["body_format_override"]["json_format"]["error"], str)
    assert set(own["body_format"]["json_format"]["error"]) == {"message"}
    header = mapper["filter"]["header_filter"]["header"]
    pattern = re.compile(header["string_match"]["safe_regex"]["regex"])
    texts = ["/v2/models/iris/infer", "/iris/v2/health/ready", "/v1/models/iris:predict"]
    assert all(map(pattern.fullmatch, texts))
    others = ["/predict", "/iris/invocations?next=/v2/models/iris", "/v2", "/"]
    assert not any(map(pattern.fullmatch, others))
