"""What the checker does: sweep, flip, forget, mend, hand over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from redis_registry.store.calls import Calls, Operation, ask, micros, text, texts
from redis_registry.store.replies import Sweep, read_sweep

__all__ = ["FORGET_PAGE", "SWEEP_PAGE", "Mended", "Sweeping", "Term"]

SWEEP_PAGE = 1000
"""Overdue instances listed per call."""

FORGET_PAGE = 100
"""Instances to be forgotten listed per call."""

MEND_PAGE = 100
"""Instances looked at per call: about half a millisecond of Redis's time."""


@dataclass(frozen=True, slots=True)
class Term:
    """One holding of one partition's lease.

    Attributes:
        partition: Which partition.
        holder: Who holds it.
        token: Its fencing number, unique within the epoch.
        epoch: The epoch that the token belongs to.
    """

    partition: int
    holder: str
    token: int
    epoch: str


class Mended(NamedTuple):
    """Answer of ``mend.lua``.

    Attributes:
        cursor: Where to go on in the set; ``"0"``: it is done.
        places: How many places were mended.
        models: Models whose indexes are to be walked too, escaped.
    """

    cursor: str
    places: int
    models: list[str]


class Sweeping(Calls):
    """Operations of the lease's holder."""

    def sweep(
        self,
        partition: int,
        holder: str,
        offsets: Sequence[int] = (0,),
        *,
        leads: int = 0,
    ) -> Operation[Sequence[Sweep]]:
        """Take or renew the lease and learn what is overdue: a page of 1,000 from each offset.

        ``leads`` is how many leases the holder has, so that another one may pass one on.
        """
        yield from self._join()
        forget = self.settings.forget_after_secs
        return (
            yield [
                self._call(
                    "sweep",
                    partition,
                    [
                        holder,
                        micros(self.settings.lease_ttl),
                        str(offset),
                        str(SWEEP_PAGE),
                        "-1" if forget is None else micros(forget),
                        str(leads),
                        str(FORGET_PAGE),
                    ],
                    read_sweep,
                )
                for offset in offsets
            ]
        )

    def _termed(self, term: Term) -> list[str | bytes]:
        return [term.holder, str(term.token), term.epoch]

    def flip(
        self, term: Term, members: Sequence[str], scopes: dict[str, int]
    ) -> Operation[str]:
        """Flip what is still overdue; one letter a member: flipped, held, living, orphan."""
        settings, keys = self.settings, self.keys(term.partition)
        guard = ""
        if settings.guard.enabled:
            guard = "|".join(
                (
                    str(settings.guard.share),
                    str(settings.guard.min_instances),
                    micros(settings.guard_window),
                    str(settings.guard.budget_share),
                    micros(settings.guard_max_hold),
                )
            )
        return (
            yield from ask(
                self._call(
                    "flip",
                    term.partition,
                    [
                        *self._termed(term),
                        guard,
                        json.dumps(list(scopes.items()), ensure_ascii=False),
                        *members,
                    ],
                    text,
                    more=[keys.instance(m.rsplit(":", 2)[0]) for m in members],
                )
            )
        )

    def forget(self, term: Term, identities: Sequence[str]) -> Operation[int]:
        """Forget instances that have been unhealthy for long enough; how many."""
        keys = self.keys(term.partition)
        more: list[str] = []
        for identity in identities:
            more += [keys.index(identity.split(":", 1)[0]), keys.instance(identity)]
        after = micros(self.settings.forget_after_secs or 0)
        return (
            yield from ask(
                self._call(
                    "forget",
                    term.partition,
                    [*self._termed(term), after, *identities],
                    int,
                    more=more,
                )
            )
        )

    def expire(self, term: Term) -> Operation[int]:
        """Remove overrides that have ended, at most 200; how many."""
        return (
            yield from ask(
                self._call("expire", term.partition, [*self._termed(term), "200"], int)
            )
        )

    def mend(self, term: Term, name: str, cursor: str) -> Operation[Mended]:
        """Walk on in a set, and mend what does not agree with the records."""
        args = [*self._termed(term), self.keys(term.partition).base, name, cursor]
        return (
            yield from ask(
                self._call(
                    "mend",
                    term.partition,
                    [*args, str(MEND_PAGE)],
                    lambda reply: Mended(text(reply[0]), reply[1], texts(reply[2])),
                )
            )
        )

    def rebase(self, term: Term, rank: int) -> Operation[int]:
        """Mend deadlines that a clock set back left too far away; where to go on, or -1."""
        return (
            yield from ask(
                self._call(
                    "rebase",
                    term.partition,
                    [*self._termed(term), str(rank), "500"],
                    int,
                )
            )
        )

    def release(self, term: Term) -> Operation[int]:
        """Give the lease back."""
        return (
            yield from ask(
                self._call("release", term.partition, self._termed(term), int)
            )
        )
