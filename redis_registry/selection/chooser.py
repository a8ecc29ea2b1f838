"""The hot path: one of the candidates, by everything that was said about how to choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import random
from typing import TypedDict, Unpack

from redis_registry.errors import ConfigurationError
from redis_registry.model import ModelInstance
from redis_registry.selection.candidates import Candidates
from redis_registry.selection.hashing import ConsistentHash, Rendezvous
from redis_registry.selection.keys import Key, fraction, key_bytes
from redis_registry.selection.labels import Labels, Scalar
from redis_registry.selection.loads import LeastLoaded, PowerOfTwo
from redis_registry.selection.outstanding import Outstanding
from redis_registry.selection.policy import Pick, Policy, Random, RoundRobin, Weighted
from redis_registry.selection.slow_start import SlowStart

__all__ = ["POLICIES", "Canary", "Chooser", "HowToChoose", "choose"]

Selector = Labels | Mapping[str, Scalar | Iterable[Scalar]] | str

_POLICIES: dict[str, Callable[[Outstanding], Policy]] = {
    "consistent_hash": ConsistentHash,
    "least_loaded": LeastLoaded,
    "power_of_two": PowerOfTwo,
    "random": lambda _: Random(),
    "rendezvous": lambda _: Rendezvous(),
    "round_robin": lambda _: RoundRobin(),
    "weighted": lambda _: Weighted(),
}

POLICIES = tuple(_POLICIES)
"""The policies that have a name."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A share of the work for the instances with some labels; the others get the rest.

    Without a key each pick is decided by chance. With one the key decides: it stays on its side,
    and a greater share only brings more keys over. A side without able instances leaves all to
    the other.

    Args:
        labels: Of the instances on trial: :class:`Labels`, or whatever makes them.
        share: From 0 to 1.

    Raises:
        ConfigurationError: The share is out of range, or the labels can't be read.
    """

    labels: Labels
    share: float

    def __init__(self, labels: Selector, share: float) -> None:
        if not 0 <= share <= 1:
            raise ConfigurationError(f"canary: share from 0 to 1 (got {share})")
        object.__setattr__(self, "labels", Labels.of(labels))
        object.__setattr__(self, "share", float(share))


class HowToChoose(TypedDict, total=False):
    """What may be said beside the policy.

    Attributes:
        labels: Only instances with these, and nobody else: :class:`Labels`, their text, or a
            mapping from name to accepted value or values.
        zones: In order of preference; the next only when the one before has nobody able, and
            after the last whoever there is.
        strict_zones: Nobody from other zones than these.
        canary: A share of the work for some.
        slow_start_secs: An instance comes to its weight bit by bit, over so many seconds since
            it became what it is; needs ``now``.
        now: Seconds since the epoch by Redis's clock, which says since when an instance is there.
        subset: Keep to so many instances of those that come into question; needs ``client_id``.
        client_id: Who chooses: a text of this process's own, the same after a restart.
        outstanding: What this process has under way; the chooser's own when not given.
    """

    labels: Selector | None
    zones: Iterable[str]
    strict_zones: bool
    canary: Canary | None
    slow_start_secs: float | None
    now: Callable[[], float] | None
    subset: int | None
    client_id: str | None
    outstanding: Outstanding | None


class Chooser:
    """Chooses among candidates; make one and keep it.

    It outlives the candidates: whose turn it is and what is under way go on when they change.
    May be used by any number of threads, for any number of models.

    Args:
        policy: One of :data:`POLICIES`, or a :class:`Policy` of your own.
        **how: See :class:`HowToChoose`.

    Attributes:
        outstanding: What this process has under way.
        by_load: Whether the policy goes by reported loads, so that it pays to read them again.

    Raises:
        ConfigurationError: There is no such policy, or two of the arguments don't go together.
    """

    def __init__(
        self, policy: str | Policy = "weighted", **how: Unpack[HowToChoose]
    ) -> None:
        self.outstanding = how.get("outstanding") or Outstanding()
        self._policy = (
            _named(policy)(self.outstanding) if isinstance(policy, str) else policy
        )
        self.by_load = bool(getattr(self._policy, "by_load", False))
        labels = how.get("labels")
        self._labels = None if labels is None else Labels.of(labels)
        self._zones = _zones(how.get("zones") or ())
        self._strict_zones = how.get("strict_zones", False)
        self._canary = how.get("canary")
        self._slow_start = _slow_start(how.get("slow_start_secs"), how.get("now"))
        self._subset = _subset(how.get("subset"), how.get("client_id"))

    def choose(
        self, candidates: Candidates, key: Key | None = None
    ) -> ModelInstance | None:
        """One instance that may take work; ``None`` when there is none.

        Args:
            candidates: Of one model; keep them while the model doesn't change.
            key: Of a session: the same key stays with the same instance as far as possible. The
                hashing policies need one; to the others it means nothing but its canary side.

        Raises:
            ConfigurationError: The policy needs a key and there is none.
        """
        pick = candidates.kept(self) or candidates.keep(self, self._prepare)
        return pick(key)

    def _prepare(self, candidates: Candidates) -> Pick:
        if self._labels is not None:
            candidates = candidates.narrowed(self._labels)
        if self._canary is None:
            return self._prepare_side(candidates)
        new, old = candidates.split(self._canary.labels)
        if not (new.able and old.able):
            return self._prepare_side(new if new.able else old)
        return _shared(
            self._canary.share, self._prepare_side(new), self._prepare_side(old)
        )

    def _prepare_side(self, candidates: Candidates) -> Pick:
        if self._zones:
            candidates = candidates.nearest(self._zones, strict=self._strict_zones)
        if self._subset:
            candidates = candidates.subset(*self._subset)
        if not candidates.able:
            return _nobody
        if self._slow_start:
            return SlowStart(self._policy, candidates.able, *self._slow_start).pick
        return self._policy.prepare(candidates)


def choose(
    instances: Iterable[ModelInstance],
    policy: str | Policy = "weighted",
    key: Key | None = None,
    **how: Unpack[HowToChoose],
) -> ModelInstance | None:
    """One of these that may take work; ``None`` when there is none.

    For a list that is at hand, once: it costs O(n), and a turn of ``round_robin`` begins
    anywhere. For more than one choice keep a :class:`Chooser` and :class:`Candidates`.

    Args:
        instances: All of one model, in order of registration.
        policy: One of :data:`POLICIES`, or a :class:`Policy` of your own.
        key: Of a session; see :meth:`Chooser.choose`.
        **how: See :class:`HowToChoose`.

    Raises:
        ConfigurationError: As of :class:`Chooser`.
    """
    return Chooser(policy, **how).choose(Candidates(instances), key)


def _named(name: str) -> Callable[[Outstanding], Policy]:
    found = _POLICIES.get(name)
    if found is None:
        raise ConfigurationError(
            f"policy: there is no {name!r}; there are {', '.join(POLICIES)}"
        )
    return found


def _zones(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise ConfigurationError(
            f"zones: a sequence of names, not one text ({given!r})"
        )
    return tuple(given)


def _slow_start(
    secs: float | None, now: Callable[[], float] | None
) -> tuple[Callable[[], float], float] | None:
    if secs is None:
        return None
    if not 0 < secs < math.inf:
        raise ConfigurationError(f"slow_start_secs: above 0 and finite (got {secs})")
    if now is None:
        raise ConfigurationError(
            "slow_start_secs needs now=, the seconds since the epoch by Redis's clock"
        )
    return now, secs


def _subset(size: int | None, client_id: str | None) -> tuple[str, int] | None:
    if size is None:
        return None
    if size < 1:
        raise ConfigurationError(f"subset: at least 1 instance (got {size})")
    if not client_id:
        raise ConfigurationError(
            "subset needs client_id=, a text of this process's own"
        )
    return client_id, size


def _nobody(key: Key | None) -> None:
    """There is nobody to pick."""


def _shared(share: float, new: Pick, old: Pick) -> Pick:
    def pick(key: Key | None) -> ModelInstance | None:
        throw = random() if key is None else fraction(b"canary" + key_bytes(key))  # noqa: S311
        return (new if throw < share else old)(key)

    return pick
