"""What tests of failing instances share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from redis_registry import (
    HeldOut,
    ModelInstance,
    Outcome,
    RedisModelRegistry,
    Verdict,
)
from redis_registry.selection import awaits_probe
from tests.conftest import Bench
from tests.helpers import until

FIVE = 5


async def fail(
    registry: RedisModelRegistry, item: ModelInstance, times: int = FIVE
) -> Outcome:
    """Report failures one by one; the last answer."""
    outcome = Outcome(Verdict.UNKNOWN)
    for _ in range(times):
        outcome = await registry.report_failure(item, "refused")
    return outcome


async def held(registry: RedisModelRegistry, item: ModelInstance) -> HeldOut | None:
    found = await registry.get_all_instances(item.model_name)
    return next(i.held_out for i in found if i.port == item.port)


async def half_open(registry: RedisModelRegistry, item: ModelInstance) -> ModelInstance:
    """Wait until its time out is over; the instance as it is read then."""
    found: list[ModelInstance] = []

    async def due() -> bool:
        all_ = await registry.get_all_instances(item.model_name)
        found[:] = [i for i in all_ if i.port == item.port and awaits_probe(i)]
        return bool(found)

    await until(due, "its time out is over")
    return found[0]


async def selected(registry: RedisModelRegistry, times: int = 60) -> set[int]:
    found = [await registry.select_one_health_instance("glm@llm") for _ in range(times)]
    return {item.port for item in found if item}


Pair = Callable[..., Awaitable[tuple[Bench, RedisModelRegistry]]]
