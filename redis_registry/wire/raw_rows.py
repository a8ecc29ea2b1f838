"""Rows as they come: what can be read of them, and put together from them, without decoding.

A row is ``identity|flags|timeout ms:incarnation|state|health|since|deadline|revision|newer
deadline|why|load|out|spec``; see ``store/lua/lib/record.lua``.
"""

from __future__ import annotations

import re

__all__ = [
    "BEFORE_SPEC",
    "HEALTH",
    "OUT",
    "SINCE",
    "held_out_until",
    "merged_row",
    "row_at_rest",
    "said_later",
    "with_load",
    "with_readiness",
]

BEFORE_SPEC = 12
"""Separators before the spec, which may have more of them."""

FLAG, TAIL, STATE, HEALTH, SINCE, WHY, LOAD, OUT = 1, 2, 3, 4, 5, 9, 10, 11
"""Places in a row."""

_ORDER = re.compile(rb"\d+:(\d+):")
_UNTIL = re.compile(rb"[a-z]:(\d+)")


def row_at_rest(raw: bytes) -> bytes:
    """A row that was judged by the clock, as its record has it: healthy until it is flipped."""
    parts = raw.split(b"|", BEFORE_SPEC)
    half_open = parts[OUT].startswith(b"h")
    if parts[STATE] == parts[HEALTH] and not half_open:
        return raw
    parts[STATE] = parts[HEALTH]
    if half_open:
        parts[OUT] = b"e" + parts[OUT][1:]
    return b"|".join(parts)


def held_out_until(raw: bytes) -> int:
    """Until when a row's instance is held out, in µs; 0: it is not, or that can't be read."""
    found = _UNTIL.match(raw.split(b"|", BEFORE_SPEC)[OUT])
    return int(found[1]) if found else 0


def with_load(raw: bytes, load: bytes) -> bytes:
    """A row with another load; the same object when that is no news."""
    parts = raw.split(b"|", BEFORE_SPEC)
    if parts[LOAD] == load:
        return raw
    parts[LOAD] = load
    return b"|".join(parts)


def said_later(heard: bytes, found: bytes) -> bool:
    """Whether what one life says of its readiness is later in the first of two rows.

    A life without an incarnation, or that numbers nothing, can't be compared: then it is not.
    """
    old, new = heard.split(b"|", BEFORE_SPEC), found.split(b"|", BEFORE_SPEC)
    incarnation = old[TAIL].partition(b":")[2]
    same_life = incarnation and incarnation == new[TAIL].partition(b":")[2]
    return bool(same_life) and _order(old[WHY]) > _order(new[WHY])


def _order(why: bytes) -> int:
    found = _ORDER.match(why)
    return int(found[1]) if found else 0


def with_readiness(raw: bytes, heard: bytes) -> bytes:
    """A row with the readiness of another row of the same instance, and the reason for it."""
    parts, said = raw.split(b"|", BEFORE_SPEC), heard.split(b"|", BEFORE_SPEC)
    parts[FLAG] = parts[FLAG][:2] + said[FLAG][2:]
    parts[WHY] = said[WHY]
    return b"|".join(parts)


def merged_row(known: bytes, told: bytes, *, whole: bool) -> bytes:
    """An event's row with what events leave out, from the row known before it.

    Args:
        known: The row before.
        told: The event's: never with a load.
        whole: Everything else is in it; a flip leaves out why it was (not) ready.
    """
    old, new = known.split(b"|", BEFORE_SPEC), told.split(b"|", BEFORE_SPEC)
    if old[TAIL] == new[TAIL]:  # the same life
        new[LOAD] = old[LOAD]
        if not whole:
            new[WHY], new[OUT] = old[WHY], old[OUT]
    return b"|".join(new)
