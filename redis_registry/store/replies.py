"""What the scripts answer, typed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from redis_registry.model import EPOCH, ModelInstance
from redis_registry.telemetry import DEAF, Telemetry
from redis_registry.wire.aliases import Alias, decode_alias
from redis_registry.wire.codec import decode_rows
from redis_registry.wire.in_force import NOTHING, Overrides
from redis_registry.wire.overrides import decode_override

__all__ = [
    "NO_ORDERS",
    "Hold",
    "Orders",
    "Outcome",
    "Page",
    "Status",
    "Sweep",
    "Verdict",
    "read_orders",
    "read_outcomes",
    "read_page",
    "read_status",
    "read_sweep",
]

T = TypeVar("T")

_log = logging.getLogger(__name__)


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
        ended: An override has ended and is still on record.
        waiting: How many leases the checker holds that waits for this one; -1: nobody waits.
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
    ended: bool
    waiting: int


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
        ended=bool(reply[11]),
        waiting=int(reply[12]),
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


class Orders(NamedTuple):
    """What operators have decided in one partition.

    Attributes:
        stamp: Epoch and revision of the last change; empty: there never was one.
        overrides: The overrides on record.
        aliases: By alias.
    """

    stamp: bytes = b""
    overrides: Overrides = NOTHING
    aliases: dict[str, Alias] = {}  # noqa: RUF012  never changed


NO_ORDERS = Orders()
"""Nothing has ever been decided."""


class Page(NamedTuple):
    """Answer of ``read.lua``: a page of instances at one moment.

    Attributes:
        epoch: The epoch it was read in.
        revision: It holds every change up to this one.
        rows: The rows, as the workers and the deadlines say it.
        after: Where to go on; ``None``: it was the last.
        now_us: Redis's clock, in µs.
        orders: What operators have decided.
        target: The model that the asked name is an alias of, escaped, or empty.
        telemetry: Who is told of rows that can't be read.
    """

    epoch: str
    revision: int
    rows: Sequence[bytes]
    after: tuple[bytes, bytes] | None
    now_us: int = 0
    orders: Orders = NO_ORDERS
    target: str = ""
    telemetry: Telemetry = DEAF

    def instances(self, *, healthy_only: bool, of: str = "") -> list[ModelInstance]:
        """The instances, as the operators want them seen.

        Args:
            healthy_only: Leave out the unhealthy.
            of: Only those whom this name finds, whatever an earlier release has left of it.
        """
        found = decode_rows(self.rows)
        if len(found) < len(self.rows):
            self.telemetry.count("unreadable_records", len(self.rows) - len(found))
        if of:
            found = [i for i in found if i.model_name == of or of in i.serves]
        if self.orders.overrides:
            apply, now_us = self.orders.overrides.apply, self.now_us
            found = [apply(instance, now_us) for instance in found]
            if healthy_only:
                found = [instance for instance in found if instance.healthy]
        return found


def read_page(reply: list[Any], known: Orders, telemetry: Telemetry = DEAF) -> Page:
    """Type the reply of ``read.lua``, asked with the stamp of ``known``."""
    more, model, instance, revision, epoch, now, stamp, told, target = reply[:9]
    return Page(
        epoch=epoch.decode(),
        revision=int(revision),
        rows=reply[9:],
        after=(model, instance) if more else None,
        now_us=int(now),
        orders=known if stamp == known.stamp else read_orders(stamp, *told),
        target=target.decode(),
        telemetry=telemetry,
    )


def read_orders(stamp: bytes, overrides: list[bytes], aliases: list[bytes]) -> Orders:
    """Type the two hashes; a record that can't be read is left out and reported."""
    standing = Overrides(_readable(decode_override, overrides))
    named = {alias.alias: alias for alias in _readable(decode_alias, aliases)}
    return Orders(stamp, standing, named)


def _readable(decode: Callable[[bytes, bytes], T], flat: list[bytes]) -> Iterator[T]:
    for name, record in zip(flat[::2], flat[1::2], strict=True):
        try:
            yield decode(name, record)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            _log.warning(
                "an operator's record is unreadable and has no effect: clear it and set it again",
                extra={"record": name.decode(errors="backslashreplace")},
                exc_info=error,
            )


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
        evicts: Redis's ``maxmemory-policy`` where it may throw away records of the living; it
            should be ``noeviction``. ``None``: it throws none away.
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
    evicts: str | None = None


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
    policy = reply[10].decode()
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
        evicts=policy if policy.startswith("allkeys") else None,
    )
