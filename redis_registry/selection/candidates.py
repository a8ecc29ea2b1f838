"""The instances of one model at one moment, with what policies compute of them once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, Self, TypeVar, cast

from redis_registry.model import Identity, ModelInstance
from redis_registry.selection.eligibility import able
from redis_registry.selection.labels import Labels
from redis_registry.selection.subset import subset

__all__ = ["Candidates"]

Kept = TypeVar("Kept")

_MOST_KEPT = 256  # more than choosers and narrowings that anybody keeps for one model


class Candidates:
    """The instances of one model, of which a :class:`Chooser` takes one.

    Immutable, and cheap to make: what policies need (sums of weights, points of hashes) is
    computed when it is first asked for, and kept. Make new ones only when the model changed.
    Every method may be called from any thread.

    Args:
        instances: All instances of the model, in order of registration.

    Attributes:
        instances: The same.
        ramps: Within a slow start: for each of :attr:`able`, which part of its weight it may
            have by now; otherwise ``None``.
    """

    __slots__ = ("__weakref__", "_kept", "_whole", "instances", "kept", "ramps")

    def __init__(self, instances: Iterable[ModelInstance] = ()) -> None:
        self.instances = tuple(instances)
        self.ramps: Sequence[float] | None = None
        self._whole: Candidates | None = None
        self._kept: dict[Hashable, Any] = {}
        self.kept = self._kept.get

    @classmethod
    def of_able(
        cls,
        chosen: Iterable[ModelInstance],
        ramps: Sequence[float] | None = None,
        whole: Candidates | None = None,
    ) -> Self:
        """Candidates of instances that are able already, from the ``able`` of others.

        Args:
            chosen: The instances.
            ramps: Of each, see :attr:`ramps`.
            whole: The same without ramps.
        """
        candidates = cls(chosen)
        candidates._kept["able"] = candidates.instances
        candidates.ramps, candidates._whole = ramps, whole
        return candidates

    @property
    def whole(self) -> Candidates:
        """The same without ramps: to keep there what doesn't depend on the weights."""
        return self._whole or self

    def keep(self, key: Hashable, build: Callable[[Candidates], Kept]) -> Kept:
        """What ``build`` makes of these candidates, made once and kept under ``key``.

        When two threads come first at the same time, both build and one result is kept.

        Args:
            key: What to keep it under; for a policy of your own, one that is its own.
            build: Makes it. The result must not refer to these candidates: a cycle would
                outlive them.
        """
        found = self._kept.get(key)
        if found is None:
            built = build(self)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            found = self._kept.setdefault(key, built)
        return cast("Kept", found)

    @property
    def able(self) -> tuple[ModelInstance, ...]:
        """Those that may receive new work, in the same order.

        When there are none: those that are only held out; see :func:`able`.
        """
        return self.keep("able", _able)

    @property
    def identities(self) -> list[Identity]:
        """Of each of :attr:`able`, its identity."""
        return self.whole.keep("identities", _identities)

    @property
    def weights(self) -> list[float]:
        """Of each of :attr:`able`, its weight: above 0; none given counts as 1.

        Within a slow start it is the part of it that the instance may have by now.
        """
        return self.keep("weights", _weights)

    @property
    def even(self) -> bool:
        """Whether all of :attr:`able` have the same weight."""
        weights = self.weights
        return weights.count(weights[0]) == len(weights) if weights else True

    @property
    def reported(self) -> list[int]:
        """Of each of :attr:`able`, the requests it last reported: in flight and queued."""
        return self.whole.keep("reported", _reported)

    def narrowed(self, labels: Labels) -> Candidates:
        """Only those with these labels: nobody else will do.

        The last of them are never held out; see :attr:`able`.
        """
        return self.keep(("narrowed", labels), partial(_matching, labels=labels))

    def split(self, labels: Labels) -> tuple[Candidates, Candidates]:
        """The able ones with these labels, and all the other able ones."""
        return self.keep(("split", labels), partial(_split, labels=labels))

    def nearest(self, zones: tuple[str, ...], *, strict: bool = False) -> Candidates:
        """The able ones of the first of these zones that has any.

        Args:
            zones: In order of preference.
            strict: When none of these has any: nobody, instead of whoever there is.
        """
        return self.keep(
            ("nearest", zones, strict), partial(_nearest, zones=zones, strict=strict)
        )

    def subset(self, client_id: str, size: int) -> Candidates:
        """The able ones that this client keeps to; see :func:`subset`."""
        return self.keep(
            ("subset", client_id, size),
            lambda own: Candidates.of_able(subset(own.able, client_id, size)),
        )

    def ramped(self, ramps: Sequence[float]) -> Candidates:
        """The same with less weight, within a slow start.

        Args:
            ramps: For each of :attr:`able`, which part of its weight it may have by now, above
                0 and up to 1.
        """
        return Candidates.of_able(self.able, ramps, self)


def _matching(candidates: Candidates, labels: Labels) -> Candidates:
    return Candidates(filter(labels.match, candidates.instances))


def _split(candidates: Candidates, labels: Labels) -> tuple[Candidates, Candidates]:
    sides: tuple[list[ModelInstance], list[ModelInstance]] = ([], [])
    for instance in candidates.able:
        sides[not labels.match(instance)].append(instance)
    return Candidates.of_able(sides[0]), Candidates.of_able(sides[1])


def _nearest(
    candidates: Candidates, zones: tuple[str, ...], strict: bool
) -> Candidates:
    for zone in zones:
        here = [instance for instance in candidates.able if instance.zone == zone]
        if here:
            return Candidates.of_able(here)
    return Candidates.of_able(() if strict else candidates.able)


def _able(candidates: Candidates) -> tuple[ModelInstance, ...]:
    return able(candidates.instances)


def _identities(candidates: Candidates) -> list[Identity]:
    return [instance.identity for instance in candidates.able]


def _weights(candidates: Candidates) -> list[float]:
    given = [instance.weight for instance in candidates.able]
    weights = [1.0 if weight is None else weight for weight in given]
    if candidates.ramps is None:
        return weights
    # A product that is too small for a float must not become 0.
    ramped = zip(weights, candidates.ramps, strict=True)
    return [weight * ramp or weight for weight, ramp in ramped]


def _reported(candidates: Candidates) -> list[int]:
    loads = [instance.load for instance in candidates.able]
    return [
        0 if load is None else (load.in_flight or 0) + (load.queued or 0)
        for load in loads
    ]
