"""Policies that look at how much each instance has to do.

A load is what the instance reported last (in flight and queued) and what this process has under
way there, together, by its weight.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from random import random, sample

from redis_registry.model import ModelInstance
from redis_registry.selection.candidates import Candidates
from redis_registry.selection.keys import Key
from redis_registry.selection.outstanding import Outstanding, Tally
from redis_registry.selection.policy import Pick

__all__ = ["LeastLoaded", "PowerOfTwo"]


class PowerOfTwo:
    """Of two at random the less loaded one: O(1), and controllers don't all run to the same one.

    Args:
        outstanding: What this process has under way.
    """

    by_load = True

    def __init__(self, outstanding: Outstanding) -> None:
        self._outstanding = outstanding

    def prepare(self, candidates: Candidates) -> Pick:
        """O(n)."""
        able, size = candidates.able, len(candidates.able)
        if size == 1:
            return lambda key: able[0]  # noqa: ARG005  a Pick
        tally = Tally(candidates.identities, candidates.reported)
        self._outstanding.follow(tally)
        # Equal ones as one object: of thousands of their own few would be in the CPU's cache.
        weights = [1.0] * size if candidates.even else candidates.weights

        def pick(key: Key | None) -> ModelInstance:  # noqa: ARG001  a Pick
            loads = tally.loads  # through the tally, which lives as long as this does
            one = int(random() * size)  # noqa: S311
            two = int(random() * (size - 1))  # noqa: S311
            if two >= one:
                two += 1
            first = loads[one] / weights[one] <= loads[two] / weights[two]
            return able[one if first else two]

        return pick


class LeastLoaded:
    """The least loaded of all; those equally loaded take turns. O(log n) a pick.

    Args:
        outstanding: What this process has under way.
    """

    by_load = True

    def __init__(self, outstanding: Outstanding) -> None:
        self._outstanding = outstanding

    def prepare(self, candidates: Candidates) -> Pick:
        """O(n)."""
        files = _Files(candidates)
        self._outstanding.follow(files)
        return files.pick


_Entry = tuple[float, int, int]  # load, ticket, place


class _Files(Tally):
    """The candidates in a heap, each filed under a load that is not above its own.

    When a load grows its entry is left alone, and filed anew when it comes to the top. When it
    shrinks, a new entry is filed at once and the old one is void: only the last one filed of an
    instance counts. The ticket makes those of equal load take turns. A pick holds no lock: every
    step on the heap is one call of C code, and a step of another thread in between costs at most
    one choice that is second best.
    """

    __slots__ = ("_able", "_filed", "_heap", "_tickets", "_weights")

    def __init__(self, candidates: Candidates) -> None:
        super().__init__(candidates.identities, candidates.reported)
        self._able, self._weights = candidates.able, candidates.weights
        size = len(self._able)
        self._tickets = count(size)
        # Controllers that start together must not begin with the same one.
        tickets = sample(range(size), size)
        self._filed = [(self._load(at), tickets[at], at) for at in range(size)]
        self._heap: list[_Entry] = []
        self._sort()

    def _changed(self, place: int, by: int) -> None:
        """A load that shrank must be found at once."""
        if by < 0 and self._load(place) < self._filed[place][0]:
            self._file(place)

    def pick(self, key: Key | None) -> ModelInstance | None:  # noqa: ARG002  a Pick
        """The least loaded."""
        while True:
            try:
                entry = heappop(self._heap)
            except IndexError:  # other threads hold every entry at this moment
                return self._able[min(range(len(self._able)), key=self._load)]
            at = entry[2]
            if self._filed[at] is not entry:
                continue
            load = self._file(at)
            if load <= entry[0]:
                return self._able[at]

    def _load(self, at: int) -> float:
        return self.loads[at] / self._weights[at]

    def _file(self, at: int) -> float:
        """File an instance under its load of now, behind all of the same load."""
        while True:
            load = self._load(at)
            entry = (load, next(self._tickets), at)
            self._filed[at] = entry
            heappush(self._heap, entry)
            if self._load(at) >= load:  # else it shrank meanwhile, by another thread
                break
        if len(self._heap) > 2 * len(self._filed) + 64:
            self._sort()
        return load

    def _sort(self) -> None:
        """Drop the void entries, in place: other threads hold on to the list."""
        self._heap[:] = self._filed
        heapify(self._heap)
