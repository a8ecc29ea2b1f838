"""Who may receive new work, and the one reason why somebody may not."""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import StrEnum

from redis_registry.model import Health, ModelInstance, Readiness

__all__ = ["Reason", "able", "pick", "selectable", "why_not"]


class Reason(StrEnum):
    """Why an instance receives no new work; the first that applies, in this order.

    The last two are said by ``explain`` only: of an instance that is read they can't be told.
    """

    FORCED = "forced"
    UNHEALTHY = "unhealthy"
    OVERDUE = "overdue"
    DISABLED = "disabled"
    DRAINING = "draining"
    FAILED = "failed"
    STARTING = "starting"
    WEDGED = "wedged"
    NOT_READY = "not_ready"
    NO_WEIGHT = "no_weight"
    FAILURES = "failures"
    FLAPPING = "flapping"

    SHADOWED = "shadowed"
    """Its model's name is an alias: reads of it are answered with another model."""

    UNKNOWN = "unknown"
    """The registry has no such instance."""


_DEAD = {Health.OVERDUE: Reason.OVERDUE, Health.FORCED: Reason.FORCED}
_HELD_OUT = (Reason.FAILURES, Reason.FLAPPING)
_READY = Readiness.READY


def why_not(instance: ModelInstance) -> Reason | None:
    """The one primary reason why an instance may not receive new work; ``None``: it may."""
    if not instance.healthy:
        state = instance.state or Health.UNHEALTHY
        return _DEAD.get(state, Reason.UNHEALTHY)
    if not instance.enabled:
        return Reason.DISABLED
    if instance.readiness is not _READY:
        return Reason(instance.readiness.value)
    if instance.weight == 0:
        return Reason.NO_WEIGHT
    return Reason(instance.held_out.cause) if instance.held_out else None


def selectable(instance: ModelInstance) -> bool:
    """Whether an instance may receive new work; see :class:`Reason`."""
    return why_not(instance) is None


def able(instances: Iterable[ModelInstance]) -> tuple[ModelInstance, ...]:
    """The selectable ones. A model's last instances are never held out.

    When nobody is selectable: those whose only obstacle is that they are held out, for
    failures or for flapping. Work that may fail is better than none.

    Args:
        instances: All there are of one model; of a mere sample, these are not the last.
    """
    known = tuple(instances)
    chosen = tuple([instance for instance in known if why_not(instance) is None])
    if chosen:
        return chosen
    return tuple([instance for instance in known if why_not(instance) in _HELD_OUT])


def pick(
    instances: Iterable[ModelInstance], *, sample: bool = False
) -> ModelInstance | None:
    """One that may receive new work, uniformly at random; ``None`` if there is none.

    Args:
        instances: All there are of one model, or some of them.
        sample: They are only some, so that held out ones are not the model's last.
    """
    chosen = list(filter(selectable, instances)) if sample else able(instances)
    return random.choice(chosen) if chosen else None  # noqa: S311  not a secret
