"""Who may receive new work, and which of them: pure functions, no I/O."""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import StrEnum

from redis_registry.model import Health, ModelInstance

__all__ = ["Reason", "awaits_probe", "pick", "selectable", "why_not"]


class Reason(StrEnum):
    """Why an instance receives no new work; the first that applies, in this order."""

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


_DEAD = {Health.OVERDUE: Reason.OVERDUE, Health.FORCED: Reason.FORCED}


def why_not(instance: ModelInstance) -> Reason | None:
    """The one primary reason why an instance may not receive new work; ``None``: it may."""
    if not instance.healthy:
        state = instance.state or Health.UNHEALTHY
        return _DEAD.get(state, Reason.UNHEALTHY)
    if not instance.enabled:
        return Reason.DISABLED
    if not instance.ready:
        return Reason(instance.readiness.value)
    if instance.weight == 0:
        return Reason.NO_WEIGHT
    return Reason(instance.held_out.cause) if instance.held_out else None


def selectable(instance: ModelInstance) -> bool:
    """Whether an instance may receive new work; see :class:`Reason`."""
    return why_not(instance) is None


_HELD_OUT = {Reason.FAILURES, Reason.FLAPPING}


def awaits_probe(instance: ModelInstance) -> bool:
    """Whether one probe, if it is granted, may be sent to it."""
    held = instance.held_out
    return bool(held and held.half_open) and why_not(instance) is Reason.FAILURES


def pick(
    instances: Iterable[ModelInstance], *, probes: bool = False, held_out: bool = True
) -> ModelInstance | None:
    """One selectable instance, uniformly at random; ``None`` if there is none.

    Args:
        instances: Of whom.
        probes: Also one that awaits its probe: claim that, or pick another.
        held_out: When there is none, one that is only held out: better than nobody.
    """
    given = list(instances)
    able = [i for i in given if selectable(i) or (probes and awaits_probe(i))]
    if not able and held_out:
        able = [item for item in given if why_not(item) in _HELD_OUT]
    return random.choice(able) if able else None  # noqa: S311  not a secret
