"""Servers that forget the scripts: a flush, a restart, a failover to one that never had them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from redis_registry import RedisModelRegistry, SyncModelRegistry
from tests.conftest import FAST, SLOW, Server
from tests.helpers import instance, instances


def scripts_run(raw: Any) -> int:
    """Calls of scripts that the server has counted, with or without their text."""
    counted = raw.info("commandstats")
    return sum(
        counted.get(f"cmdstat_{name}", {"calls": 0})["calls"]
        for name in ("eval", "evalsha")
    )


async def test_a_flush_costs_one_round_trip_more_and_no_error(
    real: RedisModelRegistry, sync_registry: SyncModelRegistry, server: Server
) -> None:
    await real.register_instance(instance())
    sync_registry.register_instance(instance())
    for beat in (
        lambda: real.send_heartbeat(instance()),
        lambda: asyncio.to_thread(sync_registry.send_heartbeat, instance()),
    ):
        server.raw.script_flush()
        server.raw.config_resetstat()
        assert await beat()
        assert scripts_run(server.raw) == 2, "the digest, then the text"
        assert await beat()
        assert scripts_run(server.raw) == 3, "known again"


async def test_scripts_flushed_all_the_time_fail_no_call_on_either_face(
    server: Server, no_tasks_left: None
) -> None:
    """With its checker, a view, and pipelined heartbeats under way."""
    over = threading.Event()
    flushed = 0

    def flush() -> None:
        nonlocal flushed
        while not over.is_set():
            server.raw.script_flush()
            flushed += 1

    def beat() -> int:
        made = 0
        with SyncModelRegistry.from_url(server.url, **SLOW) as registry:
            while not over.is_set():
                made += registry.send_heartbeat(instance(1000))
        return made

    flusher = threading.Thread(target=flush)
    async with (
        RedisModelRegistry.from_url(server.url, **FAST) as registry,
        registry.view() as view,
    ):
        flusher.start()
        beating = asyncio.get_running_loop().run_in_executor(None, beat)
        try:
            for turn in range(30):
                crowd = instances(20)
                await asyncio.gather(*map(registry.send_heartbeat, crowd))
                await registry.register_instance(instance(100 + turn))
                async with registry.reserve("glm@llm") as made:
                    await registry.report_success(made.instance)
                await registry.deregister_instance(instance(100 + turn))
                assert await registry.select_one_health_instance("glm@llm")
        finally:
            over.set()
            flusher.join()
        assert await beating > 30
        assert flushed > 30
        checker = registry.checker
        assert checker is not None
        assert checker.failures == 0
        assert checker.last_error is None
        assert view.error is None
