"""What those who reserve do: pick and count, give back, renew, look."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis_registry.model import Identity, ModelInstance
from redis_registry.selection import able, selectable, why_not
from redis_registry.store.calls import Call, Operation, ask, chunks, text
from redis_registry.store.readers import Readers
from redis_registry.wire.keys import identity_text, partition_of

__all__ = ["MOST_CANDIDATES", "Fleet", "Holding", "Refusal", "Reserving", "capacity_of"]

MOST_CANDIDATES = 64
"""At most this many instances are weighed against each other in one call."""

GIVE_BACK_CHUNK = 200
FLIGHTS_CHUNK = 1000


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
        model_name: The name that was asked for.
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
        self.model_name = model_name
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
            model_name: The name that was asked for.
            instances: All that it finds, or some of them.
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

    @classmethod
    def of_all(cls, refusals: Sequence[Refusal]) -> Refusal:
        """Those of several partitions as one."""
        waits = [one.retry_after_secs for one in refusals]
        return cls(
            min((secs for secs in waits if secs is not None), default=None),
            sum(one.in_flight for one in refusals),
            sum(one.capacity for one in refusals),
            sum(one.full for one in refusals),
            sum(one.dead for one in refusals),
        )


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


class Reserving(Readers):
    """Operations of those who reserve instances."""

    def by_home(
        self, fleet: Fleet, places: Sequence[int]
    ) -> Operation[dict[int, Sequence[int]]]:
        """The candidates at ``places`` by partition, which is that of their own model."""
        partitions = yield from self._join()
        if partitions == 1:
            return {0: places}
        homes: dict[int, list[int]] = defaultdict(list)
        for place in places:
            instance = fleet.instances[fleet.identities[place]]
            homes[partition_of(instance.model_name, partitions)].append(place)
        return dict(homes)

    def reserve(
        self, home: int, fleet: Fleet, places: Sequence[int], holder: str, number: int
    ) -> Operation[str | Refusal]:
        """Pick one of the candidates at ``places``, all of one partition, and count it.

        ``number`` is the reservation's: the same one again has the same answer.

        Returns:
            Its identity, or why it is none of them.
        """
        keys, identities, limits = self.keys(home), fleet.identities, fleet.limits
        return (
            yield from ask(
                self._call(
                    "reserve",
                    home,
                    [
                        holder,
                        str(number),
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

    def in_flight(self, name: str) -> Operation[dict[Identity, int]]:
        """Reservations held of each registered instance of a name."""
        found = yield from self.read(name, healthy_only=False)
        return (yield from self.flights([instance.identity for instance in found]))

    def flights(self, identities: Iterable[Identity]) -> Operation[dict[Identity, int]]:
        """Reservations held of each of these instances."""
        partitions = yield from self._join()
        homes: dict[int, list[Identity]] = defaultdict(list)
        for identity in identities:
            homes[partition_of(identity.model_name, partitions)].append(identity)
        pieces = [
            (home, chunk)
            for home, group in homes.items()
            for chunk in chunks(group, FLIGHTS_CHUNK)
        ]
        counts: Sequence[list[int]] = yield [
            self._call("flights", home, list(map(identity_text, chunk)), list)
            for home, chunk in pieces
        ]
        return {
            identity: count
            for (_, chunk), found in zip(pieces, counts, strict=True)
            for identity, count in zip(chunk, found, strict=True)
        }
