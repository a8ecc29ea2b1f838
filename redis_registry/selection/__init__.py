"""Who may receive new work, and which of them: pure functions, no I/O."""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import StrEnum

from redis_registry.model import Health, ModelInstance

__all__ = [
    "Reason",
    "able",
    "awaits_probe",
    "draw_probe",
    "pick",
    "selectable",
    "why_not",
]


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


_HELD_OUT = (Reason.FAILURES, Reason.FLAPPING)


def able(instances: Iterable[ModelInstance]) -> tuple[ModelInstance, ...]:
    """The selectable ones; when there are none, those that are only held out.

    Args:
        instances: All there are of one model; of a mere sample, these are not the last.
    """
    known = tuple(instances)
    chosen = tuple(filter(selectable, known))
    return chosen or tuple(i for i in known if why_not(i) in _HELD_OUT)


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


def awaits_probe(instance: ModelInstance) -> bool:
    """Whether one probe, if it is granted, may be sent to it."""
    held = instance.held_out
    return bool(held and held.half_open) and why_not(instance) is Reason.FAILURES


def draw_probe(instances: Iterable[ModelInstance]) -> ModelInstance | None:
    """One that awaits its probe, as often as it would be chosen if it were selectable."""
    known = list(instances)
    due = [i for i in known if awaits_probe(i)]
    if not due:
        return None
    others = sum(map(selectable, known))
    place = random.randrange(len(due) + others)  # noqa: S311  not a secret
    return due[place] if place < len(due) else None
