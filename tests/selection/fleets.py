"""Instances to choose among."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from redis_registry import Candidates, Chooser, ModelInstance
from redis_registry.model import Health, HeldOut, Load

SOON = datetime(2030, 1, 1, tzinfo=UTC)
FAILURES = HeldOut(cause="failures", until=SOON)
FLAPPING = HeldOut(cause="flapping", until=SOON)


def instance(number: int = 0, **fields: Any) -> ModelInstance:
    """One that may take work, unless the fields say otherwise."""
    given: dict[str, Any] = {
        "model_name": "glm@llm",
        "host": f"10.0.{number // 250}.{number % 250}",
        "port": 8000,
        "healthy": True,
        "state": Health.HEALTHY,
    }
    return ModelInstance(**(given | fields))


def fleet(size: int, weights: Sequence[float | None] = (1,)) -> list[ModelInstance]:
    """So many of one model, with these weights in turn."""
    return [instance(n, weight=weights[n % len(weights)]) for n in range(size)]


def loaded(number: int, in_flight: int, **fields: Any) -> ModelInstance:
    """One that has reported what it has in flight."""
    return instance(number, load=Load(in_flight=in_flight), **fields)


def since(secs: float) -> datetime:
    """So many seconds after the epoch."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=secs)


def picks(
    chooser: Chooser,
    instances: Iterable[ModelInstance] | Candidates,
    count: int,
    *,
    keys: bool = False,
    seed: int = 1,
) -> Counter[int]:
    """How often each was picked, by its place in the list."""
    random.seed(seed)
    candidates = (
        instances if isinstance(instances, Candidates) else Candidates(instances)
    )
    places = {one.identity: at for at, one in enumerate(candidates.instances)}
    found: Counter[int] = Counter()
    for number in range(count):
        chosen = chooser.choose(candidates, f"key-{number}" if keys else None)
        assert chosen is not None
        found[places[chosen.identity]] += 1
    return found
