"""What tests of reservations share."""

from __future__ import annotations

import contextlib

from redis_registry import (
    RedisModelRegistry,
    Reservation,
)

MODEL = "glm@llm"
TTL_SECS = 1.0


async def hold(
    stack: contextlib.AsyncExitStack, registry: RedisModelRegistry, count: int
) -> list[Reservation]:
    """That many reservations, until the stack ends."""
    return [
        await stack.enter_async_context(registry.reserve(MODEL)) for _ in range(count)
    ]


async def total(registry: RedisModelRegistry, model: str = MODEL) -> int:
    return sum((await registry.in_flight(model)).values())


async def counts(registry: RedisModelRegistry) -> dict[int, int]:
    return {who.port: n for who, n in (await registry.in_flight(MODEL)).items()}
