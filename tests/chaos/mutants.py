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
        by: The check that is made for it, and must convict it.
        edits: The fault, in code.
    """

    name: str
    scenario: str
    by: str
    edits: tuple[Edit, ...]


def _mutant(
    name: str, scenario: str, by: str, *edits: tuple[str, str, str]
) -> ChaosMutant:
    return ChaosMutant(name, scenario, by, tuple(Edit(*edit) for edit in edits))


FOLLOWER = "redis_registry/roles/following/follower.py"
FENCE = (
    "if epoch ~= ARGV[5] or lease[1] ~= ARGV[3] or lease[2] ~= ARGV[4] then",
    "if false then",
)

CHAOS_MUTANTS = (
    _mutant(
        "flip-without-fence",
        "zombie",
        "older_terms_are_refused",
        (LUA + "lib/fence.lua", *FENCE),
    ),
    _mutant(
        "lease-for-whoever-asks",
        "five-checkers",
        "tokens_grow",
        (LUA + "sweep.lua", "if valid and lease[1] ~= holder then", "if false then"),
        (LUA + "sweep.lua", "  token = token + 1\n", "  token = math.max(token, 1)\n"),
    ),
    _mutant(
        "new-term-old-token",
        "zombie",
        "tokens_grow",
        (LUA + "sweep.lua", "  token = token + 1\n", "  token = math.max(token, 1)\n"),
    ),
    _mutant(
        "time-is-the-clients",
        "wrong-clocks",
        "nobody_who_has_beaten_is_flipped",
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
        "each_event_is_a_change",
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
        "each_event_is_a_change",
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
        "watches_miss_nothing",
        (TAIL, "elif place.revision != here.revision + 1:", "elif not place.epoch:"),
        (TAIL, "            self._miss_what_is_ahead(strand)\n", "            pass\n"),
    ),
    _mutant(
        "restart-goes-unnoticed",
        "lossy-failover",
        "revisions_name_one_event",
        (
            LUA + "lib/open.lua",
            "if not epoch or meta[3] ~= run or again then",
            "if not epoch then",
        ),
    ),
    _mutant(
        "flip-ignores-the-deadline",
        "loops-blocked",
        "nobody_who_has_beaten_is_flipped",
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
        "all_agree_in_the_end",
        (TAIL, "                strand.error = error\n", "                raise\n"),
    ),
    _mutant(
        "reads-believe-the-flag",
        "nobody-sweeps",
        "reads_do_not_serve_the_dead",
        (
            LUA + "read.lua",
            "if ahead(deadline, window) then return '1' end",
            "if true then return '1' end",
        ),
    ),
    _mutant(
        "new-epoch-goes-untold",
        "aof-always",
        "watches_miss_nothing",
        (TAIL, "if place.epoch != here.epoch:", "if not place.epoch:"),
        (
            TAIL,
            "elif here.epoch != found.epoch or here.revision > found.revision:",
            "elif here.revision > found.revision:",
        ),
    ),
    # That of a worker without incarnation would keep the company from ever getting ready.
    _mutant(
        "unknown-heartbeats-stay-unknown",
        "flushall",
        "all_agree_in_the_end",
        (
            "redis_registry/store/writers.py",
            "                        unknown.append(place)\n",
            "                        if not instances[place].incarnation: unknown.append(place)\n",
        ),
        (
            "redis_registry/roles/sending/heartbeater.py",
            "            if beat is Beat.REREGISTER:\n",
            "            if False:\n",
        ),
    ),
    _mutant(
        "view-turns-empty",
        "flushed-between-beats",
        "views_keep_somebody",
        (
            FOLLOWER,
            "age_secs=time.monotonic() - since",
            "age_secs=math.inf",
        ),
    ),
    _mutant(
        "processes-leave-on-an-error",
        "down-for-two-timeouts",
        "nothing_dies_quietly",
        (
            TAIL,
            "                strand.error = error\n",
            "                __import__('os').kill(__import__('os').getpid(), 15)\n",
        ),
    ),
    _mutant(
        "revisions-jump-with-the-epoch",
        "aof-always",
        "epochs_go_on",
        (
            LUA + "lib/open.lua",
            "  local born = not epoch\n",
            "  local born = not epoch\n  if not born then rev = rev + 1000 end\n",
        ),
    ),
    _mutant(
        "acknowledged-and-not-written",
        "worker-paused",
        "what_was_acknowledged_is_written",
        (
            LUA + "register.lua",
            "return { tonumber(record.rev),",
            "return { tonumber(record.rev) + 1000,",
        ),
    ),
    _mutant(
        "no-reservations-after-an-outage",
        "down-for-two-timeouts",
        "all_agree_in_the_end",
        (
            LUA + "reserve.lua",
            "if readiness ~= 'r' then return false end",
            "if readiness ~= 'r' or recovery_at > 0 then return false end",
        ),
    ),
    _mutant(
        "reads-leave-one-out",
        "worker-paused",
        "reads_leave_nobody_out",
        (
            "redis_registry/registry/readers.py",
            "        return await self._executor.run(\n            self._operations.read(name, healthy_only=healthy_only)\n        )\n",
            "        return (await self._executor.run(\n            self._operations.read(name, healthy_only=healthy_only)\n        ))[1:]\n",
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
