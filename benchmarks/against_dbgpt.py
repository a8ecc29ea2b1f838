"""The registry itself against DB-GPT's, without HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial

from benchmarks.dbgpt_driver import DBGPT, opened_dbgpt
from benchmarks.figures import Figure, Floor, Samples
from benchmarks.fleet import Place, fleet, opened
from benchmarks.harness import Run, benchmark, calls, per_sec
from redis_registry import ModelInstance

CALLERS = 20
READ_TEN = 10


@benchmark
async def registry(run: Run) -> AsyncGenerator[Figure]:
    """`send_heartbeat` and `get_all_instances` with 10,000 instances, against DB-GPT 0.8.2.

    Heartbeats a second of 20 callers in one process on either side: ours on the embedded server
    with 1,000 names x 10 and with one name x 10,000; DB-GPT's StorageModelRegistry on its
    InMemoryStorage and on SQLite (its default engine arguments) with 1,000 names x 10, in a
    process of its own. Reads: one name with 10 instances of the 10,000, one call after the other,
    the names in turn.
    """
    count = run.size(10_000)
    async with opened_dbgpt() as dbgpt, opened() as spread:
        for storage in ("memory", "sqlite"):
            await dbgpt.ask(do="open", storage=storage, count=count, per_name=READ_TEN)
        async with spread.beside(namespace="one-name") as single:
            fleets = fleet(count, per_name=READ_TEN), fleet(count, per_name=count)
            for place, instances in zip((spread, single), fleets, strict=True):
                await place.registry.send_heartbeats(instances)
            taken = await run.interleave(_sides(run, (spread, single), fleets, dbgpt))
    for figure in _figures(count, taken):
        yield figure


def _sides(
    run: Run,
    places: tuple[Place, Place],
    fleets: tuple[list[ModelInstance], list[ModelInstance]],
    dbgpt: DBGPT,
) -> Mapping[str, Callable[[], Awaitable[float]]]:
    load = partial(calls, secs=run.secs)
    theirs = partial(dbgpt.ask, secs=run.secs)
    spread, single = (place.registry for place in places)
    names = [instance.model_name for instance in fleets[0]]
    return {
        "spread": partial(load, spread.send_heartbeat, fleets[0], callers=CALLERS),
        "single": partial(load, single.send_heartbeat, fleets[1], callers=CALLERS),
        "memory": partial(theirs, do="beat", storage="memory", callers=CALLERS),
        "sqlite": partial(theirs, do="beat", storage="sqlite", callers=CALLERS),
        "read": partial(load, spread.get_all_instances, names, callers=1),
        "memory read": partial(theirs, do="read", storage="memory", callers=1),
    }


def _figures(count: int, taken: Mapping[str, list[float]]) -> list[Figure]:
    def side(name: str, of: str) -> Samples:
        return per_sec(taken[name], of)

    spread = side("spread", "10 a name")
    memory, sqlite = side("memory", "DB-GPT InMemory"), side("sqlite", "DB-GPT SQLite")
    single = side("single", "all under one name")
    read, theirs = side("read", "ours"), side("memory read", "DB-GPT InMemory")
    return [
        Figure(
            f"heartbeats, {count:,} instances", spread, memory, Floor(500, least=True)
        ),
        Figure(
            f"heartbeats, {count:,} instances", spread, sqlite, Floor(30, least=True)
        ),
        Figure("heartbeats, one model name", single, spread, Floor(0.9, least=True)),
        Figure(f"reading 10 of {count:,}", read, theirs, Floor(50, least=True)),
    ]
