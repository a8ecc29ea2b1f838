"""One of two processes that claim the same address; both start life after life.

``python -m tests.faults.rival URL SEED`` prints the name by which its events know it, then each
incarnation that it spoke for, with the answer it got.
"""

from __future__ import annotations

import random
import sys

from redis_registry import (
    ModelInstance,
    Readiness,
    Superseded,
    SyncModelRegistry,
    new_incarnation,
)
from redis_registry.wire.keys import identity_text
from tests.helpers import instance

ADDRESS = identity_text(instance().identity)
LIVES, CALLS = 60, 12


def say(registry: SyncModelRegistry, life: ModelInstance, rng: random.Random) -> str:
    """One call for a life, whichever."""
    try:
        match rng.randrange(5):
            case 0:
                registry.register_instance(life)
            case 1:
                registry.send_heartbeat(life)
            case 2:
                registry.set_readiness(life, Readiness.DRAINING)
            case 3:
                registry.set_readiness(life, Readiness.READY)
            case _:
                registry.deregister_instance(life)
    except Superseded:
        return "superseded"
    return "taken"


def main(url: str, seed: int) -> None:
    rng = random.Random(seed)
    former = instance(incarnation=new_incarnation())
    with SyncModelRegistry.from_url(url) as registry:
        words = [registry._operations.actor]
        for _ in range(LIVES):
            life = instance(incarnation=new_incarnation(), readiness=Readiness.STARTING)
            words += [life.incarnation or "", "taken"]
            try:
                registry.register_instance(life)
            except Superseded:
                words[-1] = "superseded"
            for _ in range(CALLS):
                speaker = life if rng.random() < 0.8 else former
                words += [speaker.incarnation or "", say(registry, speaker, rng)]
            former = life
    print(*words)  # noqa: T201  for the parent


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
