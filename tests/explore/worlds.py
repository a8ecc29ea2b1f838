"""The worlds that are explored, each for something else: all of it at once would end nowhere."""

from __future__ import annotations

from redis_registry import GuardSettings
from tests.explore.world import World

__all__ = ["WORLDS"]

WORLDS = {
    world.name: world
    for world in (
        World(
            "lives",
            "two lives at one address, two checkers, a restart",
            lives=(("1", "2"),),
        ),
        World(
            "outages",
            "one worker, one checker, short gaps, two restarts",
            lives=(("1",),),
            checkers=1,
            restarts=2,
            lease=1,
            gap=2,
            calls=("register", "beat", "revive", "goodbye"),
        ),
        World(
            "silences",
            "one worker and a reader, a row of silences",
            lives=(("1",),),
            checkers=0,
            restarts=0,
            lease=0.5,
            gap=1,
            calls=("register", "beat", "goodbye"),
        ),
        World(
            "own",
            "a worker with a longer timeout of its own, outages, a restart",
            lives=(("1",),),
            checkers=1,
            gap=2,
            lease=1,
            own=(5,),
            calls=("register", "beat"),
        ),
        World(
            "terms",
            "two workers, two checkers that hand over, no restart",
            lives=(("1",), ("1",)),
            restarts=0,
            calls=("register", "beat", "revive", "goodbye"),
        ),
        World(
            "nameless",
            "a worker without incarnation (DB-GPT's) and one with, at one address",
            lives=(("", "1"),),
            checkers=1,
        ),
        World(
            "guard",
            "three workers that die together, and the brake on it",
            lives=(("1",), ("1",), ("1",)),
            checkers=1,
            restarts=0,
            guard=GuardSettings(min_instances=2, max_hold_secs=1),
            calls=("register", "beat"),
        ),
        World("all", "two addresses with two lives each, two checkers, a restart"),
    )
}
"""By name; the last one is the largest."""
