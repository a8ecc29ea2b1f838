"""A registry node as a process of its own: beats for its instances, and sweeps if told to.

``python -m tests.node URL MODEL FIRST COUNT --timeout 3 --interval 1 [--checker]``

Prints ``ready`` once all are registered, and every error it meets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys

from redis_registry import (
    ModelInstance,
    RedisModelRegistry,
    RegistryError,
    RegistryUnavailable,
)
from tests.helpers import instance


async def beat(
    registry: RedisModelRegistry, model: str, port: int, interval_secs: float
) -> None:
    await asyncio.sleep(random.uniform(0, interval_secs))
    while True:
        try:
            await registry.send_heartbeat(instance(port, model))
        except RegistryError as error:
            print(f"error {type(error).__name__}", flush=True)  # noqa: T201  for the parent
        await asyncio.sleep(interval_secs)


async def register(registry: RedisModelRegistry, items: list[ModelInstance]) -> None:
    """Until it is done: an interval may be too short for the first call of a busy machine."""
    while True:
        with contextlib.suppress(RegistryUnavailable):
            await registry.send_heartbeats(items)
            return


async def main(options: argparse.Namespace) -> None:
    ports = range(options.first, options.first + options.count)
    async with RedisModelRegistry.from_url(
        options.url,
        run_checker=options.checker,
        heartbeat_timeout_secs=options.timeout,
        heartbeat_interval_secs=options.interval,
        socket_timeout_secs=options.interval,
        operation_timeout_secs=options.interval,
    ) as registry:
        await register(registry, [instance(p, options.model) for p in ports])
        print("ready", flush=True)  # noqa: T201  for the parent
        async with asyncio.TaskGroup() as group:
            for port in ports:
                group.create_task(beat(registry, options.model, port, options.interval))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--timeout", type=float, default=3.0)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--checker", action="store_true")
    sys.exit(asyncio.run(main(parser.parse_args())))
