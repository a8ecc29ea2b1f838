"""Ways to break the scripts, each of which the exploration must notice, and in which world."""

from __future__ import annotations

from typing import NamedTuple

from tests.explore.world import World
from tests.explore.worlds import WORLDS
from tests.mutants.catalogue import MUTANTS
from tests.mutants.catalogue.mutant import LUA, Edit

__all__ = ["BROKEN", "Broken"]


class Broken(NamedTuple):
    """Scripts that do not keep a promise.

    Attributes:
        what: The fault, in words.
        world: Where it shows.
        edits: The fault, in code.
    """

    what: str
    world: World
    edits: tuple[Edit, ...]


def _of_catalogue(world: str, what: str) -> Broken:
    """One that a test of its own convicts too."""
    (edits,) = (mutant.edits for mutant in MUTANTS if mutant.what == what)
    assert all(edit.path.startswith(LUA) for edit in edits), what
    return Broken(what, WORLDS[world], edits)


def _of_own(world: str, what: str, path: str, old: str, new: str) -> Broken:
    return Broken(what, WORLDS[world], (Edit(LUA + path, old, new),))


BROKEN = (
    _of_catalogue("lives", "the flip doesn't look at the deadline again"),
    _of_catalogue("terms", "the flip takes whoever ranks lowest"),
    _of_catalogue("lives", "a read believes the flag"),
    _of_catalogue("outages", "a silence of the registry goes unnoticed"),
    _of_catalogue("outages", "another server process goes unnoticed"),
    _of_catalogue("outages", "nobody minds that nobody swept"),
    _of_catalogue("silences", "a chain of silences protects for ever"),
    _of_catalogue("outages", "the long dead get the grace of the living"),
    _of_catalogue("lives", "the unhealthy are forgotten at once"),
    _of_catalogue("lives", "a heartbeat creates half a record"),
    _of_catalogue("lives", "deregistering leaves the deadline"),
    _of_catalogue("lives", "an older incarnation's heartbeat is taken"),
    _of_catalogue("lives", "an older incarnation registers over a newer one"),
    _of_catalogue("lives", "a late heartbeat brings back a worker that said goodbye"),
    _of_catalogue(
        "lives", "a newer incarnation whose registration was lost is called superseded"
    ),
    _of_catalogue("terms", "Redis takes the writes of any term"),
    _of_catalogue("lives", "a flip writes no event"),
    _of_catalogue("lives", "registering again is an event though nothing changed"),
    _of_catalogue(
        "outages",
        "a restart that outlasts a recovery takes the grace of the protected away",
    ),
    _of_catalogue("own", "another outage takes away what the one before had given"),
    _of_catalogue("guard", "a flip that is repeated counts the dead twice"),
    _of_catalogue("guard", "the guard never trips"),
    _of_catalogue("guard", "the guard never lets go"),
    _of_own(
        "guard",
        "the guard keeps to no budget",
        "lib/guard.lua",
        "s.left > s.flips",
        "true",
    ),
    _of_own(
        "terms",
        "the lease goes to whoever asks",
        "sweep.lua",
        "if valid and lease[1] ~= holder then",
        "if false then",
    ),
    _of_own(
        "terms",
        "a new term has the token of the one before",
        "sweep.lua",
        "token = token + 1",
        "token = math.max(token, 1)",
    ),
    _of_own(
        "lives",
        "who comes back stays among the unhealthy",
        "revive.lua",
        "redis.call('ZREM', DOWN, identity)",
        "",
    ),
    _of_own(
        "lives",
        "who is flipped stays counted among the living",
        "flip.lua",
        "dead[model] = (dead[model] or 0) - 1\n      if guarded",
        "if guarded",
    ),
    Broken(
        "forgetting doesn't look whether it came back",
        WORLDS["lives"],
        (
            Edit(
                LUA + "forget.lua", "redis.call('ZSCORE', keys.down, identity)", "'0'"
            ),
            Edit(LUA + "forget.lua", "if record and record.health ~= '1'", "if record"),
        ),
    ),
    _of_own(
        "own",
        "a flip knows of no recovery",
        "flip.lua",
        "recovery_at > 0",
        "false",
    ),
    _of_own(
        "lives",
        "a heartbeat moves the deadline by half a timeout",
        "heartbeat.lua",
        "now + ARGV[at] * 1000",
        "now + ARGV[at] * 500",
    ),
)
