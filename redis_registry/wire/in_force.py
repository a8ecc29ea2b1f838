"""Which overrides are in force on an instance, and what it looks like under them: pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from typing import Any, NamedTuple

from redis_registry.model import Health, Identity, ModelInstance, Readiness
from redis_registry.wire.overrides import Override, literal

__all__ = ["NOTHING", "Overrides", "means"]

_MOST_REMEMBERED = 65_536
"""Bound of how many instances a collection remembers its verdict on."""


class _Standing(NamedTuple):
    """An override, ready to be applied.

    Attributes:
        exact: It means one instance only, so it wins over patterns.
        at_us: When it was decided: of two, the later wins.
        ends_us: When it ends; ``None``: it doesn't.
        fits: What of the selector is left to be looked at.
    """

    exact: bool
    at_us: int
    name: str
    ends_us: int | None
    fits: tuple[tuple[str, Callable[[Any], object]], ...]
    override: Override

    def means(self, instance: ModelInstance) -> bool:
        """Whether an instance is meant."""
        return all(fits(getattr(instance, field)) for field, fits in self.fits)


@lru_cache(maxsize=4096)
def _matcher(pattern: str | int) -> Callable[[Any], object]:
    wanted = pattern if isinstance(pattern, int) else literal(pattern)
    if wanted is not None:
        return lambda value: value == wanted
    match = re.compile(translate(str(pattern))).match
    return lambda value: value is not None and match(value)


_LOOKED_AT = (
    ("model_name", "model"),
    ("host", "host"),
    ("port", "port"),
    ("zone", "zone"),
)


def _standing(override: Override) -> _Standing:
    selector = override.selector
    fits = tuple(
        (field, _matcher(pattern))
        for field, name in _LOOKED_AT
        if (pattern := getattr(selector, name)) is not None
    )
    return _Standing(
        exact=selector.one_identity is not None,
        at_us=override.at_us,
        name=override.name,
        ends_us=override.ends_us,
        fits=fits,
        override=override,
    )


def means(override: Override, instance: ModelInstance) -> bool:
    """Whether an override is about an instance, in force or not."""
    return _standing(override).means(instance)


class Overrides:
    """The overrides of one partition at one moment; it is never changed, only replaced.

    Args:
        overrides: Those on record, in any order.
    """

    def __init__(self, overrides: Iterable[Override] = ()) -> None:
        self._by_name = {override.name: override for override in overrides}
        self._by_identity: dict[Identity, list[_Standing]] = {}
        self._by_model: dict[str, list[_Standing]] = {}
        self._patterns: list[_Standing] = []
        self._ends: list[int] = []
        self._fitting: dict[tuple[Identity, str | None], tuple[_Standing, ...]] = {}
        for override in self._by_name.values():
            standing = _standing(override)
            identity = override.selector.one_identity
            model = override.selector.one_model
            if identity is not None:
                self._by_identity.setdefault(identity, []).append(standing)
            elif model is not None:
                self._by_model.setdefault(model, []).append(standing)
            else:
                self._patterns.append(standing)
            if standing.ends_us is not None:
                self._ends.append(standing.ends_us)

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Override]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Override | None:
        """The one of a name, in force or not."""
        return self._by_name.get(name)

    def put(self, override: Override) -> Overrides:
        """These and one more, which replaces the one of its name."""
        return Overrides((self._by_name | {override.name: override}).values())

    def drop(self, name: str) -> Overrides:
        """These without one."""
        return Overrides(o for o in self._by_name.values() if o.name != name)

    def in_force(self, now_us: int) -> Overrides:
        """Those that have not ended."""
        return Overrides(
            override
            for override in self
            if override.ends_us is None or override.ends_us > now_us
        )

    def next_end_us(self, now_us: int) -> int | None:
        """When the next one ends by itself; ``None``: none does."""
        return min((end for end in self._ends if end > now_us), default=None)

    def apply(self, instance: ModelInstance, now_us: int) -> ModelInstance:
        """The instance as operators want it seen; the same object where none has decided.

        Args:
            instance: As the worker and the deadline say it.
            now_us: Redis's clock.
        """
        if not self._by_name:
            return instance
        key = instance.identity, instance.zone
        fitting = self._fitting.get(key)
        if fitting is None:
            fitting = self._fit(instance)
            if len(self._fitting) >= _MOST_REMEMBERED:
                self._fitting.clear()
            self._fitting[key] = fitting
        found = [
            standing.override
            for standing in fitting
            if standing.ends_us is None or standing.ends_us > now_us
        ]
        if not found:
            return instance
        return instance.model_copy(update=_seen(instance, found))

    def _fit(self, instance: ModelInstance) -> tuple[_Standing, ...]:
        """Those that mean an instance, the one that wins last."""
        fitting = [
            standing
            for standing in (
                *self._patterns,
                *self._by_model.get(instance.model_name, ()),
                *self._by_identity.get(instance.identity, ()),
            )
            if standing.means(instance)
        ]
        return tuple(sorted(fitting, key=lambda standing: standing[:3]))


def _seen(instance: ModelInstance, found: list[Override]) -> dict[str, Any]:
    """What changes about an instance; the later of ``found`` win."""
    said: dict[str, tuple[Any, Override]] = {}
    labels: dict[str, str] = {}
    for override in found:
        said |= {name: (value, override) for name, value in override.says.items()}
        labels |= override.labels
    seen: dict[str, Any] = {"overrides": [override.name for override in found]}
    since = [instance.since]
    for name in ("enabled", "weight"):
        if name in said:
            seen[name] = said[name][0]
    if "healthy" in said:
        alive, by = said["healthy"]
        seen["healthy"] = seen["forced"] = alive
        seen["state"] = Health.HEALTHY if alive else Health.FORCED
        if alive is not instance.healthy:
            since.append(by.at)
    if "draining" in said and said["draining"][0]:
        by = said["draining"][1]
        seen["readiness"], seen["reason"] = Readiness.DRAINING, by.reason
        since.append(by.at)
    if labels:
        seen["zone"] = labels.pop("zone", instance.zone)
        seen["metadata"] = instance.metadata | labels
    seen["since"] = max((when for when in since if when is not None), default=None)
    return seen


NOTHING = Overrides()
"""No overrides."""
