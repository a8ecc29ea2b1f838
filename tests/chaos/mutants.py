"""Versions of the package that break a promise; the history of a run must convict each of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.mutants.catalogue.mutant import CALLS, LUA, TAIL, Edit

__all__ = ["CHAOS_MUTANTS", "ChaosMutant", "broken"]

ROOT = Path(__file__).resolve().parents[2]


class ChaosMutant(NamedTuple):
    """A broken version.

    Attributes:
        name: In words, with dashes.
        scenario: Where it shows.
        edits: The fault, in code.
    """

    name: str
    scenario: str
    edits: tuple[Edit, ...]


def _mutant(name: str, scenario: str, *edits: tuple[str, str, str]) -> ChaosMutant:
    return ChaosMutant(name, scenario, tuple(Edit(*edit) for edit in edits))


FENCE = (
    "if epoch ~= ARGV[5] or lease[1] ~= ARGV[3] or lease[2] ~= ARGV[4] then",
    "if false then",
)

CHAOS_MUTANTS = (
    _mutant("flip-without-fence", "zombie", (LUA + "lib/fence.lua", *FENCE)),
    _mutant(
        "lease-for-whoever-asks",
        "five-checkers",
        (LUA + "sweep.lua", "if valid and lease[1] ~= holder then", "if false then"),
        (LUA + "sweep.lua", "  token = token + 1\n", "  token = math.max(token, 1)\n"),
    ),
    _mutant(
        "new-term-old-token",
        "zombie",
        (LUA + "sweep.lua", "  token = token + 1\n", "  token = math.max(token, 1)\n"),
    ),
    _mutant(
        "time-is-the-clients",
        "wrong-clocks",
        (
            LUA + "lib/open.lua",
            "local now = tonumber(time[1]) * 1000000 + tonumber(time[2])",
            "local now = tonumber(string.match(ACTOR, '~(%d+)$'))",
        ),
        (
            CALLS,
            "[self._header, self.actor, *args]",
            "[self._header, f'{self.actor}~{__import__(\"time\").time_ns() // 1000}', *args]",
        ),
    ),
    _mutant(
        "flip-without-event",
        "worker-paused",
        (
            LUA + "flip.lua",
            (
                "      append(id, head,\n"
                "        identity .. '|' .. terms .. '|x|' .. life .. '|||||' .. (found[3] or ''))\n"
            ),
            "      rev = rev - 1\n",
        ),
    ),
    _mutant(
        "two-events-for-a-flip",
        "worker-paused",
        (
            LUA + "flip.lua",
            "      call('HSET', key, 'life', life)\n",
            (
                "      rev = rev + 1\n"
                "      append(format('%d', rev), head,\n"
                "        identity .. '|' .. terms .. '|x|' .. life .. '|||||' .. (found[3] or ''))\n"
                "      call('HSET', key, 'life', life)\n"
            ),
        ),
    ),
    _mutant(
        "watch-ignores-gaps",
        "trimmed",
        (TAIL, "elif place.revision != here.revision + 1:", "elif not place.epoch:"),
        (TAIL, "            self._miss_what_is_ahead(strand)\n", "            pass\n"),
    ),
    _mutant(
        "restart-goes-unnoticed",
        "lossy-failover",
        (
            LUA + "lib/open.lua",
            "if not epoch or meta[3] ~= run or again then",
            "if not epoch then",
        ),
    ),
    _mutant(
        "flip-ignores-the-deadline",
        "loops-blocked",
        (
            LUA + "flip.lua",
            "if not deadline or deadline > now then",
            "if not deadline then",
        ),
        (LUA + "flip.lua", "elseif recovered and", "elseif false and"),
        (
            LUA + "sweep.lua",
            "local overdue = redis.call('ZCOUNT', DEADLINES, '-inf', horizon_text)",
            "local overdue = redis.call('ZCARD', DEADLINES)",
        ),
    ),
    _mutant(
        "tail-dies-of-an-error",
        "down-for-two-timeouts",
        (TAIL, "                strand.error = error\n", "                raise\n"),
    ),
    _mutant(
        "reads-believe-the-flag",
        "nobody-sweeps",
        (
            LUA + "read.lua",
            "if deadline > now then return '1' end",
            "if true then return '1' end",
        ),
    ),
    _mutant(
        "new-epoch-goes-untold",
        "aof-always",
        (TAIL, "if place.epoch != here.epoch:", "if not place.epoch:"),
        (
            TAIL,
            "elif here.epoch != found.epoch or here.revision > found.revision:",
            "elif here.revision > found.revision:",
        ),
    ),
    _mutant(
        "unknown-heartbeats-stay-unknown",
        "flushall",
        (
            "redis_registry/store/writers.py",
            "                        outcomes[place] = Beat.REREGISTER\n                        unknown.append(place)\n",
            "                        pass\n",
        ),
    ),
)


def broken(name: str, home: Path) -> Path:
    """Make the broken version; the directory from which its processes run.

    Raises:
        ValueError: An edit doesn't fit the code: the catalogue must follow.
    """
    mutant = next(one for one in CHAOS_MUTANTS if one.name == name)
    copy = home / "broken"
    for part in ("redis_registry", "tests"):
        shutil.copytree(
            ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    for edit in mutant.edits:
        path = copy / edit.path
        text = path.read_text()
        if edit.old not in text:
            raise ValueError(f"{mutant.name}: {edit.path} has no {edit.old!r}")
        path.write_text(text.replace(edit.old, edit.new))
    return copy
