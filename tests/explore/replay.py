"""Makes a trace on a real server too: the same answers, and the same contents after each call.

The real server runs the same scripts; only what they ask for the time and for the server's
name is put in their place, since neither can be moved there.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import redis

from tests.explore.search import retrace
from tests.explore.store import EXPIRES, Contents, Ran, Refused, Scores, Stream, mutated
from tests.explore.world import Step, World, run_id
from tests.mutants.catalogue.mutant import Edit

__all__ = ["Differs", "replay", "walk"]

CLOCK, RUN = b"(clock)", b"(run)"
ASKED = {
    "redis.call('TIME')": f"redis.call('LRANGE', '{CLOCK.decode()}', 0, 1)",
    "redis.pcall('INFO', 'server', 'replication')": f"redis.call('GET', '{RUN.decode()}')",
}


class Differs(AssertionError):
    """A real server does something else than the store in memory."""


def replay(steps: Iterable[Step], raw: Any, edits: tuple[Edit, ...] = ()) -> int:
    """Make all calls of a trace on an empty server; how many those were.

    Args:
        steps: The trace, from the beginning of its world on.
        raw: A plain client of the server; it is flushed.
        edits: How the scripts were broken.

    Raises:
        Differs: An answer, or what is held, is not the same.
    """
    raw.flushall()
    made = 0
    for step in steps:
        if not made:
            _run(raw, step.world, 0, step.world.begin_us, step.world.join, edits)
        if step.ran is None or step.action.call is None:
            continue
        state, made = step.before, made + 1
        reply = _run(raw, step.world, state.run, state.now, step.action.call, edits)
        if not _same(reply, step.ran.reply):
            msg = f"{step.action}: {reply} on the server, {step.ran.reply} in memory"
            raise Differs(msg)
        there = _contents(raw, step.ran)
        if there != _comparable(step.ran.contents):
            msg = f"{step.action}: {there} on the server, {step.ran.contents} in memory"
            raise Differs(msg)
    return made


def walk(world: World, steps: int, seed: int) -> list[Step]:
    """A trace at random: states that no search may reach first."""
    chance = random.Random(seed)
    choices = [chance.random() for _ in range(steps)]
    return retrace(world, choices)


def _run(
    raw: Any, world: World, run: int, now: int, call: Any, edits: tuple[Edit, ...]
) -> Any:
    text = mutated(call.script.name, edits)
    for old, new in ASKED.items():
        text = text.replace(old, new)
    pipe = raw.pipeline()
    pipe.delete(CLOCK)
    pipe.rpush(CLOCK, *divmod(now, 1_000_000))
    pipe.set(RUN, f"run_id:{run_id(run)}")
    pipe.execute()
    try:
        return raw.eval(text, len(call.keys), *call.keys, *call.args)
    except redis.ResponseError as error:
        return Refused(str(error))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Refused) and isinstance(other, Refused):
        return one.message.split()[0] == other.message.split()[0]
    return one == other


def _contents(raw: Any, ran: Ran) -> Contents:
    found: Contents = {}
    for key in raw.keys("*"):
        if key in {CLOCK, RUN}:
            continue
        match raw.type(key):
            case b"hash":
                found[key] = raw.hgetall(key)
            case b"zset":
                pairs = raw.zrange(key, 0, -1, withscores=True)
                found[key] = Scores({member: int(score) for member, score in pairs})
            case _:
                info = raw.xinfo_stream(key)
                last = int(info["last-generated-id"].split(b"-")[0])
                found[key] = Stream(last, info["length"])
                _compare_events(raw, key, ran)
    return found


def _compare_events(raw: Any, key: bytes, ran: Ran) -> None:
    if not ran.events:
        return
    added = [
        (int(entry.split(b"-")[0]), *pair)
        for entry, fields in raw.xrange(key, min=ran.events[0][0])
        for pair in fields.items()
    ]
    if added != list(ran.events):
        msg = f"events {added} on the server, {ran.events} in memory"
        raise Differs(msg)


def _comparable(contents: Contents) -> Contents:
    return {key: value for key, value in contents.items() if key != EXPIRES}
