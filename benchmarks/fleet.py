"""Fleets of instances, and the registries and servers they live on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio

from benchmarks.tools import redis_server
from redis_registry import ModelInstance, RedisModelRegistry
from redis_registry.embedded import EmbeddedServer
from redis_registry.store.driver.client import AsyncClient
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations

__all__ = ["Place", "fleet", "opened", "populate"]

TIMEOUT_SECS = 600
"""Long enough that no turn of another side passes for an outage of the registry."""

REGISTRANTS = 16
"""How many registrations of a fleet are under way at once: as many as a pool has connections."""


def fleet(
    count: int, *, per_name: int = 10, typical: bool = False
) -> list[ModelInstance]:
    """Instances ``per_name`` to a model name; ``typical`` ones carry all that workers send."""
    extras: dict[str, Any] = {}
    if typical:
        extras = {
            "weight": 2.0,
            "prompt_template": "chatml",
            "zone": "eu-central-1a",
            "metadata": {"gpu": "L40S", "tp": 2},
        }
    made = [
        ModelInstance(
            model_name=f"model-{i // per_name}@llm",
            host=f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}",
            port=8000 + i % 8,
            **extras,
        )
        for i in range(count)
    ]
    gc.collect()
    gc.freeze()  # the collector need not walk the fleet again and again
    return made


@dataclass(frozen=True, slots=True)
class Place:
    """A registry on a server of its own.

    Attributes:
        url: Where the server is.
        port: Its port.
        registry: The front door.
        operations: The registry's own, for what the front door doesn't offer.
        executor: The registry's own.
        raw: redis-py's client, without the registry.
    """

    url: str
    port: int
    registry: RedisModelRegistry
    operations: Operations
    executor: AsyncExecutor
    raw: AsyncClient

    @asynccontextmanager
    async def beside(self, **options: Any) -> AsyncGenerator[Place]:
        """Another registry on the same server."""
        async with _place(self.port, **options) as place:
            yield place


@asynccontextmanager
async def _place(port: int, **options: Any) -> AsyncGenerator[Place]:
    url = f"redis://127.0.0.1:{port}/0"
    raw = cast("AsyncClient", redis.asyncio.Redis.from_url(url))  # pyright: ignore[reportUnknownMemberType]
    options = {"heartbeat_timeout_secs": TIMEOUT_SECS, **options}
    async with RedisModelRegistry.from_url(
        url, run_checker=False, **options
    ) as registry:
        yield Place(url, port, registry, registry._operations, registry._executor, raw)
    await raw.aclose()


@asynccontextmanager
async def opened(*, debian: bool = False, **options: Any) -> AsyncGenerator[Place]:
    """A registry on a new server: the embedded one, or Debian's Redis 7.0.

    Raises:
        Missing: There is no such server.
    """
    with EmbeddedServer(binary=redis_server() if debian else None) as server:
        async with _place(server.port, **options) as place:
            yield place


async def populate(
    registry: RedisModelRegistry, instances: Sequence[ModelInstance]
) -> None:
    """Register every instance through the front door."""
    waiting = iter(instances)

    async def registrant() -> None:
        for instance in waiting:
            await registry.register_instance(instance)

    async with asyncio.TaskGroup() as group:
        for _ in range(REGISTRANTS):
            group.create_task(registrant())
