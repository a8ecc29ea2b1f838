"""A Redis that throws keys away: said at the start, and survived."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest

from redis_registry import RedisModelRegistry
from redis_registry.testing import Standalone
from tests.helpers import Store, connect, instances, until

pytestmark = pytest.mark.standalone("the one server is stopped, filled, or has users")

WORKERS = 20
QUICK: dict[str, Any] = {"heartbeat_interval_secs": 0.2, "heartbeat_timeout_secs": 1.5}


def evict(raw: Any, keys: int) -> None:
    """Fill the memory until Redis has thrown that many keys away."""
    begun = raw.info("stats")["evicted_keys"]
    number = 0
    while raw.info("stats")["evicted_keys"] < begun + keys:
        for _ in range(20):
            number += 1
            raw.set(f"foreign:{number}", b"x" * 4096)


async def test_an_evicting_redis_is_named_and_what_it_took_comes_back(
    own_server: Standalone, no_tasks_left: None, caplog: pytest.LogCaptureFixture
) -> None:
    raw = connect(own_server.url)
    raw.config_set("maxmemory-policy", "allkeys-random")
    caplog.set_level(logging.WARNING)
    async with (
        RedisModelRegistry.from_url(own_server.url, **QUICK) as registry,
        contextlib.AsyncExitStack() as stack,
        registry.view() as view,
    ):
        for item in instances(WORKERS):
            announced = await stack.enter_async_context(
                registry.announce(item, interval_secs=0.3)
            )
            await announced.ready()
        (status,) = await registry.status()
        assert status.evicts == "allkeys-random"
        assert "set maxmemory-policy to noeviction" in caplog.text

        async def all_are_back() -> bool:
            found = await registry.get_all_instances("glm@llm", healthy_only=True)
            shown = [item for item in view.instances("glm@llm") if item.healthy]
            return len(found) == WORKERS == len(shown)

        async def all_agree() -> bool:
            try:
                Store(raw).check()
            except AssertionError:
                return False
            return True

        used = raw.info("memory")["used_memory"]
        taken = rounds = 0
        while rounds < 5 or (taken <= WORKERS and rounds < 20):
            rounds += 1
            raw.config_set("maxmemory", used + 2_000_000)
            ours = len(raw.keys("rr:*"))
            evict(raw, 500)
            taken += ours - len(raw.keys("rr:*"))
            raw.config_set("maxmemory", 0)
            for key in raw.scan_iter("foreign:*", count=1000):
                raw.delete(key)
            await until(all_are_back, "all are listed again", within_secs=10)
        assert taken > WORKERS, "it took a good part of ours"
        # The counts come last: a whole walk through a model finds them. Nobody walks after the block.
        await until(all_agree, "records, places and counts agree", within_secs=10)
    Store(raw).check()
    raw.close()


async def test_one_that_evicts_nothing_is_not_complained_of(
    own_server: Standalone, no_tasks_left: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisModelRegistry.from_url(own_server.url, **QUICK) as registry:
        (status,) = await registry.status()
    assert status.evicts is None
    assert "maxmemory-policy" not in caplog.text
