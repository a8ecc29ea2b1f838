"""What a policy is, and the policies that look at nothing but weights and turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from random import random, randrange
from typing import Protocol

from redis_registry.model import ModelInstance
from redis_registry.selection.candidates import Candidates
from redis_registry.selection.keys import Key

__all__ = ["Pick", "Policy", "Random", "RoundRobin", "Weighted"]

Pick = Callable[[Key | None], ModelInstance | None]
"""Takes a key, or ``None``, and gives an instance; called for each piece of work, from any thread."""

_GOLDEN = 0.6180339887498949

_MOST_TURNS = 1000
"""Bound of how many models' turns are remembered; then all begin anew, somewhere."""


class Policy(Protocol):
    """A way of choosing: it looks at the candidates once, and gives what picks one of them.

    Bring your own::

        class First:
            def prepare(self, candidates: Candidates) -> Pick:
                first = candidates.able[0]
                return lambda key: first

        chooser = Chooser(First())
    """

    def prepare(self, candidates: Candidates) -> Pick:
        """Compute once what every pick among these needs.

        Args:
            candidates: At least one of them is able. The answer may keep parts of them, not
                the object itself: a cycle would outlive it.
        """
        ...


class Random:
    """Each with the same chance. Weights don't matter, except that 0 takes nothing."""

    def prepare(self, candidates: Candidates) -> Pick:
        """O(1); within a slow start O(n)."""
        if candidates.ramps is None:
            return _evenly(candidates.able)
        return _by_shares(candidates.able, candidates.ramps)


class Weighted:
    """Each with a chance that is its share of the weights; O(1) however many there are."""

    def prepare(self, candidates: Candidates) -> Pick:
        """O(1) for equal weights, else O(n)."""
        if candidates.even:
            return _evenly(candidates.able)
        return candidates.keep("weighted", _weighted)


class RoundRobin:
    """One after the other, from a random start. Weights don't matter, except 0.

    The turn goes on where it was when instances come and go.
    """

    def __init__(self) -> None:
        self._turns: dict[str, Iterator[int]] = {}

    def prepare(self, candidates: Candidates) -> Pick:
        """O(1)."""
        # Each model has its own turns: in shared ones, two models asked for alternately would
        # each see every second instance only.
        model = candidates.able[0].model_name
        if len(self._turns) >= _MOST_TURNS and model not in self._turns:
            self._turns.clear()
        turns = self._turns.setdefault(model, count(randrange(1 << 16)))  # noqa: S311
        if candidates.ramps is None:
            return _in_turn(candidates.able, turns)
        return _in_some_turns(candidates.able, candidates.ramps, turns)


def _evenly(able: Sequence[ModelInstance]) -> Pick:
    size = len(able)
    return lambda key: able[int(random() * size)]  # noqa: ARG005, S311  a Pick


def _weighted(candidates: Candidates) -> Pick:
    return _by_shares(candidates.able, candidates.weights)


def _by_shares(able: Sequence[ModelInstance], shares: Sequence[float]) -> Pick:
    """By Vose's alias method: a fair throw for a place, an unfair one for it or its alias."""
    size = len(able)
    odds, alias = _alias(shares)

    def pick(key: Key | None) -> ModelInstance:  # noqa: ARG001  a Pick
        throw = random() * size  # noqa: S311
        place = int(throw)
        return able[place if throw - place < odds[place] else alias[place]]

    return pick


def _alias(shares: Sequence[float]) -> tuple[list[float], list[int]]:
    """For each place the chance to stay there, and where to go otherwise."""
    size, largest = len(shares), max(shares)
    odds = [share / largest for share in shares]  # their sum can't overflow
    scale = size / sum(odds)
    odds = [share * scale for share in odds]
    alias = list(range(size))
    small = [place for place in alias if odds[place] < 1]
    large = [place for place in alias if odds[place] >= 1]
    while small and large:
        poor, rich = small.pop(), large[-1]
        alias[poor] = rich
        odds[rich] -= 1 - odds[poor]
        if odds[rich] < 1:
            small.append(large.pop())
    for place in small + large:  # whole but for rounding
        odds[place] = 1.0
    return odds, alias


def _in_turn(able: Sequence[ModelInstance], turns: Iterator[int]) -> Pick:
    size = len(able)
    return lambda key: able[next(turns) % size]  # noqa: ARG005  a Pick


def _in_some_turns(
    able: Sequence[ModelInstance], ramps: Sequence[float], turns: Iterator[int]
) -> Pick:
    """An instance takes part in as many of the rounds as its ramp says, evenly spread."""
    size = len(able)

    def pick(key: Key | None) -> ModelInstance:  # noqa: ARG001  a Pick
        while (
            True
        ):  # it ends: whoever has the largest ramp, 1, takes part in all of them
            lap, place = divmod(next(turns), size)
            if (lap + place) * _GOLDEN % 1.0 < ramps[place]:
                return able[place]

    return pick
