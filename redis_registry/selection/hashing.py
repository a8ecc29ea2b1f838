"""Policies that choose by a key: the same key, the same instance, in every process.

Both give each key the instance with the best score of all, where a score depends on nothing but
the key, the instance and its weight. So an instance that goes takes only its own keys with it,
one that comes takes only keys for itself, and a new weight moves keys only from or to its owner.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import repeat
from struct import Struct
from typing import cast

from redis_registry.errors import ConfigurationError
from redis_registry.selection.candidates import Candidates
from redis_registry.selection.keys import digest_of, key_bytes
from redis_registry.selection.outstanding import Outstanding, Tally
from redis_registry.selection.policy import Pick

__all__ = ["ConsistentHash", "Rendezvous"]

Winner = Callable[[bytes], int]  # the place of the instance that a key goes to

# Typed, which operator's functions aren't.
_gap = cast("Callable[[int, int], int]", operator.sub)
_score = cast("Callable[[int, float], float]", operator.truediv)  # pyright: ignore[reportUnknownMemberType]

_CIRCLE = 1 << 32
_POINTS = Struct("<16I").unpack  # of an instance: all of its digest
_PROBES = Struct("<4I48x").unpack  # of a key: a part of its digest
_RANK_BITS = 32
_RANKS = (1 << _RANK_BITS) - 1

_AGAIN = [b"\0%d" % attempt for attempt in range(1, 17)]

_SLOT_BYTES = 2
_MASK = (1 << 64) - 1
_ODD_1 = 0x9E3779B97F4A7C15
_ODD_2 = 0xD6E8FEB86659FD93


class ConsistentHash:
    """By key, with bounded loads: a key moves on only while its instance has more than its share.

    Each instance has 16 points on a circle, each key 4 probes; the smallest distance from a
    probe onwards to a point, by the weight of its instance, wins. Shares keep to the weights
    with a standard deviation of about 12 %, as on a ring with 100 points an instance.

    Args:
        outstanding: What this process has under way: the loads that are bounded.
        spare: c: nobody is given more than (1 + c) times the mean of these loads (by weight),
            rounded up. Smaller is more even, and moves more keys. ``math.inf``: no bound.

    Raises:
        ConfigurationError: ``spare`` is negative or not a number.
    """

    def __init__(
        self, outstanding: Outstanding | None = None, *, spare: float = 0.25
    ) -> None:
        if not spare >= 0:
            raise ConfigurationError(f"spare: 0 or more (got {spare})")
        self._outstanding = outstanding
        self._spare = spare

    def prepare(self, candidates: Candidates) -> Pick:
        """O(n log n), once for all choosers."""
        winner = candidates.keep("ring", _ring)
        able = candidates.able
        if self._outstanding is None or math.isinf(self._spare):
            return lambda key: able[winner(key_bytes(key))]
        rooms = _Rooms(candidates, 1 + self._spare)
        self._outstanding.follow(rooms)
        return lambda key: able[rooms.place(winner, key_bytes(key))]


class Rendezvous:
    """By key: each instance's score is drawn for itself alone, so shares are exact.

    Keys fall into 65,536 slots. The first pick of a slot costs O(n) (0.2 ms for 1,000 instances),
    and is kept until the model changes; so shares are even as far as 65,536 can be dealt out evenly
    (1 instance of 100 has 655 of them, give or take 26).
    """

    def prepare(self, candidates: Candidates) -> Pick:
        """O(n), once for all choosers."""
        winner = candidates.keep("rendezvous", _rendezvous)
        able = candidates.able
        return lambda key: able[winner(key_bytes(key))]


class _Rooms(Tally):
    """Who has room for more, within the bound.

    Args:
        candidates: Among these.
        factor: Which part more than its share of all an instance may have; 1: no more.
    """

    __slots__ = ("_limits",)

    def __init__(self, candidates: Candidates, factor: float) -> None:
        super().__init__(candidates.identities, repeat(0, len(candidates.able)))
        largest = max(candidates.weights)
        parts = [weight / largest for weight in candidates.weights]
        whole = sum(parts)
        self._limits = [factor * part / whole for part in parts]

    def place(self, winner: Winner, key: bytes) -> int:
        """The first that has room: the key's own, then those of its further keys, then anybody."""
        first = place = winner(key)
        for suffix in _AGAIN:
            if self._has_room(place):
                return place
            place = winner(key + suffix)
        size = len(self._limits)
        others = ((first + step) % size for step in range(size))
        # Somebody has room, as the bounds together are more than all that is under way.
        return next(filter(self._has_room, others), first)

    def _has_room(self, place: int) -> bool:
        under_way = self.loads[place]
        # The bound is rounded up, but not for what is a whole number but for rounding.
        return not under_way or under_way < math.ceil(
            (self.total + 1) * self._limits[place] - 1e-9
        )


def _ring(candidates: Candidates) -> Winner:
    """Multi-probe consistent hashing, made exact for weights."""
    points, owners = candidates.whole.keep("points", _points)
    if candidates.even:
        return _nearest([*points, points[0] + _CIRCLE], [*owners, owners[0]])
    # Twice round, as a heavy instance may win from beyond others.
    further = [point + _CIRCLE for point in points]
    return _nearest_by_weight(
        [*points, *further, points[0] + 2 * _CIRCLE],
        [*owners, *owners, owners[0]],
        candidates.weights,
    )


def _points(candidates: Candidates) -> tuple[list[int], list[int]]:
    """The points on the circle, ascending, and of each the place of its instance."""
    digests = list(map(digest_of, candidates.identities))
    # In an order of their own, so that the order of the instances decides nothing.
    ranked = sorted(range(len(digests)), key=digests.__getitem__)
    filed = sorted(
        point << _RANK_BITS | rank
        for rank, place in enumerate(ranked)
        for point in _POINTS(digests[place])
    )
    points = [entry >> _RANK_BITS for entry in filed]
    return points, [ranked[entry & _RANKS] for entry in filed]


def _nearest(points: Sequence[int], owners: Sequence[int]) -> Winner:
    point_at = points.__getitem__

    def winner(key: bytes) -> int:
        # Every step runs in C for all probes: a Python loop would take twice as long.
        probes = _PROBES(blake2b(key).digest())
        found = list(map(bisect_right, repeat(points), probes))
        gaps = list(map(_gap, map(point_at, found), probes))
        return owners[found[gaps.index(min(gaps))]]

    return winner


def _nearest_by_weight(
    points: Sequence[int], owners: Sequence[int], weights: Sequence[float]
) -> Winner:
    # Scores are compared only, so a scale is free; a weight of 1e-300 must not overflow them.
    heaviest = max(weights)
    parts = [weights[owner] / heaviest or math.ulp(0.0) for owner in owners]
    point_at, part_at = points.__getitem__, parts.__getitem__

    def winner(key: bytes) -> int:
        probes = _PROBES(blake2b(key).digest())
        found = list(map(bisect_right, repeat(points), probes))
        gaps = list(map(_gap, map(point_at, found), probes))
        scores = list(map(_score, gaps, map(part_at, found)))
        best = min(scores)
        won = found[scores.index(best)]
        # With the heaviest part, 1, a score is the gap: nobody beyond `best` can win.
        for number, start in enumerate(gaps):
            at, gap, probe = found[number], start, probes[number]
            while gap < best and gap < _CIRCLE:
                score = gap / parts[at]
                if score < best:
                    best, won = score, at
                at += 1
                gap = points[at] - probe
        return owners[won]

    return winner


def _rendezvous(candidates: Candidates) -> Winner:
    seeds = [
        int.from_bytes(digest[:8], "big")
        for digest in map(digest_of, candidates.identities)
    ]
    best = _highest if candidates.even else _lowest(candidates.weights)
    winners: dict[bytes, int] = {}

    def winner(key: bytes) -> int:
        slot = blake2b(key, digest_size=_SLOT_BYTES).digest()
        place = winners.get(slot)
        if place is None:
            place = winners[slot] = best(_mixed(seeds, slot))
        return place

    return winner


def _mixed(seeds: Sequence[int], slot: bytes) -> list[int]:
    """For each seed, 64 bits that depend on it and on the slot."""
    salt = int.from_bytes(blake2b(slot, digest_size=8).digest(), "big")
    first = [((seed ^ salt) * _ODD_1) & _MASK for seed in seeds]
    return [((mixed ^ mixed >> 32) * _ODD_2) & _MASK for mixed in first]


def _highest(scores: Sequence[int]) -> int:
    return scores.index(max(scores))


def _lowest(weights: Sequence[float]) -> Callable[[Sequence[int]], int]:
    """For each a time of waiting at the rate of its weight; the shortest wins."""
    heaviest = max(weights)
    parts = [weight / heaviest or math.ulp(0.0) for weight in weights]

    def best(scores: Sequence[int]) -> int:
        waits = [
            -math.log((score + 1) / (_MASK + 2)) / part
            for score, part in zip(scores, parts, strict=True)
        ]
        return waits.index(min(waits))

    return best
