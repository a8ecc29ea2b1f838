"""The floors of `python -m benchmarks.selection`, as tests: CPU time, the best of some rounds."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from time import thread_time

import pytest

from redis_registry import Candidates, Chooser
from tests.selection.fleets import fleet

PICKS, ROUNDS = 3000, 15
KEYS = [f"session-{number}" for number in range(PICKS)]


def pick_secs(policy: str, sizes: Sequence[int]) -> list[float]:
    """CPU seconds of one pick among so many instances; the sizes take turns."""
    chooser = Chooser(policy)
    groups = [Candidates(fleet(size)) for size in sizes]
    taken = [float("inf")] * len(sizes)
    for _ in range(ROUNDS):
        gc.collect(0)
        for at, candidates in enumerate(groups):
            started = thread_time()
            for key in KEYS:
                chooser.choose(candidates, key)
            taken[at] = min(taken[at], (thread_time() - started) / PICKS)
    return taken


@pytest.mark.parametrize("policy", ["random", "round_robin", "power_of_two"])
def test_300_000_picks_a_second_however_many_there_are(policy: str) -> None:
    few, many = pick_secs(policy, [10, 10_000])
    assert 1 / many >= 300_000
    assert many / few <= 1.5


def test_100_000_picks_a_second_by_consistent_hash() -> None:
    few, many = pick_secs("consistent_hash", [10, 10_000])
    assert 1 / few >= 100_000
    assert 1 / many >= 100_000


def test_10_000_are_made_ready_in_milliseconds() -> None:
    instances = fleet(10_000)
    for policy in ("random", "round_robin", "weighted"):
        started = thread_time()
        Chooser(policy).choose(Candidates(instances))
        assert thread_time() - started < 0.03
