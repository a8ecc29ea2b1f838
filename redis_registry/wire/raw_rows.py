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
    "is_row",
    "merged_row",
    "row_at_rest",
    "said_later",
    "timeout_secs",
    "with_load",
    "with_word",
]

BEFORE_SPEC = 12
"""Separators before the spec, which may have more of them."""

FLAG, TAIL, STATE, HEALTH, SINCE, WHY, LOAD, OUT = 1, 2, 3, 4, 5, 9, 10, 11
"""Places in a row."""

GOODBYE = b"g"
"""The health of a life that has said so itself; it never comes back."""

_WORD = re.compile(
    rb"[^|]*\|[^|]*\|\d*:(?P<life>[^|]+)\|[^|]*\|(?P<health>[^|]*)\|"
    rb"(?:[^|]*\|){4}(?:(?P<said_us>\d+):(?P<order>\d+):)?"
)
_TIMEOUT = re.compile(rb"(\d+):")
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


def is_row(raw: bytes) -> bool:
    """Whether it has all parts; a record that somebody damaged makes a row without some."""
    return raw.count(b"|") >= BEFORE_SPEC


def timeout_secs(raw: bytes) -> float:
    """After how long a silence a row's instance counts as dead; 0: that can't be read."""
    found = _TIMEOUT.match(raw.split(b"|", TAIL + 1)[TAIL])
    return int(found[1]) / 1000 if found else 0.0


def said_later(heard: bytes, found: bytes) -> bool:
    """Whether the first of two rows of an instance holds its later word.

    That is: a newer life's; else a goodbye; else the one with the greater number, or the later
    one of the same number (evidence against a worker has the number of its word). Lives without an
    incarnation, and words without a number, can't be compared: then it does not.
    """
    old, new = _WORD.match(heard), _WORD.match(found)
    return old is not None and new is not None and _rank(old) > _rank(new)


def _rank(word: re.Match[bytes]) -> tuple[bytes, bool, int, int]:
    order = int(word["order"] or 0)
    said_us = int(word["said_us"]) if order else 0
    return word["life"], word["health"] == GOODBYE, order, said_us


def with_word(raw: bytes, heard: bytes) -> bytes:
    """A row with what another row of the instance holds of its own word: readiness, goodbye."""
    parts, said = raw.split(b"|", BEFORE_SPEC), heard.split(b"|", BEFORE_SPEC)
    parts[FLAG] = parts[FLAG][:2] + said[FLAG][2:]
    parts[WHY] = said[WHY]
    if said[HEALTH] == GOODBYE:
        parts[STATE] = parts[HEALTH] = GOODBYE
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
