"""When two states are one: what differs between them changes no answer and no invariant.

- *Times* are what they are before or after now; of an interval longer than any that the
  scripts compare, only that it is long.
- *Revisions* go: scripts only add one, and the invariants look at them in each transition.
- *Tokens and epochs* are only compared with the newest: a checker's is that one, or is not.
- *What has ended* (a lease, a recovery, a grant) is as good as never begun.
- *Names*: addresses with the same lives, and checkers, may be exchanged.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from tests.explore.history import Known
from tests.explore.store import EXPIRES, Scores
from tests.explore.world import Seen, State, World, run_id

__all__ = ["Merging"]

_META = {
    b"run",
    b"epoch",
    b"rev",
    b"pulse",
    b"swept",
    b"recovery_from",
    b"recovery_first",
    b"recovery_at",
    b"recovery_cause",
    b"former_from",
    b"former_at",
}
_RECOVERY = (b"recovery_from", b"recovery_first", b"recovery_at")
_FORMER = (b"former_from", b"former_at")
_Times = dict[int, int]
_NOTHING: dict[bytes, Any] = {}


def _bytes(value: Any) -> bytes:
    return marshal.dumps(value, 2)  # later versions mark shared objects


def compressed(times: Iterable[int], now: int, most: int) -> _Times:
    """What stands for each time: its distance from now, long intervals shortened to ``most``."""
    ordered = sorted({*times, now})
    place, found = 0, {ordered[0]: 0}
    for one, next_ in pairwise(ordered):
        place += min(next_ - one, most)
        found[next_] = place
    origin = found[now]
    return {time: place - origin for time, place in found.items()}


class Merging:
    """Makes the same key of all states of a world that are one.

    Args:
        world: Which.
    """

    def __init__(self, world: World) -> None:
        keys = world.operations.keys(0)
        named = (
            "meta",
            "lease",
            "deadlines",
            "down",
            "living",
            "models",
            "guard",
            "tally",
        )
        self._world = world
        self._keys = [keys.named(name).encode() for name in named]
        self._index = keys.index("m").encode()
        self._instances = [keys.instance(i).encode() for i in world.identities]
        self._events = keys.named("events").encode()
        self._ours = {*self._keys, self._index, *self._instances, self._events, EXPIRES}
        times = world.times
        places = range(len(world.lives))
        self._longest = max(times.timeout, *map(world.timeout_of, places))
        within = times.timeout + self._longest + times.gap
        self._most = max(within, times.forget) + times.lease
        self._prefixes = [f"{identity}:".encode() for identity in world.identities]

    def key(self, state: State) -> bytes:
        """A digest; equal for states that are one."""
        contents, now = state.contents, state.now
        parts_of: list[Any] = [contents.get(key) or _NOTHING for key in self._keys]
        meta, lease, deadlines, down, living, models, guard, tally = parts_of
        times = self._times(state, meta, lease, deadlines)
        parts = [
            self._address(place, state, times, deadlines, down)
            for place in range(len(self._instances))
        ]
        common: Any = (
            self._common(state, meta, lease, times),
            sorted(living.items()),
            sorted(models),
            [(k, v) for k, v in sorted(contents.items()) if k not in self._ours],
            [_relative(entry, now) for entry in (*guard.items(), *tally.items())],
        )
        order = list(range(len(parts)))
        if self._world.symmetric:
            order.sort(key=parts.__getitem__)
        best = self._checkers(state, lease, order)
        if self._world.symmetric and any(
            parts[one] == parts[two] for one, two in pairwise(order)
        ):
            best = min(best, self._checkers(state, lease, order[::-1]))
        told = _bytes((common, [parts[place] for place in order], best))
        return hashlib.blake2b(told, digest_size=16).digest()

    def _times(
        self,
        state: State,
        meta: dict[bytes, bytes],
        lease: dict[bytes, bytes],
        deadlines: Scores,
    ) -> _Times:
        history = state.history
        found = {history.called, history.swept, *deadlines.values()}
        for field in (b"pulse", b"swept", *_RECOVERY, *_FORMER):
            found.add(int(meta.get(field, 0)))
        found.add(int(lease.get(b"until", 0)))
        if history.recovery:
            found.update(history.recovery)
        if history.term:
            found.add(history.term.until)
        for known in history.known:
            if known:
                found.update((known.deadline, known.granted, known.bound))
        return compressed(found, state.now, self._most)

    def _address(
        self, place: int, state: State, times: _Times, deadlines: Scores, down: Scores
    ) -> bytes:
        record: dict[bytes, bytes] = state.contents.get(self._instances[place]) or {}
        fields = [
            (name, value if name != b"life" else value[:1])
            for name, value in sorted(record.items())
        ]
        prefix = self._prefixes[place]
        due = [
            (member[len(prefix) :], times[score])
            for member, score in sorted(deadlines.items())
            if member.startswith(prefix)
        ]
        since = down.get(prefix[:-1])
        index: Scores = state.contents.get(self._index) or Scores()
        address = prefix[:-1].split(b":", 1)[1]
        return _bytes(
            (
                fields,
                due,
                None if since is None else self._while_down(since, state.now),
                address in index,
                self._known(state.history.known[place], state, times),
            )
        )

    def _while_down(self, since: int, now: int) -> int:
        return max(since - now, -self._world.times.forget)

    def _known(self, known: Known | None, state: State, times: _Times) -> Any:
        if known is None:
            return None
        if known.health != "1":
            return known.life, known.health, self._while_down(known.down, state.now)
        granted = times[known.granted] if known.granted > state.history.called else None
        bound = times[known.bound] if known.bound > state.now else None
        return known.life, times[known.deadline], granted, bound

    def _common(
        self,
        state: State,
        meta: dict[bytes, bytes],
        lease: dict[bytes, bytes],
        times: _Times,
    ) -> Any:
        history, now = state.history, state.now
        pulse = int(meta.get(b"pulse", 0))
        ends = int(meta.get(b"recovery_at", 0)) + self._longest
        recovery = [times[int(meta.get(field, 0))] for field in _RECOVERY]
        former = [times[int(meta.get(field, 0))] for field in _FORMER]
        former_ends = int(meta.get(b"former_at", 0)) + self._longest
        swept = int(meta.get(b"swept", 0))
        until = int(lease.get(b"until", 0))
        term, held = history.term, None
        if term is not None and term.until > now and term.run == state.run:
            held = times[term.until]
        kept = history.recovery is not None and history.recovery.ends > now
        return (
            state.restarts,
            meta.get(b"run") == run_id(state.run).encode(),
            history.run == state.run,
            times[pulse],
            times[history.called],
            times[int(meta.get(b"swept", 0))] if b"swept" in meta else None,
            times[history.swept] if history.swept else None,
            recovery if ends > min(pulse, swept or pulse) else None,
            former if former_ends > now else None,
            [times[time] for time in history.recovery or ()] if kept else None,
            times[until] if until > now else None,
            lease.get(b"epoch") == meta.get(b"epoch"),
            held,
            sorted((k, v) for k, v in meta.items() if k not in _META),
        )

    def _checkers(
        self, state: State, lease: dict[bytes, bytes], order: list[int]
    ) -> list[bytes]:
        return sorted(
            self._checker(place, seen, state, lease, order)
            for place, seen in enumerate(state.seen)
        )

    def _checker(
        self,
        place: int,
        seen: Seen | None,
        state: State,
        lease: dict[bytes, bytes],
        order: list[int],
    ) -> bytes:
        holder, term = f"c{place}", state.history.term
        leads = (
            lease.get(b"holder") == holder.encode(),
            term is not None and term.holder == holder,
        )
        if seen is None:
            return _bytes(leads)
        named = {self._world.identities[at]: i for i, at in enumerate(order)}

        def of(member: str) -> tuple[int, str]:
            identity = ":".join(member.split(":")[:3])
            return named[identity], member[len(identity) :]

        return _bytes(
            (
                leads,
                str(seen.token).encode() == lease.get(b"token"),
                term is not None and term.token == seen.token and term.run == state.run,
                seen.epoch.encode() == lease.get(b"epoch"),
                [of(member) for member in seen.members],
                seen.guarded,
                [of(identity) for identity in seen.forget],
                seen.rebase,
            )
        )


def _relative(entry: tuple[bytes, bytes], now: int) -> tuple[bytes, list[Any]]:
    """An entry of the guard or its tally; what looks like a time is told by its distance."""
    scope, text = entry
    parts = text.split(b"|")
    return scope, [
        int(part) - now if part.isdigit() and len(part) == len(str(now)) else part
        for part in parts
    ]
