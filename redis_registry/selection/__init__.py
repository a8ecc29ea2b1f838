"""Who may receive new work, and which of them: pure functions, no I/O."""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import StrEnum

from redis_registry.model import Health, ModelInstance

__all__ = ["Reason", "pick", "selectable", "why_not"]


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


def pick(instances: Iterable[ModelInstance]) -> ModelInstance | None:
    """One selectable instance, uniformly at random; ``None`` if there is none."""
    able = [instance for instance in instances if selectable(instance)]
    return random.choice(able) if able else None  # noqa: S311  not a secret
