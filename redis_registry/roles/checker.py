"""The checker: in every controller, one coroutine per partition; only the lease holder sweeps.

It wakes at the next deadline, renews its term well before it ends, and never dies of an error:
it says what went wrong, backs off with jitter, and goes on (promise S1).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from redis_registry.errors import LeaseLost, RegistryClosed, RegistryError
from redis_registry.roles.checker_status import CheckerStatus
from redis_registry.roles.flipping import Flipping
from redis_registry.roles.mending import Mending
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import FORGET_PAGE, SWEEP_PAGE, Operations, Term
from redis_registry.store.replies import Sweep
from redis_registry.telemetry import DEAF, Telemetry

__all__ = ["Checker"]

MOST_OVERDUE = 100_000
"""Of more than this many overdue instances the rest is left to the next sweep."""

TOO_MANY = 2
"""A checker that holds so many leases more than one that waits passes one on."""

RECLAIM_CALLS = 20
"""At most so many calls of a sweep take reservations back; what is left waits for the next."""

LEAST_WAIT_SECS = 0.002
MOST_BACKOFF_SECS = 2.0
RELEASE_SECS = 1.0

_log = logging.getLogger(__name__)


class Checker:
    """Sweeps a namespace on one event loop.

    Args:
        operations: What to run.
        executor: Where to run it.
        holder: A name no other checker has.
        telemetry: Who is told of sweeps, flips and errors.
    """

    def __init__(
        self,
        operations: Operations,
        executor: AsyncExecutor,
        *,
        holder: str,
        telemetry: Telemetry = DEAF,
    ) -> None:
        self.holder = holder
        self.status = CheckerStatus()
        self._operations = operations
        self._settings = operations.settings
        self._executor = executor
        self._telemetry = telemetry
        self._terms: dict[int, Term] = {}
        self._guarded: set[int] = set()
        self._reclaim_at: dict[int, float] = {}
        self._mending: dict[int, Mending] = {}
        self._pass_on_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def runs_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether its coroutine lives on that loop."""
        return self._loop is loop and self._task is not None and not self._task.done()

    def alive(self) -> bool:
        """Whether its coroutine lives on a loop that still runs."""
        return (
            self._task is not None
            and not self._task.done()
            and self._loop is not None
            and not self._loop.is_closed()
        )

    def start(self) -> None:
        """Start on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._task = self._loop.create_task(self._run(), name=f"checker {self.holder}")
        self.status.running = True

    async def aclose(self) -> None:
        """Stop, and give the leases back."""
        if self._task is not None and self.runs_on(asyncio.get_running_loop()):
            # The event too: Python 3.11's wait_for, wherever a driver uses it, can lose a
            # cancellation.
            self._stop.set()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self) -> None:
        try:
            partitions = await self._partitions()
            async with asyncio.TaskGroup() as group:
                for partition in range(partitions):
                    group.create_task(
                        self._watch(partition),
                        name=f"checker {self.holder}/{partition}",
                    )
        finally:
            self.status.running = False
            await self._release()

    async def _pause(self, secs: float) -> None:
        """Sleep, unless it is time to stop; waking late shows how long the loop was blocked."""
        due = time.monotonic() + secs
        try:
            async with asyncio.timeout(secs):
                await self._stop.wait()
        except TimeoutError:
            self._telemetry.observe("loop_lag", time.monotonic() - due)

    async def _partitions(self) -> int:
        attempt = 0
        while not self._stop.is_set():
            try:
                told = await self._executor.run(self._operations.status())
            except RegistryClosed:
                self._stop.set()
            except Exception as error:  # noqa: BLE001  promise S1
                attempt += 1
                await self._failed(0, error, attempt)
            else:
                self._tell_eviction({one.evicts for one in told if one.evicts})
                break
        return 0 if self._stop.is_set() else self._operations.partitions or 1

    def _tell_eviction(self, policies: set[str]) -> None:
        for policy in sorted(policies):
            _log.warning(
                "Redis may throw living instances away when its memory is full: set "
                "maxmemory-policy to noeviction",
                extra={"redis": self._executor.where, "policy": policy},
            )
            self._telemetry.gauge("evicting_policy", 1, policy=policy)

    async def _watch(self, partition: int) -> None:
        attempt = 0
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                wait = await self._sweep(partition)
            except RegistryClosed:
                return
            except Exception as error:  # noqa: BLE001  promise S1
                self._terms.pop(partition, None)
                self.status.leads.discard(partition)
                attempt += 1
                await self._failed(partition, error, attempt)
                continue
            attempt = 0
            self.status.succeeded(partition)
            self._telemetry.observe("sweep", time.monotonic() - started)
            await self._pause(wait)

    async def _failed(self, partition: int, error: Exception, attempt: int) -> None:
        """Report, and wait: up to a tick at first, doubling to two seconds, full jitter."""
        self.status.failed(partition, attempt, error)
        if isinstance(error, LeaseLost):
            _log.warning(
                "lease lost, sweep abandoned",
                extra={
                    "partition": partition,
                    "holder": self.holder,
                    "why": str(error),
                },
            )
        else:
            known = isinstance(error, RegistryError)
            _log.error(
                "sweep failed, will try again",
                extra={"partition": partition, "attempt": attempt, "why": str(error)},
                exc_info=None if known else error,
            )
        self._telemetry.count("sweep_errors", kind=type(error).__name__)
        most = min(MOST_BACKOFF_SECS, self._settings.tick * 2 ** min(attempt - 1, 10))
        await self._pause(random.uniform(0, most))  # noqa: S311  not a secret

    async def _ask(self, partition: int, *offsets: int) -> Sequence[Sweep]:
        return await self._executor.run(
            self._operations.sweep(
                partition, self.holder, offsets, leads=len(self._terms)
            ),
            deadline_secs=self._settings.lease_ttl,
        )

    async def _sweep(self, partition: int) -> float:
        """One pass; how long to wait before the next, in seconds."""
        (sweep,) = await self._ask(partition, 0)
        tick = self._settings.tick
        if not sweep.token:
            if self._terms.pop(partition, None) is not None:
                self.status.leads.discard(partition)
                _log.warning(
                    "lease lost",
                    extra={"partition": partition, "to": sweep.holder},
                )
            # A little after its end, and not all at once.
            left = sweep.lease_left_us / 1_000_000
            return min(tick, left) * random.uniform(0.8, 1.2)  # noqa: S311
        term = self._led(partition, sweep)
        if self._may_pass_on(sweep):
            return await self._pass_on(term)
        await self._work(term, sweep)
        wait = tick if sweep.wait_us < 0 else min(tick, sweep.wait_us / 1_000_000)
        if len(sweep.forget) >= FORGET_PAGE:
            wait = 0.0  # there are more, and they come faster than our ticks
        return max(wait, LEAST_WAIT_SECS)

    def _led(self, partition: int, sweep: Sweep) -> Term:
        term = Term(partition, self.holder, sweep.token, sweep.epoch)
        if self._terms.get(partition) != term:
            _log.info(
                "lease taken", extra={"partition": partition, "token": sweep.token}
            )
        self._terms[partition] = term
        self.status.leads.add(partition)
        self.status.sweeps += 1
        self._telemetry.count("sweeps")
        return term

    async def _work(self, term: Term, sweep: Sweep) -> None:
        """Do all that the sweep has found."""
        if sweep.rebase:
            await self._rebase(term)
        if sweep.members or sweep.guarded:
            await self._flip(term, sweep)
        if sweep.forget:
            await self._forget(term, sweep.forget)
        if sweep.ended:
            await self._executor.run(self._operations.expire(term))
        await self._reclaim(term.partition)
        await self._mend(term)

    def _may_pass_on(self, sweep: Sweep) -> bool:
        """Whether one who waits has two leases less, and nobody's deadline is near.

        One at a time, so that none is passed back.
        """
        if sweep.waiting < 0 or len(self._terms) - sweep.waiting < TOO_MANY:
            return False
        calm = sweep.wait_us < 0 or sweep.wait_us > self._away_secs * 1_000_000
        return calm and time.monotonic() >= self._pass_on_at

    @property
    def _away_secs(self) -> float:
        """How long to keep away from a partition that was passed on: others look within a term."""
        return 1.3 * self._settings.lease_ttl

    async def _pass_on(self, term: Term) -> float:
        """Leave a partition to another controller; how long to keep away from it, in seconds."""
        pause = max(self._settings.tick, self._away_secs)
        self._pass_on_at = time.monotonic() + pause
        self._terms.pop(term.partition, None)
        self.status.leads.discard(term.partition)
        await self._executor.run(self._operations.release(term))
        _log.info("lease passed on", extra={"partition": term.partition})
        return self._away_secs

    async def _rebase(self, term: Term) -> None:
        rank = 0
        while rank >= 0:
            rank = await self._executor.run(self._operations.rebase(term, rank))

    async def _flip(self, term: Term, sweep: Sweep) -> None:
        """Flip what is overdue; all of it is looked at first, for the guard counts it."""
        members = list(sweep.members)
        most = min(sweep.overdue, MOST_OVERDUE)
        further = range(len(members), most, SWEEP_PAGE)
        for more in await self._ask(term.partition, *further):
            if more.token != term.token or more.epoch != term.epoch:
                msg = f"the lease of partition {term.partition} has passed to {more.holder}"
                raise LeaseLost(msg)
            members += more.members
        flipping = Flipping(
            term,
            members,
            sweep.guarded,
            operations=self._operations,
            ask=lambda operation: self._executor.run(
                operation, deadline_secs=self._settings.lease_ttl
            ),
        )
        try:
            await flipping.run()
        finally:
            self.status.flips += flipping.flipped
            self._telemetry.count("flips", flipping.flipped)
            self._tell_guard(term.partition, flipping)

    def _tell_guard(self, partition: int, flipping: Flipping) -> None:
        """One line when the guard begins to hold, one when it lets go."""
        fields = {"partition": partition, "overdue": flipping.overdue["*"]}
        if flipping.held and partition not in self._guarded:
            _log.warning(
                "guard holds flips back: too many instances would go at once",
                extra=fields | {"models": sorted(flipping.held)[:10]},
            )
            self._guarded.add(partition)
        elif not flipping.held and partition in self._guarded:
            _log.warning("guard lets go", extra=fields)
            self._guarded.discard(partition)

    async def _forget(self, term: Term, identities: Sequence[str]) -> None:
        forgotten = await self._executor.run(self._operations.forget(term, identities))
        _log.info("instances forgotten", extra={"count": forgotten})
        self._telemetry.count("forgotten", forgotten)

    async def _reclaim(self, partition: int) -> None:
        """Now and then: give back what dead processes had reserved and nobody else has seen."""
        now = time.monotonic()
        if now < self._reclaim_at.get(partition, 0.0):
            return
        reclaimed = 0
        for _ in range(RECLAIM_CALLS):
            some = await self._executor.run(self._operations.reclaim(partition))
            if not some:
                again = self._settings.reservation_ttl_secs / 3
                self._reclaim_at[partition] = now + again
                break
            reclaimed += some
        if reclaimed:
            _log.warning(
                "reservations of dead processes taken back", extra={"count": reclaimed}
            )
            self._telemetry.count("reclaimed", reclaimed)

    async def _mend(self, term: Term) -> None:
        """Once an interval: look for places without a record, and records without a place."""
        mending = self._mending.setdefault(
            term.partition,
            Mending(self._operations, self._settings.heartbeat_interval_secs),
        )
        mended = await mending.step(term, self._executor.run)
        if mended:
            self._telemetry.count("mended", mended)

    async def _release(self) -> None:
        """Hand the leases over, all at once, if Redis listens."""
        terms, self._terms = self._terms, {}
        self.status.leads.clear()
        await asyncio.gather(*(self._give_back(term) for term in terms.values()))

    async def _give_back(self, term: Term) -> None:
        try:
            await self._executor.run(
                self._operations.release(term), deadline_secs=RELEASE_SECS
            )
        except RegistryError as error:
            _log.info(
                "lease not released, it will end by itself",
                extra={"partition": term.partition, "why": str(error)},
            )
