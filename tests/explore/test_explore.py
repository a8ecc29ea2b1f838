"""The explorer itself: its store is Redis's equal, it ends where a world ends, it finds faults."""

from __future__ import annotations

import pytest

from tests.conftest import running
from tests.explore.merging import compressed
from tests.explore.mutants import BROKEN, Broken
from tests.explore.replay import Differs, replay, walk
from tests.explore.search import explore, retrace, told
from tests.explore.world import World
from tests.explore.worlds import WORLDS
from tests.helpers import connect
from tests.mutants.catalogue import Edit

SOON = [
    "a read believes the flag",
    "a silence of the registry goes unnoticed",
    "a late heartbeat brings back a worker that said goodbye",
    "Redis takes the writes of any term",
    "deregistering leaves the deadline",
    "a flip writes no event",
]


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_nothing_is_wrong_within_a_few_steps(world: World) -> None:
    found = explore(world, most_states=100)

    assert found.violation is None
    assert found.states >= 100
    assert found.transitions > found.states


@pytest.mark.parametrize(
    "broken", [b for b in BROKEN if b.what in SOON], ids=lambda b: b.what
)
def test_broken_scripts_are_noticed_by_a_short_trace(broken: Broken) -> None:
    found = explore(broken.world, edits=broken.edits, most_states=3000)

    assert found.violation is not None
    assert len(found.violation.trace) <= 6
    assert list(told(found.violation.trace))


@pytest.mark.parametrize("kind", ["valkey", "redis7"])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_store_in_memory_does_what_a_server_does(world: World, kind: str) -> None:
    raw = connect(running(kind).url)
    try:
        assert replay(walk(world, 120, seed=1), raw) > 60
    finally:
        raw.flushall()
        raw.close()


def test_a_store_that_does_something_else_is_noticed() -> None:
    edit = Edit(
        "redis_registry/store/lua/register.lua",
        "'heartbeat of an unknown instance' or 'register'",
        "'heartbeat of an unknown instance' or 'somehow'",
    )
    raw = connect(running("valkey").url)
    steps = walk(WORLDS["terms"], 60, seed=1)
    try:
        with pytest.raises(Differs):
            replay(steps, raw, (edit,))
    finally:
        raw.flushall()
        raw.close()


def test_a_world_in_which_nothing_can_begin_ends() -> None:
    world = World(
        "still", "", lives=(("1",),), checkers=0, restarts=0, calls=("goodbye",)
    )

    found = explore(world)

    assert found.complete
    assert found.violation is None


def test_a_trace_can_be_made_again() -> None:
    choices = [3, 0, 0, 0, 1]

    one, other = (retrace(WORLDS["lives"], choices) for _ in range(2))

    assert [str(step.action) for step in one] == [str(step.action) for step in other]
    assert one[-1].after == other[-1].after


def test_only_the_length_of_long_intervals_is_forgotten() -> None:
    assert compressed([100, 97, 3], 100, most=10) == {3: -13, 97: -3, 100: 0}
    assert compressed([90, 3], 100, most=10) == {3: -20, 90: -10, 100: 0}
    assert compressed([104], 100, most=10) == {100: 0, 104: 4}
