"""Reserving instances: attempts and releases, as operations that both faces run."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from redis_registry.errors import ConfigurationError, NoneAvailable
from redis_registry.model import ModelInstance
from redis_registry.roles.holder import Holder, Reservation
from redis_registry.store.operations import Operation, Operations
from redis_registry.store.reserving import MOST_CANDIDATES, Fleet, Refusal
from redis_registry.store.sync_executor import SyncExecutor
from redis_registry.telemetry import DEAF, Telemetry

__all__ = [
    "POLICIES",
    "RELEASE_SECS",
    "GiveCandidates",
    "Reservation",
    "Reserver",
    "check_policy",
]

TWO = 2
POLICIES = ("least_in_flight", "power_of_two")
GiveCandidates = Callable[[], Sequence[ModelInstance]]

FRESH_SECS = 0.25
"""How long a model's candidates are used before they are read again."""

FEW = 64
"""Of fewer models than this nobody looks which aren't asked for any more."""

LEAST_PAUSE_SECS, MOST_PAUSE_SECS = 0.005, 1.0
RELEASE_SECS = 1.0
"""How long the end of a block waits for Redis, before the holder's thread takes over."""


def check_policy(policy: str) -> None:
    """Refuse a policy that there isn't.

    Raises:
        ConfigurationError: It is unknown.
    """
    if policy not in POLICIES:
        msg = f"unknown policy {policy!r}; there are {', '.join(POLICIES)}"
        raise ConfigurationError(msg)


class Reserver:
    """Reserves for one registry object.

    Args:
        operations: What to run.
        executor: Where the holder's thread runs them.
        telemetry: Told of reservations refused and lost.

    Attributes:
        holder: What is held.
    """

    def __init__(
        self,
        operations: Operations,
        executor: SyncExecutor,
        telemetry: Telemetry = DEAF,
    ) -> None:
        self.holder = Holder(operations, executor, telemetry)
        self._telemetry = telemetry
        self._operations = operations
        self._fleets: dict[str, tuple[float, Fleet]] = {}
        self._many = FEW  # fleets from which on to look for those that are old

    def attempt(
        self, model_name: str, policy: str, candidates: GiveCandidates | None
    ) -> Operation[Reservation]:
        """Reserve one instance now.

        Raises:
            NoneAvailable: There is none.
        """
        fleet = yield from self._fleet(model_name, candidates)
        answer = yield from self._reserve(fleet, policy)
        if isinstance(answer, Refusal) and (answer.dead or fleet.partial):
            self._fleets.pop(model_name, None)  # looked up too long ago, or not all
            fleet = yield from self._fleet(model_name, candidates)
            answer = yield from self._reserve(fleet, policy)
        if isinstance(answer, Refusal):
            raise none_available(fleet, answer, given=candidates is not None)
        return answer

    def release(self, reservation: Reservation) -> Operation[None]:
        """Give a reservation back; what fails is left to the holder's thread."""
        leaving = self.holder.leaving(reservation)
        if leaving is None:
            return
        home, number = leaving
        try:
            yield from self._operations.unreserve(home, self.holder.name, [number])
        except BaseException:
            self.holder.leave_behind(number)
            raise
        self.holder.forget(number)

    def pause_secs(self, none: NoneAvailable, left_secs: float) -> float:
        """How long to wait before the next attempt.

        Raises:
            NoneAvailable: ``none``, when there is no time left.
        """
        if left_secs <= 0:
            self._telemetry.count("reservations_refused")
            raise none
        hint = none.retry_after_secs
        if hint is None:
            hint = FRESH_SECS
        wanted = min(max(hint, LEAST_PAUSE_SECS), MOST_PAUSE_SECS)
        return min(left_secs, wanted * random.uniform(0.5, 1.0))  # noqa: S311

    def _fleet(
        self, model_name: str, candidates: GiveCandidates | None
    ) -> Operation[Fleet]:
        """The candidates, read again when they are old.

        Whoever finds them old reads them; the others use the old ones meanwhile.
        """
        if candidates is not None:
            return Fleet(model_name, candidates())
        now = time.monotonic()
        known = self._fleets.get(model_name)
        if known is not None:
            read_at, fleet = known
            if now - read_at < FRESH_SECS:
                return fleet
            self._fleets[model_name] = now, fleet
        found = yield from self._operations.sample(
            model_name, size=MOST_CANDIDATES, healthy_only=False
        )
        sample = len(found) >= MOST_CANDIDATES
        fleet = Fleet.of(model_name, found, sample=sample)
        if sample and not fleet.identities:
            found = yield from self._operations.read(model_name, healthy_only=False)
            fleet = Fleet.of(model_name, found, sample=False)
        self._keep(fleet, now)
        due = yield from self._operations.probe(found)
        return fleet if due is None else Fleet(model_name, [due], partial=True)

    def _keep(self, fleet: Fleet, now: float) -> None:
        """Remember candidates for those who ask soon; models come and go, we stay."""
        if not fleet.identities:
            self._fleets.pop(fleet.model_name, None)
            return
        self._fleets[fleet.model_name] = now, fleet
        if len(self._fleets) > self._many:
            for name, (read_at, _) in list(self._fleets.items()):
                if now - read_at >= FRESH_SECS:
                    self._fleets.pop(name, None)
            self._many = max(2 * len(self._fleets), FEW)

    def _reserve(self, fleet: Fleet, policy: str) -> Operation[Reservation | Refusal]:
        count = len(fleet.identities)
        if not count:
            return Refusal(None, 0, 0, 0, 0)
        places: Sequence[int] = range(count)
        if policy == "power_of_two" and count > TWO:
            two = random.sample(places, TWO)
            answer = yield from self._ask(fleet, two)
            if not isinstance(answer, Refusal):
                return answer
        return (yield from self._ask(fleet, places))

    def _ask(
        self, fleet: Fleet, places: Sequence[int]
    ) -> Operation[Reservation | Refusal]:
        """Ask for one of these, partition by partition, each as likely first as it has places."""
        homes = yield from self._operations.by_home(fleet, places)
        refusals: list[Refusal] = []
        while homes:
            sizes = [len(group) for group in homes.values()]
            (home,) = random.choices(list(homes), sizes)  # noqa: S311  not a secret
            answer = yield from self._ask_one(home, fleet, homes.pop(home))
            if not isinstance(answer, Refusal):
                return answer
            refusals.append(answer)
        return Refusal.of_all(refusals)

    def _ask_one(
        self, home: int, fleet: Fleet, places: Sequence[int]
    ) -> Operation[Reservation | Refusal]:
        holder = self.holder
        number = holder.begin(home)
        try:
            answer = yield from self._operations.reserve(
                home, fleet, places, holder.name, number
            )
        except BaseException:  # cancelled, or no answer: it may be counted all the same
            holder.leave_behind(number)
            raise
        if isinstance(answer, Refusal):
            holder.forget(number)
            return answer
        return holder.granted(number, fleet.instances[answer])


def none_available(fleet: Fleet, refusal: Refusal, *, given: bool) -> NoneAvailable:
    """The error that says why there is none, and what would help."""
    what = f"no instance of {fleet.model_name!r} can be reserved now"
    if refusal.full:
        why = f"full, {refusal.in_flight} in flight of capacity {refusal.capacity}"
        if fleet.reasons or refusal.dead:
            why += f"; of the others {_counted(fleet, refusal)}"
    elif fleet.reasons or refusal.dead:
        why = f"none may receive work: {_counted(fleet, refusal)}"
    elif given:
        why = "no candidates were given"
    else:
        why = "no instance of that name is registered"
    help_ = "more instances, or more capacity, would help"
    secs = refusal.retry_after_secs
    if secs is not None:
        help_ = f"a place can be expected in {secs:.3g} s: try again then, or give wait_secs"
    return NoneAvailable(f"{what}: {why}; {help_}", secs)


def _counted(fleet: Fleet, refusal: Refusal) -> str:
    reasons = [f"{count} {reason}" for reason, count in fleet.reasons.most_common()]
    if refusal.dead:
        reasons.append(f"{refusal.dead} no longer able to work")
    return ", ".join(reasons)
