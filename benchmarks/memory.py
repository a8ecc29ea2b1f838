"""What an instance costs in Redis's memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from benchmarks.figures import Figure, Floor, Samples
from benchmarks.fleet import Place, fleet, opened, populate
from benchmarks.harness import Run, benchmark
from benchmarks.sweeps import sweep_once


@benchmark
async def memory(run: Run) -> AsyncGenerator[Figure]:
    """Bytes an instance, all keys counted, in Debian's Redis 7.0 with 100,000 of them.

    10 a model name, each with weight, prompt template, zone and two metadata fields; registered
    one by one through the front door, then heartbeats for all and one sweep. INFO memory's
    used_memory before and after; one round, since it is no matter of time. The event stream
    keeps its default of 20,000 events and is counted too.
    """
    count = run.size(100_000)
    async with opened(debian=True) as place:
        await place.registry.status()
        before = await _used(place)
        instances = fleet(count, typical=True)
        await populate(place.registry, instances)
        await place.registry.send_heartbeats(instances)
        await sweep_once(place)
        used = (await _used(place) - before) / count
    ours = Samples([used], "bytes", f"{count:,} instances")
    floor = Floor(650, least=False, unit="bytes")
    yield Figure("memory an instance", ours, floor=floor)


async def _used(place: Place) -> int:
    info = await place.raw.execute_command("INFO", "memory")
    return int(info["used_memory"])
