"""What decoding and validating add to a read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial

from benchmarks.figures import Figure, Floor
from benchmarks.fleet import Place, fleet, opened
from benchmarks.harness import Run, benchmark, latency, micros
from redis_registry.store.operations import READ_PAGE

COUNT = 1000


@benchmark
async def read_thousand(run: Run) -> AsyncGenerator[Figure]:
    """`get_all_instances` of one model with 1,000 instances, embedded server.

    Ours gives 1,000 validated ModelInstance. Against it: the same script with the same
    arguments through the same client, its reply left as it came. Typical fields.
    """
    async with opened() as place:
        instances = fleet(COUNT, per_name=COUNT, typical=True)
        await place.registry.send_heartbeats(instances)
        name = instances[0].model_name
        ours = partial(place.registry.get_all_instances, name)
        if len(await ours()) != COUNT:
            raise RuntimeError("the read is not complete")
        taken = await run.interleave(
            {
                "ours": partial(latency, ours, secs=run.secs),
                "raw": partial(latency, partial(_raw, place, name), secs=run.secs),
            }
        )
    yield Figure(
        "get_all_instances of 1,000",
        micros(taken["ours"], "validated"),
        micros(taken["raw"], "script, undecoded"),
        Floor(3, least=False),
    )


async def _raw(place: Place, name: str) -> None:
    """One read call whose rows stay bytes."""
    call = place.operations._read(0, name, healthy_only=False, after=(b"0", b"0"))
    reply = await place.executor.call(replace(call, read=list[object]))
    if len(reply) - 9 != min(COUNT, READ_PAGE):
        raise RuntimeError(f"{len(reply) - 9} rows instead of {COUNT}")
