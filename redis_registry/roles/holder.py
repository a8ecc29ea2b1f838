"""What one registry object has reserved: one holder, with one lease in Redis for all of it.

What must go on in the background (renewing the lease, giving back what could not be given back
at once) is done by one thread, on the sync face: it goes on while an event loop is blocked, and
no task is ever left behind.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from redis_registry.errors import RegistryError
from redis_registry.model import ModelInstance
from redis_registry.store.executor import TOGETHER
from redis_registry.store.operations import Operation, Operations
from redis_registry.store.sync_executor import SyncExecutor
from redis_registry.telemetry import DEAF, Telemetry

__all__ = ["Holder", "Reservation"]

_T = TypeVar("_T")

CLOSE_SECS = 1.0
LAST_SECS = 0.01
"""What is left for each partition when the time to close in is over."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Reservation:
    """A place on an instance, counted in Redis until the block ends.

    Attributes:
        id: Its name: the holder's, and a number.
        instance: Where the place is, as it was when the candidates were read.
        lost: The place was not kept without a break: this process was paused for longer than
            its lease, or Redis was emptied. It is counted again, but others may have been given
            the same place meanwhile.
    """

    id: str
    instance: ModelInstance
    lost: bool = False


@dataclass(slots=True)
class _Place:
    """A reservation as its holder knows it, from before the call that asks for it.

    Attributes:
        home: In which partition.
        reservation: What was granted; ``None``: not known yet.
        leaving: It is being given back.
        until: The thread gives it back, and tries until then; ``None``: that's not its work.
    """

    home: int
    reservation: Reservation | None = None
    leaving: bool = False
    until: float | None = None


class Holder:
    """Knows what is held, and keeps it.

    Args:
        operations: What to run.
        executor: Where its thread runs them.
        telemetry: Told of reservations lost.
    """

    def __init__(
        self,
        operations: Operations,
        executor: SyncExecutor,
        telemetry: Telemetry = DEAF,
    ) -> None:
        self._operations = operations
        self._telemetry = telemetry
        self._executor = executor
        self._ttl = operations.settings.reservation_ttl_secs
        self._last = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        """A holder that holds nothing yet, and has no thread."""
        self._process = os.getpid()
        self.name = f"{round(self._ttl * 1000)}-{secrets.token_hex(8)}"
        self._changed = threading.Condition()
        self._places: dict[int, _Place] = {}
        self._used: set[int] = set()  # partitions asked since the last renewal
        self._ended = 0  # how many releases have begun
        self._epochs: dict[int, str] = {}
        self._kept: dict[int, float] = {}  # when each lease was last known to be kept
        self._renew_at = 0.0
        self._waiting = False  # something was left to the thread
        self._stopped = False
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._process == os.getpid()

    def begin(self, home: int) -> int:
        """A number for a reservation that is about to be asked for in a partition."""
        if self._process != os.getpid():  # forked: what is held is the parent's
            self._begin_anew()
        with self._changed:
            self._last += 1
            now = time.monotonic()
            if not self._used:
                self._renew_at = now + self._ttl / 3
            if home not in self._used:
                self._kept[home] = now
            self._places[self._last] = _Place(home)
            self._used.add(home)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="redis-registry reservations", daemon=True
                )
                self._thread.start()
            return self._last

    def granted(self, number: int, instance: ModelInstance) -> Reservation:
        """It was granted."""
        made = Reservation(f"{self.name}:{number}", instance)
        with self._changed:
            if number in self._places:  # else the registry was closed meanwhile
                self._places[number].reservation = made
        return made

    def leaving(self, reservation: Reservation) -> tuple[int, int] | None:
        """Its partition and number, to give it back with; ``None``: it isn't held any more."""
        if self._process != os.getpid():  # forked in the block: it is the parent's
            return None
        name, _, text = reservation.id.rpartition(":")
        number = int(text)
        with self._changed:
            place = self._places.get(number)
            if place is None or name != self.name:  # closed meanwhile, or forked before
                return None
            place.leaving = True
            self._ended += 1
            return place.home, number

    def forget(self, number: int) -> None:
        """It was refused, or is given back."""
        with self._changed:
            self._places.pop(number, None)

    def leave_behind(self, number: int) -> None:
        """Let the thread give it back, for as long as its lease can last."""
        with self._changed:
            place = self._places.get(number)
            if place is not None:
                place.leaving, place.until = True, time.monotonic() + self._ttl
                self._ended += 1
                self._waiting = True
                self._changed.notify()

    def _by_home(self) -> dict[int, dict[int, _Place]]:
        homes: dict[int, dict[int, _Place]] = {}
        with self._changed:
            for number, place in self._places.items():
                homes.setdefault(place.home, {})[number] = place
        return homes

    # --- the thread ----------------------------------------------------------------------------

    def stop(self) -> None:
        """Give everything back, in one call a partition and within a second; wait for the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        homes, holder = self._by_home(), self.name
        self._begin_anew()
        until = time.monotonic() + CLOSE_SECS

        def give_back(home: int) -> None:
            places = list(homes[home])
            try:
                self._executor.run(
                    self._operations.unreserve(home, holder, places),
                    deadline_secs=max(until - time.monotonic(), LAST_SECS),
                )
            except RegistryError as error:
                _log.info(
                    "reservations not given back, their lease will end by itself",
                    extra={"count": len(places), "why": str(error)},
                )

        self._each(homes, give_back)

    def _run(self) -> None:
        failures = 0
        while self._wait(failures):
            try:
                self._round()
                failures = 0
            except Exception as error:  # noqa: BLE001  promise S1
                failures += 1
                _log.log(
                    logging.WARNING if failures == 1 else logging.DEBUG,
                    "reservations could not be renewed or given back, will try again",
                    extra={"why": str(error), "attempt": failures},
                    exc_info=None if isinstance(error, RegistryError) else error,
                )

    def _wait(self, failures: int) -> bool:
        """Until there is something to do; ``False``: to stop."""
        with self._changed:
            if failures:
                most = min(self._ttl / 3, 0.05 * 2 ** min(failures, 5))
                again = time.monotonic() + random.uniform(most / 2, most)  # noqa: S311
                while not self._stopped and (left := again - time.monotonic()) > 0:
                    self._changed.wait(left)
                return not self._stopped
            while not self._stopped and not self._waiting:
                left = self._ttl / 6
                if self._used:
                    left = min(left, self._renew_at - time.monotonic())
                if left <= 0:
                    break
                self._changed.wait(left)
            return not self._stopped

    def _round(self) -> None:
        """Give back what was left behind, and renew the lease when it is time."""
        if self._waiting:
            self._waiting = False
            try:
                self._give_back()
            except BaseException:
                self._waiting = True
                raise
        began = time.monotonic()
        if self._used and began >= self._renew_at:
            self._renew_used()
            self._renew_at = began + self._ttl / 3

    def _renew_used(self) -> None:
        """Renew the lease wherever something was asked for since the last time.

        Also where nothing is held any more: an attempt that was given up may have been counted
        after all, and each new reservation would keep it.
        """
        with self._changed:
            used = self._used
            self._used = {place.home for place in self._places.values()}
        try:
            self._each(used, self._renew)
        except BaseException:
            with self._changed:
                self._used |= used
            raise

    def _each(self, homes: Collection[int], what: Callable[[int], None]) -> None:
        """Do it for all of them: a server that is away must not cost the others' their lease."""
        if not self._executor.spread:
            for home in homes:
                what(home)
            return
        with ThreadPoolExecutor(TOGETHER) as pool:
            made = [pool.submit(what, home) for home in homes]
        for one in made:
            one.result()

    def _give_back(self) -> None:
        now, homes = time.monotonic(), self._by_home()

        def give_back(home: int) -> None:
            places = homes[home]
            left = [n for n, place in places.items() if place.until is not None]
            try:
                if left:
                    self._call(self._operations.unreserve(home, self.name, left))
            except BaseException:  # what is older than its lease has ended with it
                left = [n for n in left if (places[n].until or now) < now]
                raise
            finally:
                with self._changed:
                    for number in left:
                        self._places.pop(number, None)

        self._each(homes, give_back)

    def _call(self, operation: Operation[_T]) -> _T:
        return self._executor.run(operation, deadline_secs=min(self._ttl / 6, 2.0))

    def _held(self, home: int) -> dict[int, Reservation]:
        """What was granted in a partition, and is not being given back."""
        with self._changed:
            return {
                number: place.reservation
                for number, place in self._places.items()
                if place.reservation is not None
                and not place.leaving
                and place.home == home
            }

    def _renew(self, home: int) -> None:
        began = time.monotonic()
        held, most = len(self._held(home)), len(self._by_home().get(home, ()))
        ended, epoch = self._ended, self._epochs.get(home, "")
        found = self._call(self._operations.renew(home, self.name, most, epoch))
        self._epochs[home] = found.epoch
        paused = time.monotonic() > self._kept.get(home, began) + self._ttl
        missing = found.there < held and ended == self._ended
        # What happened before the first renewal nobody can tell, while much is given back.
        if not found.kept or not epoch or paused or missing:
            self._adopt(home)
        self._kept[home] = began
        with self._changed:
            strays = [number for number in found.ids if number not in self._places]
        if strays:  # counted after they were given back: their call had been given up
            self._call(self._operations.unreserve(home, self.name, strays))

    def _adopt(self, home: int) -> None:
        """Say what is held, for the lease had ended or Redis has lost something."""
        held = self._held(home)
        missing = self._call(
            self._operations.adopt(
                home,
                self.name,
                [(number, made.instance.identity) for number, made in held.items()],
            )
        )
        still = self._held(home)
        ended = [number for number in missing if number not in still]
        if ended:  # given back meanwhile: must not stay counted
            self._call(self._operations.unreserve(home, self.name, ended))
        lost = [made for number in missing if (made := still.get(number)) is not None]
        for made in lost:
            made.lost = True
        if lost:
            self._telemetry.count("reservations_lost", len(lost))
            _log.warning(
                "reservations were not kept: this process was paused for longer than their lease, "
                "or Redis was emptied; they are counted again",
                extra={"count": len(lost), "ttl_secs": self._ttl},
            )
