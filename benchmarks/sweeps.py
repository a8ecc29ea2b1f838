"""What the checker costs while everybody is well."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from benchmarks.figures import Figure, Floor
from benchmarks.fleet import Place, fleet, opened
from benchmarks.harness import Run, benchmark, latency, micros

FEW = 100


@benchmark
async def idle_sweep(run: Run) -> AsyncGenerator[Figure]:
    """One `sweep` call of the lease holder that finds nothing overdue, embedded server.

    With 100,000 healthy instances, with 100 (another namespace of the same server), and a PING
    through the same kind of client. One call after the other; the median of a turn.
    """
    many = run.size(100_000)
    async with (
        opened(namespace="many") as large,
        large.beside(namespace="few") as small,
    ):
        await large.registry.send_heartbeats(fleet(many))
        await small.registry.send_heartbeats(fleet(FEW))
        ping = partial(large.raw.execute_command, "PING")
        turn = partial(latency, secs=run.secs / 2)
        taken = await run.interleave(
            {
                "large": partial(turn, partial(sweep_once, large)),
                "small": partial(turn, partial(sweep_once, small)),
                "ping": partial(turn, ping),
            }
        )
    ours = micros(taken["large"], f"sweep, {many:,} healthy")
    other = micros(taken["small"], f"sweep, {FEW} healthy")
    pings = micros(taken["ping"], "PING, same client")
    yield Figure("idle sweep: size", ours, other, Floor(2, least=False))
    yield Figure("idle sweep: round trip", ours, pings, Floor(5, least=False))


async def sweep_once(place: Place) -> None:
    """One call of the checker's that must find nothing to do."""
    (found,) = await place.executor.run(place.operations.sweep(0, "benchmark"))
    if not found.token or found.overdue:
        raise RuntimeError(f"not an idle sweep of the lease holder: {found}")
