"""How figures are taken: sides measured in turn, medians of rounds, load by many callers."""

from __future__ import annotations

import asyncio
import gc
import inspect
import statistics
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter
from typing import TypeVar

from benchmarks.figures import Figure, Samples

__all__ = ["BENCHMARKS", "Benchmark", "Missing", "Run", "benchmark", "calls", "latency"]

Item = TypeVar("Item")
Side = Callable[[], Awaitable[float]]
MICROS = 1_000_000


class Missing(Exception):
    """Something a benchmark needs isn't here; the message says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class Run:
    """How thorough this run is.

    Attributes:
        rounds: Rounds of each side that count.
        quick: Smaller fleets and shorter rounds, for development; its figures are no result.
    """

    rounds: int
    quick: bool

    @property
    def secs(self) -> float:
        """Length of one side's turn."""
        return 0.3 if self.quick else 1.0

    def size(self, full: int) -> int:
        """How many instances: all of them, or a tenth in a quick run."""
        return full // 10 if self.quick else full

    async def interleave(self, sides: Mapping[str, Side]) -> dict[str, list[float]]:
        """Measure A B C, A B C, …: what disturbs the machine meets every side alike.

        Each side has one turn first that doesn't count.
        """
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for counts in [False] + [True] * self.rounds:
            for name, side in sides.items():
                gc.collect()
                value = await side()
                if counts:
                    taken[name].append(value)
        return taken


Measure = Callable[[Run], AsyncGenerator[Figure]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: What ``--only`` calls it.
        measure: Yields its figures.
    """

    name: str
    measure: Measure

    @property
    def says(self) -> str:
        """What exactly it measures."""
        return inspect.getdoc(self.measure) or ""


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(measure: Measure) -> Measure:
    """Enter a function under its own name into the list of benchmarks."""
    name = measure.__name__.replace("_", "-")
    BENCHMARKS[name] = Benchmark(name, measure)
    return measure


async def calls(
    call: Callable[[Item], Awaitable[object]],
    items: Sequence[Item],
    *,
    callers: int,
    secs: float,
) -> float:
    """Calls a second of ``callers`` loops, each awaiting ``call`` for its share of ``items``."""
    until = perf_counter() + secs

    async def caller(share: Sequence[Item]) -> int:
        done = 0
        for item in cycle(share):
            await call(item)
            done += 1
            if perf_counter() >= until:
                break
        return done

    started = perf_counter()
    done = await asyncio.gather(*(caller(items[i::callers]) for i in range(callers)))
    return sum(done) / (perf_counter() - started)


async def latency(call: Callable[[], Awaitable[object]], *, secs: float) -> float:
    """Median time, in microseconds, of one call after the other for ``secs``."""
    taken: list[float] = []
    until = perf_counter() + secs
    while perf_counter() < until or not taken:
        started = perf_counter()
        await call()
        taken.append((perf_counter() - started) * MICROS)
    return statistics.median(taken)


def micros(rounds: Sequence[float], of: str) -> Samples:
    """Rounds in microseconds."""
    return Samples(rounds, "us", of)


def per_sec(rounds: Sequence[float], of: str) -> Samples:
    """Rounds in things a second."""
    return Samples(rounds, "/s", of)
