"""Least loaded and power of two: reported load and what is under way here, by weight."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_registry import Candidates, Chooser, ModelInstance, Outstanding
from redis_registry.model import Load
from redis_registry.selection import POLICIES
from tests.selection.fleets import fleet, instance, loaded, picks

LOADS = ("least_loaded", "power_of_two")


def load(one: ModelInstance, outstanding: Outstanding) -> float:
    """What both policies compare."""
    reported = one.load or Load()
    known = (reported.in_flight or 0) + (reported.queued or 0)
    return (known + outstanding.counts.get(one.identity, 0)) / (one.weight or 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from([0.5, 1, 1, 2, 10])),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 2**32),
)
def test_least_loaded_is_the_least_loaded_whatever_happens_between(
    given_loads: list[tuple[int, float]], seed: int
) -> None:
    chance, outstanding = random.Random(seed), Outstanding()
    instances = [
        loaded(at, in_flight, weight=weight)
        for at, (in_flight, weight) in enumerate(given_loads)
    ]
    chooser = Chooser("least_loaded", outstanding=outstanding)
    candidates = Candidates(instances)
    under_way: list[ModelInstance] = []
    for _ in range(300):
        chosen = chooser.choose(candidates)
        assert chosen
        least = min(load(one, outstanding) for one in instances)
        assert load(chosen, outstanding) == least
        # Others begin work there too, and work ends in any order.
        for one in chance.choices([chosen, *instances], k=chance.randrange(3)):
            outstanding.begin(one)
            under_way.append(one)
        for _ in range(min(chance.randrange(3), len(under_way))):
            outstanding.end(under_way.pop(chance.randrange(len(under_way))))


def test_the_equally_loaded_take_turns() -> None:
    found = picks(Chooser("least_loaded"), fleet(5, [0, 1, 1, 1, 1]), 400)
    assert found == {1: 100, 2: 100, 3: 100, 4: 100}


def test_work_is_dealt_out_by_weight() -> None:
    outstanding = Outstanding()
    candidates = Candidates(fleet(4, [1, 2, 3, 4]))
    for policy in LOADS:
        chooser = Chooser(policy, outstanding=outstanding)
        random.seed(4)
        with ExitStack() as stack:
            for _ in range(1000):
                chosen = chooser.choose(candidates)
                assert chosen
                stack.enter_context(outstanding.using(chosen))
            for one in candidates.instances:
                due = 100 * (one.weight or 0)
                assert outstanding.counts[one.identity] == pytest.approx(due, abs=15)
        assert not outstanding.counts


def test_queued_and_in_flight_as_reported_count() -> None:
    busy = instance(1, load=Load(in_flight=1, queued=3))
    waiting = instance(2, load=Load(queued=2))
    idle = instance(3, load=Load(capacity=4))
    for policy in LOADS:
        assert picks(Chooser(policy), [busy, idle], 50) == {1: 50}
        assert picks(Chooser(policy), [busy, waiting], 50) == {1: 50}
    # Of three, the two at random are the two busy ones in a third of the picks.
    found = picks(Chooser("power_of_two"), [busy, waiting, idle], 3000)
    assert found[0] == 0
    assert found[1] == pytest.approx(1000, abs=150)


def test_power_of_two_is_fair_to_equals_and_fine_with_one() -> None:
    found = picks(Chooser("power_of_two"), fleet(4), 8000)
    assert all(1800 < count < 2200 for count in found.values())
    assert picks(Chooser("power_of_two"), fleet(1), 5) == {0: 5}


def test_outstanding_counts_what_is_under_way_and_keeps_nothing_else() -> None:
    outstanding, one = Outstanding(), instance()

    def fails() -> None:
        with outstanding.using(one), outstanding.using(one):
            assert outstanding.counts == {one.identity: 2}
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert outstanding.counts == {}
    outstanding.end(one)  # nobody began
    assert outstanding.counts == {}


def test_an_empty_outstanding_is_used_and_not_replaced() -> None:
    outstanding = Outstanding()
    assert Chooser("least_loaded", outstanding=outstanding).outstanding is outstanding


def work_of_threads(chooser: Chooser, holder: list[Candidates]) -> None:
    """Six threads pick and work, while the candidates are replaced."""
    start = threading.Barrier(6)

    def work() -> None:
        start.wait()
        for number in range(2000):
            chosen = chooser.choose(holder[0], str(number))
            assert chosen
            with chooser.outstanding.using(chosen):
                if number % 500 == 0:
                    holder[0] = Candidates(fleet(7))

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work) for _ in range(6)]:
            done.result()


@pytest.mark.parametrize("policy", POLICIES)
def test_threads_choose_at_once_and_leave_nothing(policy: str) -> None:
    chooser = Chooser(policy)
    work_of_threads(chooser, [Candidates(fleet(7))])
    assert not chooser.outstanding.counts


def test_threads_lose_nobody_in_the_heap() -> None:
    chooser, holder = Chooser("least_loaded"), [Candidates(fleet(7))]
    work_of_threads(chooser, holder)
    seen = Counter[str]()
    for _ in range(7):
        chosen = chooser.choose(holder[0])
        assert chosen
        chooser.outstanding.begin(chosen)
        seen[str(chosen.identity)] += 1
    assert len(seen) == 7


@pytest.mark.parametrize("policy", [*LOADS, "consistent_hash"])
def test_candidates_that_are_gone_leave_nothing_behind(policy: str) -> None:
    outstanding = Outstanding()
    chooser = Chooser(policy, outstanding=outstanding, zones=["a"], canary=None)
    gc.disable()  # no cycle either: they go at once
    try:
        for _ in range(50):
            candidates = Candidates(fleet(3))
            chosen = chooser.choose(candidates, "key")
            assert chosen
            gone = weakref.ref(candidates)
            with outstanding.using(chosen):
                del candidates
                assert gone() is None
        followers = [one for each in outstanding._followers.values() for one in each]
        assert len(followers) <= 1
    finally:
        gc.enable()


def test_the_heap_stays_small() -> None:
    outstanding = Outstanding()
    chooser = Chooser("least_loaded", outstanding=outstanding)
    candidates = Candidates(fleet(4))
    chooser.choose(candidates)
    (follower,) = outstanding._followers["glm@llm"]
    files: Any = follower()
    for _ in range(5000):
        chosen = chooser.choose(candidates)
        assert chosen
        with outstanding.using(chosen):
            chooser.choose(candidates)
    assert len(files._heap) <= 2 * 4 + 65


def test_while_other_threads_hold_all_of_the_heap_it_still_chooses() -> None:
    chooser = Chooser("least_loaded")
    candidates = Candidates([loaded(0, 2), loaded(1, 1), loaded(2, 3)])
    chooser.choose(candidates)
    (follower,) = chooser.outstanding._followers["glm@llm"]
    files: Any = follower()
    files._heap.clear()
    assert chooser.choose(candidates) is candidates.instances[1]
