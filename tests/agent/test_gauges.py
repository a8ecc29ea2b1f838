"""Load as the metrics of known servers tell it."""

from __future__ import annotations

import pytest

from redis_registry.agent.gauges import Gauges, Loaded

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 10.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
"""
SGLANG = """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m"} 7.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="m"} 1.0
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="m"} 0.5
"""


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (VLLM, Loaded(in_flight=5, queued=4, kv_cache=0.75, done=10.0)),
        (SGLANG, Loaded(in_flight=7, queued=1, kv_cache=0.5)),
        ("", Loaded()),
        ("vllm:num_requests_running NaN\n", Loaded(in_flight=0)),
        ("vllm:num_requests_running +Inf\n", Loaded(in_flight=0)),
        ("vllm:kv_cache_usage_perc NaN\n", Loaded()),
        ("vllm:generation_tokens_total NaN\n", Loaded()),
        ("tgi_queue_size 2\ntgi_batch_current_size 1\n", Loaded(1, 2)),
    ],
)
def test_known_by_name(page: str, told: Loaded) -> None:
    assert Gauges().read(page) == told


def test_other_names() -> None:
    page = "busy 3\nwaiting 1\nvllm:num_requests_running 9\n"
    assert Gauges("busy", "waiting").read(page) == Loaded(3, 1)
    assert Gauges("busy").read(page).left == 3


@pytest.mark.parametrize("page", ["<html>", "a{b 1", 'a{b="1"} x'])
def test_what_is_no_page_of_metrics(page: str) -> None:
    with pytest.raises(ValueError):
        Gauges().read(page)
