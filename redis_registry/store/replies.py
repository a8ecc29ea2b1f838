"""What the scripts answer, typed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import unquote

from redis_registry.model import EPOCH

__all__ = [
    "Hold",
    "Outcome",
    "Status",
    "Sweep",
    "Verdict",
    "read_outcomes",
    "read_status",
    "read_sweep",
]


class Sweep(NamedTuple):
    """Answer of ``sweep.lua``.

    Attributes:
        token: Fencing token of the term; 0: somebody else holds the lease.
        holder: Who holds it.
        lease_left_us: For how long.
        wait_us: Until the next deadline; -1: none.
        overdue: How many are overdue in all.
        rebase: Deadlines must be mended after the clock was put back.
        members: This page of the overdue.
        forget: Identities whose time has come.
        guarded: Scopes with an entry in the guard.
    """

    token: int
    epoch: str
    holder: str
    lease_left_us: int
    wait_us: int
    overdue: int
    living: int
    rebase: bool
    members: list[str]
    forget: list[str]
    guarded: list[str]


def read_sweep(reply: list[Any]) -> Sweep:
    """Type the reply of ``sweep.lua``."""
    return Sweep(
        int(reply[0]),
        reply[1].decode(),
        reply[2].decode(),
        int(reply[3]),
        int(reply[4]),
        int(reply[5]),
        int(reply[6]),
        bool(reply[7]),
        *(
            [item.decode(errors="surrogateescape") for item in reply[i]]
            for i in (8, 9, 10)
        ),
    )


class Verdict(StrEnum):
    """What a report of failed calls has led to."""

    COUNTED = "counted"
    """Counted, where there was anything to count."""

    EJECTED = "ejected"
    """It is kept out now, by this report or an earlier one."""

    SPARED = "spared"
    """Enough failures, but it is the last one, or too many of its model are out already."""

    RESTORED = "restored"
    """It is back in: the call was its probe."""

    LATE = "late"
    """Nothing was changed: a newer life has the address, or it is unhealthy already."""

    UNKNOWN = "unknown"
    """The registry has no such instance."""

    IGNORED = "ignored"
    """Not sent: ``outliers.enabled`` is off."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answer to a report.

    Attributes:
        verdict: What it has led to.
        until: When an ejected one may be probed, by Redis's clock.
    """

    verdict: Verdict
    until: datetime | None = None


_VERDICTS = {
    b"c": Verdict.COUNTED,
    b"o": Verdict.EJECTED,
    b"s": Verdict.SPARED,
    b"r": Verdict.RESTORED,
    b"l": Verdict.LATE,
    b"u": Verdict.UNKNOWN,
}


def read_outcomes(reply: list[bytes]) -> list[Outcome]:
    """Type the reply of ``outcome.lua``."""
    return [
        Outcome(_VERDICTS[letter], _when(int(until)) if int(until) else None)
        for letter, until in zip(reply[::2], reply[1::2], strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Hold:
    """The guard holds back flips.

    Attributes:
        scope: A model name, or ``*`` for the whole partition.
        since: When it began.
        flipped: How many the budget has let through in the running window.
    """

    scope: str
    since: datetime
    flipped: int


@dataclass(frozen=True, slots=True)
class Status:
    """What one partition knows of itself.

    Attributes:
        now: Redis's clock.
        living: Healthy and checked instances.
        overdue: Those whose deadline has passed and who aren't flipped yet.
        unhealthy: Flipped or deregistered, not yet forgotten.
        models: Models with at least one instance.
        events: Events kept in the stream.
        epoch: Changes when acknowledged writes may have been lost.
        revision: Number of the last change.
        recovering_until: The registry was away; nobody is flipped before this moment.
        recovery_cause: Why (``silence``, ``restarted``, ``unswept``, ``clock put back``).
        lease_holder: The checker that sweeps; ``None``: no valid term.
        lease_token: Fencing token of the newest term.
        swept_secs_ago: Age of the last sweep; ``None``: never swept.
        holds: Where the guard holds.
    """

    now: datetime
    living: int
    overdue: int
    unhealthy: int
    models: int
    events: int
    epoch: str
    revision: int
    recovering_until: datetime | None
    recovery_cause: str | None
    lease_holder: str | None
    lease_token: int
    swept_secs_ago: float | None
    holds: tuple[Hold, ...]


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [item.decode() for item in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _when(micros: float) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def read_status(reply: list[Any]) -> Status:
    """Type the reply of ``status.lua``; the recovery's end is judged by the header's window."""
    now, living, overdue, down, models, events, recovery_ends = map(int, reply[:7])
    meta, lease, guard = (_pairs(flat) for flat in reply[7:10])
    swept = meta.get("swept")
    held = {
        scope: entry.split("|")
        for scope, entry in guard.items()
        if entry.startswith("held|")
    }
    return Status(
        now=_when(now),
        living=living,
        overdue=overdue,
        unhealthy=down,
        models=models,
        events=events,
        epoch=meta["epoch"],
        revision=int(meta.get("rev", "0")),
        recovering_until=_when(recovery_ends) if recovery_ends > now else None,
        recovery_cause=meta.get("recovery_cause") if recovery_ends > now else None,
        lease_holder=lease.get("holder")
        if int(lease.get("until", "0")) > now
        else None,
        lease_token=int(lease.get("token", "0")),
        swept_secs_ago=(now - int(swept)) / 1_000_000 if swept else None,
        holds=tuple(
            Hold(unquote(scope), _when(int(entry[1])), int(entry[3]))
            for scope, entry in sorted(held.items())
        ),
    )
