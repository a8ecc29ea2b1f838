"""Choosing an instance: how many picks a second, and whether the number of instances matters."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from itertools import cycle, islice
from runpy import run_module
from time import perf_counter, process_time

from benchmarks.figures import Figure, Floor, Samples
from benchmarks.harness import Run, benchmark, per_sec
from redis_registry import (
    Candidates,
    Chooser,
    Health,
    ModelInstance,
    Outstanding,
    RedisModelRegistry,
    View,
)
from redis_registry.embedded import EmbeddedServer
from redis_registry.selection import POLICIES

SMALL, LARGE = 10, 10_000
KEYS = [f"session-{number}" for number in range(10_000)]
CHUNK = 1000
UNDER_WAY = 100

LEAST = {"random": 300_000, "round_robin": 300_000, "power_of_two": 300_000}
LEAST_BY_KEY = {"consistent_hash": 100_000}
FLATTEST = 1.5


@benchmark
async def selection(run: Run) -> AsyncGenerator[Figure]:
    """`chooser.choose(candidates, key)` for each policy, among 10 and among 10,000 instances.

    One thread; a second is one of CPU time. Weights are equal, 100 requests are under way, and
    the keys are 10,000 different ones in turn (`rendezvous`: 20, which it has met before). Flat:
    the time of a pick among 10,000 by that among 10. Made ready: new candidates, the first pick.
    """
    sides = {
        f"{policy} {size}": partial(_rate, _Side(policy, size), secs=run.secs / 5)
        for policy in POLICIES
        for size in (SMALL, LARGE)
    }
    taken = await run.interleave(sides)
    for policy in POLICIES:
        few, many = taken[f"{policy} {SMALL}"], taken[f"{policy} {LARGE}"]
        least = LEAST.get(policy) or LEAST_BY_KEY.get(policy)
        yield Figure(
            f"{policy} among {LARGE:,}",
            per_sec(many, "picks"),
            floor=Floor(least, least=True, unit="/s") if least else None,
        )
        yield Figure(
            f"{policy}, flat",
            _nanos(many, f"among {LARGE:,}"),
            _nanos(few, f"among {SMALL}"),
            Floor(FLATTEST, least=False) if policy in LEAST else None,
        )
    ready = await run.interleave(
        {policy: partial(_first, _Side(policy, LARGE)) for policy in POLICIES}
    )
    for policy, rounds in ready.items():
        yield Figure(f"{policy}: {LARGE:,} made ready", Samples(rounds, "ms", "once"))


@benchmark
async def view_select(run: Run) -> AsyncGenerator[Figure]:
    """`view.select(model, policy, key)` on a view of a real server, 10 and 10,000 instances a model.

    As above, with all that a view adds: finding the model and its chooser, aliases, probes.
    """
    async with (
        EmbeddedServer() as server,
        RedisModelRegistry.from_url(server.url, run_checker=False) as registry,
    ):
        for size in (SMALL, LARGE):
            made = [
                ModelInstance(
                    model_name=str(size), host=f"10.0.{at >> 8}.1", port=at % 256 + 1
                )
                for at in range(size)
            ]
            for first in range(0, size, 1000):
                await registry.send_heartbeats(made[first : first + 1000])
        async with registry.view() as view:
            sides = {
                f"{policy} {size}": partial(
                    _view_rate, view, str(size), policy, secs=run.secs / 5
                )
                for policy in (*LEAST, *LEAST_BY_KEY)
                for size in (SMALL, LARGE)
            }
            taken = await run.interleave(sides)
    for policy in (*LEAST, *LEAST_BY_KEY):
        few, many = taken[f"{policy} {SMALL}"], taken[f"{policy} {LARGE}"]
        least = (LEAST | LEAST_BY_KEY)[policy]
        yield Figure(
            f"view, {policy} among {LARGE:,}",
            per_sec(many, "picks"),
            floor=Floor(least, least=True, unit="/s"),
        )
        yield Figure(
            f"view, {policy}, flat",
            _nanos(many, f"among {LARGE:,}"),
            _nanos(few, f"among {SMALL}"),
            Floor(FLATTEST, least=False) if policy in LEAST else None,
        )


async def _view_rate(view: View, model: str, policy: str, *, secs: float) -> float:
    """Picks a second of CPU time."""
    select, keys, done = view.select, cycle(KEYS), 0
    until, started = perf_counter() + secs, process_time()
    while perf_counter() < until:
        for key in islice(keys, CHUNK):
            select(model, policy, key)
        done += CHUNK
    return done / (process_time() - started)


class _Side:
    """A policy, and so many instances that it chooses among."""

    def __init__(self, policy: str, size: int) -> None:
        self.instances = [
            ModelInstance(
                model_name="glm@llm",
                host=f"10.0.{at >> 8}.{at & 255}",
                port=8000,
                healthy=True,
                state=Health.HEALTHY,
            )
            for at in range(size)
        ]
        outstanding = Outstanding()
        for busy in islice(cycle(self.instances), UNDER_WAY):
            outstanding.begin(busy)
        self.chooser = Chooser(policy, outstanding=outstanding)
        self.candidates = Candidates(self.instances)
        # rendezvous among 10,000 takes 2 ms to meet a key: half a minute for all of them.
        self.keys = KEYS[:20] if policy == "rendezvous" else KEYS
        for key in self.keys[:20]:
            self.chooser.choose(self.candidates, key)


async def _rate(side: _Side, *, secs: float) -> float:
    """Picks a second of CPU time."""
    choose, candidates = side.chooser.choose, side.candidates
    keys, done = cycle(side.keys), 0
    until, started = perf_counter() + secs, process_time()
    while perf_counter() < until:
        for key in islice(keys, CHUNK):
            choose(candidates, key)
        done += CHUNK
    return done / (process_time() - started)


async def _first(side: _Side) -> float:
    """Milliseconds of CPU time until the first pick among new candidates."""
    started = process_time()
    side.chooser.choose(Candidates(side.instances), KEYS[0])
    return (process_time() - started) * 1000


def _nanos(rounds: Sequence[float], of: str) -> Samples:
    return Samples([1e9 / rate for rate in rounds], "ns", of)


if __name__ == "__main__":
    sys.argv[1:1] = ["--only", "selection", "--only", "view-select"]
    run_module("benchmarks", run_name="__main__")
