"""What happens when everybody dies at once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

from benchmarks.figures import Figure, Floor, Samples
from benchmarks.fleet import Place, fleet, opened
from benchmarks.harness import Run, benchmark, per_sec
from benchmarks.tools import child
from redis_registry import ModelInstance
from redis_registry.core.events import Kind, decode_event
from redis_registry.roles.checker import Checker
from redis_registry.settings import GuardSettings

CHECKER_SECS = 60.0
CALM_SECS = 0.5
PAGE = 5000

Pings = dict[str, float]


@benchmark
async def mass_expiry(run: Run) -> AsyncGenerator[Figure]:
    """All of 100,000 instances overdue at once, the guard off, embedded server.

    Deadlines are aged in the sorted set (the data, not a clock), then a real Checker runs until
    it has flipped every one; each must have left one 'unhealthy' event. Meanwhile a client in a
    process of its own sends PINGs; it also does so while nothing happens, for comparison.
    Between rounds heartbeats revive the fleet.
    """
    instances = fleet(run.size(100_000))
    guard = GuardSettings(enabled=False)
    async with opened(events_kept=10_000_000, guard=guard) as place:
        await place.registry.send_heartbeats(instances)
        pings: dict[str, list[Pings]] = {"calm": [], "sweep": []}
        taken = await run.interleave(
            {
                "calm": partial(_calm, place, pings["calm"]),
                "sweep": partial(_expire, place, instances, pings["sweep"]),
            }
        )
    flips = per_sec(taken["sweep"], f"{len(instances):,} flips with events")
    floor = Floor(100_000, least=True, unit="/s")
    yield Figure("mass expiry: flips", flips, floor=floor)
    during = _p99(pings["sweep"], "p99 meanwhile")
    calm = _p99(pings["calm"], "p99 when calm")
    floor = Floor(10, least=False, unit="ms")
    yield Figure("mass expiry: others' PING", during, calm, floor)


def _p99(turns: Sequence[Pings], of: str) -> Samples:
    counted = turns[1:]  # the first turn of a side is its warm-up
    return Samples([turn["p99"] / 1000 for turn in counted], "ms", of)


async def _calm(place: Place, pings: list[Pings]) -> float:
    async with _pinged(place.port, pings):
        await asyncio.sleep(CALM_SECS)
    return pings[-1]["p99"]


async def _expire(
    place: Place, instances: Sequence[ModelInstance], pings: list[Pings]
) -> float:
    """Flips a second of one mass death; the fleet is alive again afterwards."""
    keys, count = place.operations.keys(0), len(instances)
    await _age(place, keys.named("deadlines"))
    before = (await place.registry.status())[0]
    async with _pinged(place.port, pings):
        took = await _sweep_all(place, count)
    after = (await place.registry.status())[0]
    told = await _told(place, keys.named("events"), before.revision)
    if (before.overdue, after.unhealthy, told) != (count, count, count):
        raise RuntimeError(f"not {count} flips: {told} events; {before}; {after}")
    await place.registry.send_heartbeats(instances)
    await place.raw.execute_command("XTRIM", keys.named("events"), "MAXLEN", 0)
    return count / took


class _Counted:
    """Telemetry that tells when enough were flipped."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.done = asyncio.Event()

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        del labels
        if name == "flips":
            self.left -= amount
            if self.left <= 0:
                self.done.set()

    def observe(self, name: str, secs: float, **labels: str) -> None:
        pass

    def gauge(self, name: str, value: float, **labels: str) -> None:
        pass


async def _sweep_all(place: Place, count: int) -> float:
    """Seconds from a checker's start until it has flipped ``count``."""
    counted = _Counted(count)
    checker = Checker(
        place.operations, place.executor, holder="benchmark", telemetry=counted
    )
    started = perf_counter()
    checker.start()
    try:
        async with asyncio.timeout(CHECKER_SECS):
            await counted.done.wait()
        return perf_counter() - started
    finally:
        await checker.aclose()


async def _age(place: Place, deadlines: str) -> None:
    """Put every deadline a second into the past, by the server's clock."""
    run = place.raw.execute_command
    past = ((await run("TIME"))[0] - 1) * 1_000_000
    members: list[bytes] = await run("ZRANGE", deadlines, 0, -1)
    for first in range(0, len(members), PAGE):
        page = members[first : first + PAGE]
        aged = [word for member in page for word in (past, member)]
        await run("ZADD", deadlines, "XX", *aged)


async def _told(place: Place, events: str, revision: int) -> int:
    """How many 'unhealthy' events follow a revision."""
    told, last = 0, b"%d-0" % revision
    while page := await place.raw.execute_command(
        "XRANGE", events, b"(" + last, "+", "COUNT", PAGE
    ):
        told += sum(decode_event(*entry).kind is Kind.UNHEALTHY for entry in page)
        last = page[-1][0]
    return told


@asynccontextmanager
async def _pinged(port: int, pings: list[Pings]) -> AsyncGenerator[None]:
    """PINGs of another process for the time of the block; what it found is added to ``pings``."""
    async with child([sys.executable, "-m", "benchmarks.pinger", str(port)]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdout.readline()
        yield
        process.stdin.close()
        pings.append(json.loads(await process.stdout.readline()))
