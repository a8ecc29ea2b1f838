"""What those who reserve do: pick and count, give back, renew, look."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis_registry.model import Identity, ModelInstance
from redis_registry.selection import able, selectable, why_not
from redis_registry.store.calls import Call, Calls, Operation, ask, chunks, text
from redis_registry.wire.keys import (
    address_of,
    escape,
    identity_of,
    identity_text,
    partition_of,
)

__all__ = ["MOST_CANDIDATES", "Fleet", "Holding", "Refusal", "Reserving", "capacity_of"]

MOST_CANDIDATES = 64
"""At most this many instances are weighed against each other in one call."""

GIVE_BACK_CHUNK = 200
FLIGHTS_PAGE = 1000


def capacity_of(instance: ModelInstance) -> int | None:
    """How many reservations an instance takes at once; ``None``: any number.

    Its last report decides (``load.capacity``), else ``metadata["capacity"]`` if that is an
    integer and not negative.
    """
    if instance.load is not None and instance.load.capacity is not None:
        return instance.load.capacity
    given = instance.metadata.get("capacity")
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return given
    return None


class Fleet:
    """The candidates of a model, ready to be sent.

    Args:
        model_name: Of which model.
        candidates: Instances that may receive work; of more than 64, a random 64 are taken.
        reasons: Why others may not, counted.
        partial: Others might be able to when all of these are refused.
    """

    def __init__(
        self,
        model_name: str,
        candidates: Iterable[ModelInstance],
        reasons: Counter[str] | None = None,
        *,
        partial: bool = False,
    ) -> None:
        self.reasons = reasons or Counter[str]()
        self.instances: dict[str, ModelInstance] = {}
        self.limits: list[str] = []
        found = list(candidates)
        self.partial = partial or len(found) > MOST_CANDIDATES
        if len(found) > MOST_CANDIDATES:
            found = random.sample(found, MOST_CANDIDATES)
        # Their own name, where they were asked for by an alias: it says where they are counted.
        self.model_name = found[0].model_name if found else model_name
        for instance in found:
            weight = 1.0 if instance.weight is None else instance.weight
            identity = identity_text(instance.identity)
            if weight > 0 and identity not in self.instances:
                most = capacity_of(instance)
                self.instances[identity] = instance
                forced = ":f" if instance.forced else ""
                self.limits.append(f"{weight!r}:{'' if most is None else most}{forced}")
        self.identities = list(self.instances)

    @classmethod
    def of(
        cls, model_name: str, instances: Sequence[ModelInstance], *, sample: bool
    ) -> Fleet:
        """Those of a model's instances that may receive work, and why the others may not.

        Args:
            model_name: Of which model.
            instances: All it has, or some of them.
            sample: They are only some, so that held out ones are not the model's last.
        """
        reasons = Counter(
            str(reason) for item in instances if (reason := why_not(item)) is not None
        )
        chosen = filter(selectable, instances) if sample else able(instances)
        return cls(model_name, chosen, reasons, partial=sample)


class Refusal(NamedTuple):
    """None of the candidates could be reserved.

    Attributes:
        retry_after_secs: When a place can be expected; ``None``: nothing is known to help.
        in_flight: Reservations of those that are full.
        capacity: Their places.
        full: How many are full.
        dead: How many turned out not to be able to work.
    """

    retry_after_secs: float | None
    in_flight: int
    capacity: int
    full: int
    dead: int


class Holding(NamedTuple):
    """What Redis says of a holder at its renewal.

    Attributes:
        kept: Its lease had not ended, and the epoch is the same: nothing can be missing.
        epoch: Redis's; another one than before: acknowledged writes may have been lost.
        there: How many reservations it holds.
        ids: Reservations that the holder may not know of.
    """

    kept: bool
    epoch: str
    there: int
    ids: list[int]


def _read_answer(reply: Sequence[Any]) -> str | Refusal:
    if reply[0]:
        return text(reply[1])
    wait, in_flight, capacity, full, dead = map(int, reply[1:])
    return Refusal(
        wait / 1_000_000 if wait >= 0 else None, in_flight, capacity, full, dead
    )


def _read_ids(reply: Sequence[bytes]) -> list[int]:
    return [int(item) for item in reply]


def _read_holding(reply: Sequence[Any]) -> Holding:
    return Holding(bool(reply[0]), text(reply[1]), int(reply[2]), _read_ids(reply[3]))


class Reserving(Calls):
    """Operations of those who reserve instances."""

    def reserve(
        self, fleet: Fleet, places: Sequence[int], holder: str, number: int
    ) -> Operation[str | Refusal]:
        """Pick one of the candidates at ``places`` and count it; its identity, or why none.

        ``number`` is the reservation's: the same one again has the same answer.
        """
        partitions = yield from self._join()
        home = partition_of(fleet.model_name, partitions)
        keys, identities, limits = self.keys(home), fleet.identities, fleet.limits
        return (
            yield from ask(
                self._call(
                    "reserve",
                    home,
                    [
                        holder,
                        str(number),
                        escape(fleet.model_name),
                        *[limits[place] for place in places],
                    ],
                    _read_answer,
                    more=[keys.instance(identities[place]) for place in places],
                    held=keys.held(holder),
                )
            )
        )

    def unreserve(
        self, home: int, holder: str, numbers: Sequence[int]
    ) -> Operation[int]:
        """Give reservations of one partition back; how many were still held."""
        replies = yield [
            self._held("unreserve", home, holder, [str(n) for n in chunk], int)
            for chunk in chunks(numbers, GIVE_BACK_CHUNK)
        ]
        return sum(replies)

    def renew(
        self, home: int, holder: str, most: int, epoch: str
    ) -> Operation[Holding]:
        """Renew the lease of a holder that can hold at most so many reservations."""
        args = [str(most), epoch]
        return (yield from ask(self._held("renew", home, holder, args, _read_holding)))

    def adopt(
        self, home: int, holder: str, held: Sequence[tuple[int, Identity]]
    ) -> Operation[list[int]]:
        """Count again what a holder holds; the numbers of those that were missing."""
        calls: list[Call[list[int]]] = []
        for chunk in chunks(held, GIVE_BACK_CHUNK):
            args: list[str] = []
            for number, identity in chunk:
                args += (str(number), identity_text(identity))
            calls.append(self._held("adopt", home, holder, args, _read_ids))
        return [number for missing in (yield calls) for number in missing]

    def _held(
        self, name: str, home: int, holder: str, args: Sequence[str], read: Any
    ) -> Call[Any]:
        held = self.keys(home).held(holder)
        return self._call(name, home, [holder, *args], read, held=held)

    def reclaim(self, home: int) -> Operation[int]:
        """Give back up to 200 reservations of a holder whose lease has ended; how many."""
        yield from self._join()
        return (yield from ask(self._call("reclaim", home, [], int)))

    def in_flight(
        self, model_name: str, only: Identity | None = None
    ) -> Operation[dict[Identity, int]]:
        """Reservations held of each registered instance of a model, or of one."""
        partitions = yield from self._join()
        home, model = partition_of(model_name, partitions), escape(model_name)
        named = [] if only is None else [address_of(only)]
        found: dict[Identity, int] = {}
        offset, more = 0, True
        while more:
            reply: list[Any] = yield from ask(
                self._call(
                    "flights",
                    home,
                    [model, str(offset), str(FLIGHTS_PAGE), *named],
                    list,
                    index=self.keys(home).index(model),
                )
            )
            for identity, count in zip(reply[::2], reply[1::2], strict=True):
                found[Identity(*identity_of(text(identity)))] = int(count)
            more = len(reply) == 2 * FLIGHTS_PAGE
            offset += FLIGHTS_PAGE
        return found
