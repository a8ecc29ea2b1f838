"""Breadth first through all states of a world, so that the first trace found is a shortest one.

Each process expands a share of the states of one depth and keeps to itself what it has already
told; who asks for the next depth knows all states, and how each was reached first.
"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.explore.invariants import judge_state, judge_step
from tests.explore.merging import Merging
from tests.explore.store import Refused, Store
from tests.explore.world import Step, World
from tests.mutants.catalogue.mutant import Edit

__all__ = ["Found", "Violation", "explore", "retrace", "told"]

CHUNK = 100
"""States that a process gets at a time."""


class _Way(NamedTuple):
    """How a state was reached first: from which, by which of that one's actions."""

    parent: bytes
    choice: int


class _New(NamedTuple):
    key: bytes
    state: bytes
    way: _Way


class _Expanded(NamedTuple):
    transitions: int
    new: list[_New]
    wrong: list[tuple[_Way, str]]


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold, and the shortest way there.

    Attributes:
        what: Which, and how.
        trace: From the beginning on.
    """

    what: str
    trace: Sequence[Step]


@dataclass
class Found:
    """What an exploration has found.

    Attributes:
        states: How many different ones.
        transitions: How many steps were made and judged.
        depth: All states that this many steps can reach were seen.
        complete: There are no others.
        secs: How long it took.
        violation: What is wrong, if anything.
    """

    states: int = 1
    transitions: int = 0
    depth: int = 0
    complete: bool = False
    secs: float = 0.0
    violation: Violation | None = None


@dataclass
class _Worker:
    """Expands states; one in each process."""

    world: World
    edits: tuple[Edit, ...]
    store: Store = field(init=False)
    merging: Merging = field(init=False)
    told: set[bytes] = field(default_factory=set[bytes])

    def __post_init__(self) -> None:
        self.store = Store(self.edits)
        self.merging = Merging(self.world)

    def expand(self, chunk: Sequence[tuple[bytes, bytes]]) -> _Expanded:
        """All steps from each of these states."""
        transitions, new, wrong = 0, list[_New](), list[tuple[_Way, str]]()
        for parent, packed in chunk:
            state = pickle.loads(packed)
            self.told.add(parent)
            for index, action in enumerate(self.world.actions(state)):
                step = self.world.step(self.store, state, action)
                transitions += 1
                way = _Way(parent, index)
                problem = judge_step(step)
                key = b"" if problem else self.merging.key(step.after)
                if problem is None and key not in self.told:
                    self.told.add(key)
                    problem = judge_state(step, self.store)
                    new.append(_New(key, pickle.dumps(step.after), way))
                if problem:
                    wrong.append((way, problem))
                    return _Expanded(transitions, new, wrong)
        return _Expanded(transitions, new, wrong)


_worker: _Worker | None = None


def _start(world: World, edits: tuple[Edit, ...]) -> None:
    global _worker  # noqa: PLW0603  one in each process
    _worker = _Worker(world, edits)


def _expand(chunk: Sequence[tuple[bytes, bytes]]) -> _Expanded:
    assert _worker is not None
    return _worker.expand(chunk)


Mapper = Callable[[Iterable[list[tuple[bytes, bytes]]]], Iterator[_Expanded]]


def explore(
    world: World,
    *,
    edits: tuple[Edit, ...] = (),
    jobs: int = 1,
    most_states: int = 10_000_000,
    most_depth: int = 1_000,
    progress: Callable[[Found], None] = lambda _: None,
) -> Found:
    """Look at every state of a world, or at as many as asked for.

    Args:
        world: Which.
        edits: How to break the scripts first.
        jobs: Processes.
        most_states: Stop after the depth at which there are so many.
        most_depth: Stop at this depth.
        progress: Told after each depth.
    """
    if jobs == 1:
        worker = _Worker(world, edits)
        return _search(
            world,
            edits,
            lambda c: map(worker.expand, c),
            most_states,
            most_depth,
            progress,
        )
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, _start, (world, edits)) as pool:

        def mapper(chunks: Iterable[list[tuple[bytes, bytes]]]) -> Iterator[_Expanded]:
            return pool.imap_unordered(_expand, chunks)

        return _search(world, edits, mapper, most_states, most_depth, progress)


def _search(
    world: World,
    edits: tuple[Edit, ...],
    mapper: Mapper,
    most_states: int,
    most_depth: int,
    progress: Callable[[Found], None],
) -> Found:
    began = time.monotonic()
    found = Found()
    first = world.begin(Store(edits))
    root = Merging(world).key(first)
    ways: dict[bytes, _Way | None] = {root: None}
    frontier: list[tuple[bytes, bytes]] = [(root, pickle.dumps(first))]
    while frontier and found.depth < most_depth and len(ways) < most_states:
        chunks = [frontier[i : i + CHUNK] for i in range(0, len(frontier), CHUNK)]
        frontier = []
        wrong: tuple[_Way, str] | None = None
        for expanded in mapper(chunks):
            found.transitions += expanded.transitions
            wrong = wrong or next(iter(expanded.wrong), None)
            if wrong:
                break
            for new in expanded.new:
                if new.key not in ways:
                    ways[new.key] = new.way
                    frontier.append((new.key, new.state))
        found.states, found.secs = len(ways), time.monotonic() - began
        if wrong:
            indices = [*_indices(ways, wrong[0].parent), wrong[0].choice]
            found.violation = Violation(wrong[1], retrace(world, indices, edits))
            break
        found.depth += 1
        found.complete = not frontier
        progress(found)
    return found


def _indices(ways: dict[bytes, _Way | None], key: bytes) -> list[int]:
    """Which actions lead to a state, each by its place among those that were possible."""
    found: list[int] = []
    while way := ways[key]:
        found.append(way.choice)
        key = way.parent
    return found[::-1]


def retrace(
    world: World, choices: Iterable[int | float], edits: tuple[Edit, ...] = ()
) -> list[Step]:
    """Make the steps of a trace again.

    Args:
        world: Where.
        choices: Each the place of an action among those possible, or a share of the way to there.
        edits: How the scripts were broken.
    """
    store = Store(edits)
    state = world.begin(store)
    steps: list[Step] = []
    for choice in choices:
        actions = world.actions(state)
        place = choice if isinstance(choice, int) else int(choice * len(actions))
        steps.append(world.step(store, state, actions[place]))
        state = steps[-1].after
    return steps


def told(steps: Iterable[Step]) -> Iterator[str]:
    """A trace for people: the second, what happens, the answer, the events."""
    for step in steps:
        secs = (step.before.now - step.world.begin_us) / 1_000_000
        line = f"{secs:5g} s  {step.action}"
        if step.ran is not None:
            reply = step.ran.reply
            said = f"refused: {reply.message}" if isinstance(reply, Refused) else reply
            line += f"  → {said}"
        yield line
        for number, kind, cause, about in step.events:
            yield f"           event {number}: {kind} ({cause}) {about.split('|')[0]}"
