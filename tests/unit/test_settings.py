"""Settings: from arguments and environment, refused with field and reason."""

from __future__ import annotations

from typing import Any

import pytest

from redis_registry import (
    ConfigurationError,
    GuardSettings,
    RedisModelRegistry,
    RegistrySettings,
)


def test_defaults_keep_gap_and_lease_below_a_missed_heartbeat() -> None:
    for timeout in (3.0, 60.0, 3600.0):
        made = RegistrySettings(heartbeat_timeout_secs=timeout)
        assert made.tick < made.lease_ttl < made.gap < timeout / 3


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_REGISTRY_URL", "redis://elsewhere:1/2")
    monkeypatch.setenv("REDIS_REGISTRY_HEARTBEAT_TIMEOUT_SECS", "7.5")
    monkeypatch.setenv("REDIS_REGISTRY_FORGET_AFTER_SECS", "never")
    monkeypatch.setenv("REDIS_REGISTRY_GUARD_SHARE", "0.9")
    made = RegistrySettings.of(namespace="given")
    assert made.url == "redis://elsewhere:1/2"
    assert made.heartbeat_timeout_secs == 7.5
    assert made.forget_after_secs is None
    assert made.guard.share == 0.9
    assert made.namespace == "given"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"heartbeat_timeout_secs": -1}, "heartbeat_timeout_secs"),
        ({"heartbeat_timeout_secs": "soon"}, "heartbeat_timeout_secs"),
        ({"partitions": 0}, "partitions"),
        ({"namespace": ""}, "namespace"),
        ({"namespace": "a\ud800"}, "namespace"),
        ({"prefix": "a b"}, "prefix"),
        ({"sweep_chunk": 100_000}, "sweep_chunk"),
        ({"gap_secs": 1, "lease_ttl_secs": 2}, "must be longer than lease_ttl_secs"),
        (
            {"hartbeat_timeout_secs": 3},
            "unknown setting hartbeat_timeout_secs; there are url",
        ),
    ],
)
def test_bad_settings_are_refused_by_name(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        RegistrySettings.of(**wrong)
    with pytest.raises(ConfigurationError, match=says):
        RedisModelRegistry(**wrong)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost", "can't connect to 'http' URLs"),
        ("redis+sentinel://h", "which master?"),
        ("", "can't connect to such URLs"),
    ],
)
def test_bad_urls_are_refused_with_the_schemes_there_are(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        RedisModelRegistry.from_url(url)


async def test_urls_that_only_the_driver_can_judge_are_refused_by_the_first_call() -> (
    None
):
    url = "redis://localhost/0?socket_connect_timeout=soon"
    registry = RedisModelRegistry.from_url(url, run_checker=False)
    with pytest.raises(ConfigurationError, match="not a Redis URL"):
        await registry.get_all_model_instances()
    with pytest.raises(ConfigurationError, match="not a Redis URL"):
        registry.sync_get_all_instances("m")


def test_settings_and_options_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="not both: namespace"):
        RedisModelRegistry(settings=RegistrySettings(), namespace="x")


def test_guard_window_and_hold_follow_the_timeout_unless_given() -> None:
    made = RegistrySettings(heartbeat_timeout_secs=10)
    assert (made.guard_window, made.guard_max_hold) == (10, 30)
    given = RegistrySettings(guard=GuardSettings(window_secs=1, max_hold_secs=2))
    assert (given.guard_window, given.guard_max_hold) == (1, 2)


@pytest.mark.parametrize(
    ("url", "secs"),
    [
        ("redis://a", 5.0),
        ("unix:///run/redis.sock", 5.0),
        ("redis+sentinel://a/mymaster", 15.0),
        ("rediss+cluster://a,b", 15.0),
    ],
)
def test_a_call_outlasts_a_failover_where_there_may_be_one(
    url: str, secs: float
) -> None:
    assert RegistrySettings.of(url=url).operation_timeout == secs
    given = RegistrySettings.of(url=url, operation_timeout_secs=2)
    assert given.operation_timeout == 2
