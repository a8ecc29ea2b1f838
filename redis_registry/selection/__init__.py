"""Who may receive new work, and which of them: pure functions, no I/O."""

from __future__ import annotations

import random
from collections.abc import Iterable

from redis_registry.model import ModelInstance

__all__ = ["pick", "selectable"]


def selectable(instance: ModelInstance) -> bool:
    """Whether an instance may receive new work: healthy and enabled."""
    return bool(instance.healthy) and bool(instance.enabled)


def pick(instances: Iterable[ModelInstance]) -> ModelInstance | None:
    """One selectable instance, uniformly at random; ``None`` if there is none."""
    able = [instance for instance in instances if selectable(instance)]
    return random.choice(able) if able else None  # noqa: S311  not a secret
