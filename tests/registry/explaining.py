"""What befalls the instance that tests of explain look at, an act each."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from redis_registry import (
    ModelInstance,
    Readiness,
    new_incarnation,
)
from tests.conftest import Bench
from tests.helpers import instance, until

IT = instance(1)
"""The one that is explained; three others of its model are well."""

Act = Callable[[Bench], Awaitable[object]]


def say(readiness: Readiness, reason: str = "") -> Act:
    return lambda bench: bench.registry.set_readiness(IT, readiness, reason)


def decide(**decision: Any) -> Act:
    """An operator decides, under a name that a test can expect."""
    said: dict[str, Any] = {
        "name": "o-1",
        "author": "ann",
        "reason": "power work",
    } | decision
    return lambda bench: bench.registry.override(IT, **said)


async def silence(bench: Bench) -> None:
    bench.store.silence(IT, by_secs=3)


async def expire(bench: Bench) -> None:
    await silence(bench)
    await bench.sweep()


async def goodbye(bench: Bench) -> None:
    life = IT.model_copy(update={"incarnation": new_incarnation()})
    await bench.registry.register_instance(life)
    await bench.registry.deregister_instance(life)


async def register(bench: Bench, **fields: Any) -> None:
    gone = IT.model_copy(update={"remove_from_registry": True})
    await bench.registry.deregister_instance(gone)
    await bench.registry.register_instance(IT.model_copy(update=fields))


async def fail(bench: Bench) -> None:
    for _ in range(5):
        await bench.registry.report_failure(IT, "refused")


async def serve_time(bench: Bench) -> ModelInstance:
    await fail(bench)
    return await half_open(bench)


async def half_open(bench: Bench) -> ModelInstance:
    found: list[ModelInstance] = []

    async def due() -> bool:
        item = (await bench.registry.explain(IT)).instance
        found[:] = [item] if item and item.held_out and item.held_out.half_open else []
        return bool(found)

    await until(due, "its time out is over")
    return found[0]


async def probe(bench: Bench) -> None:
    assert await bench.registry.claim_probe(await serve_time(bench))


async def flap(bench: Bench) -> None:
    for _ in range(3):
        await expire(bench)
        await bench.registry.send_heartbeat(IT)


async def shadow(bench: Bench) -> None:
    await bench.registry.set_alias("glm@llm", "other@llm", author="bob")


async def remove(bench: Bench) -> None:
    gone = IT.model_copy(update={"remove_from_registry": True})
    await bench.registry.deregister_instance(gone)


async def forget(bench: Bench) -> None:
    await expire(bench)
    bench.store.age(25 * 3600, away=False)
    await bench.registry.send_heartbeats([instance(2)])
    await bench.sweep()


async def damage(bench: Bench) -> None:
    bench.server.raw.hset(bench.store.key("i:glm@llm:10.0.0.1:1"), "spec", b"\xff")


def without_figures(text: str) -> str:
    """With durations written "#"."""
    return re.sub(r"\d+(\.\d+)? [smhd]\b", "#", text)
