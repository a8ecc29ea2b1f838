"""Who was ejected, has served its time, and may come back through one probe."""

from __future__ import annotations

import random
from collections.abc import Iterable

from redis_registry.model import ModelInstance
from redis_registry.selection.eligibility import Reason, selectable, why_not

__all__ = ["awaits_probe", "draw_probe"]


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
