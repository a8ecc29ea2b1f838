"""Heartbeats against the server's own ceiling."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from benchmarks.figures import Figure, Floor, Samples
from benchmarks.fleet import Place, fleet, opened
from benchmarks.harness import Run, benchmark, calls, per_sec
from benchmarks.tools import redis_benchmark
from redis_registry import ModelInstance

CALLERS = 256
BULK = 1000
IN_FLIGHT = 4


@benchmark
async def heartbeats(run: Run) -> AsyncGenerator[Figure]:
    """Heartbeats a second of one process, 10,000 instances registered, embedded server.

    coalesced  256 loops, each awaiting `registry.send_heartbeat(instance)` for its share
    alone      the same 256 loops, each making its own script call, all at once
    bulk       4 loops, each awaiting `registry.send_heartbeats` of 1,000 instances
    one bulk   the same with one loop: it waits for each answer, so nothing overlaps
    raw        redis-benchmark -t zadd -P 64 (50 connections) on the same server and as many
               members: what the server can do when it is asked for nothing but ZADD
    """
    async with (
        opened() as place,
        place.beside(max_connections=CALLERS) as wide,
    ):
        instances = fleet(10_000)
        await place.registry.send_heartbeats(instances)
        taken = await run.interleave(_sides(run, place, wide, instances))
    side = {name: per_sec(rounds, name) for name, rounds in taken.items()}
    for figure in _figures(side):
        yield figure


def _figures(side: dict[str, Samples]) -> list[Figure]:
    coalesced, bulk, raw = side["coalesced"], side["bulk"], side["raw"]
    return [
        Figure("256 callers, coalesced", coalesced, raw, Floor(0.5, least=True)),
        Figure(
            "256 callers, coalesced", coalesced, side["alone"], Floor(10, least=True)
        ),
        Figure("bulk, 1,000 a call, 4 in flight", bulk, raw, Floor(0.9, least=True)),
        Figure("bulk, 1,000 a call, one at a time", side["one bulk"], raw),
    ]


def _sides(run: Run, place: Place, wide: Place, instances: list[ModelInstance]):
    registry = place.registry
    batches = [instances[i : i + BULK] for i in range(0, len(instances), BULK)]

    async def alone(instance: ModelInstance) -> None:
        await wide.executor.run(wide.operations.heartbeats([instance]))

    load = partial(calls, secs=run.secs)

    async def bulk(callers: int) -> float:
        return BULK * await load(registry.send_heartbeats, batches, callers=callers)

    return {
        "coalesced": partial(load, registry.send_heartbeat, instances, callers=CALLERS),
        "raw": partial(
            redis_benchmark,
            place.port,
            members=len(instances),
            requests=run.size(600_000),
        ),
        "alone": partial(load, alone, instances, callers=CALLERS),
        "bulk": partial(bulk, IN_FLIGHT),
        "one bulk": partial(bulk, 1),
    }
