"""Few connections on a Cluster: nobody waits for a turn that belongs to another node, or to the wait for news."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis_registry import RedisModelRegistry, RegistryError
from redis_registry.testing import Cluster
from redis_registry.wire.keys import partition_of
from tests.helpers import instance, until

KEYS = [f"rr:{{default/{number}}}:meta" for number in range(6)]
SETTINGS: dict[str, Any] = {"partitions": 6, "run_checker": False}


async def test_many_partitions_do_not_starve_each_others_wait_for_news(
    binary: str, no_tasks_left: None
) -> None:
    """Each waits for news by a command of its own, a second at a time."""
    few: dict[str, Any] = SETTINGS | {"partitions": 12, "max_connections": 2}
    with Cluster(binary=binary, replicas=0) as cluster:
        async with (
            RedisModelRegistry.from_url(cluster.url, **few) as registry,
            registry.view() as view,
        ):
            for number in range(12):
                item = instance(1, f"m{number}")
                began = time.monotonic()
                await registry.register_instance(item)

                async def told(name: str = item.model_name) -> bool:
                    return bool(view.instances(name))

                await until(told, "the view knows it")
                assert time.monotonic() - began < 0.5
                assert view.staleness_secs < 2


async def test_those_who_wait_for_a_dead_node_leave_the_turns_of_the_living(
    binary: str, no_tasks_left: None
) -> None:
    options = {"cluster-require-full-coverage": "no"}
    with Cluster(binary=binary, replicas=0, options=options) as cluster:
        async with RedisModelRegistry.from_url(cluster.url, **SETTINGS) as registry:
            models = [f"m{number}" for number in range(24)]
            await registry.send_heartbeats([instance(1, model) for model in models])
            away = cluster.owner(KEYS[0])
            gone = {at for at in range(6) if cluster.owner(KEYS[at]) is away}
            away.pause()
            dead, living = (
                next(m for m in models if (partition_of(m, 6) in gone) is there)
                for there in (True, False)
            )
            waiting = [
                asyncio.create_task(registry.register_instance(instance(port, dead)))
                for port in range(1, 41)
            ]
            await asyncio.sleep(0.2)  # all turns at the dead node are taken
            began = time.monotonic()
            await registry.register_instance(instance(2, living))
            assert time.monotonic() - began < 0.5
            for task in waiting:
                task.cancel()
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(
                isinstance(e, RegistryError | asyncio.CancelledError) for e in ends
            )
            away.resume()
