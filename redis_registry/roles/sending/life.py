"""One announced life of an instance: what it wants said of it, and the evidence it carries. No I/O."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from redis_registry.errors import RegistryClosed, RegistryError, Superseded
from redis_registry.model import (
    Load,
    ModelInstance,
    Readiness,
    incarnation_after,
    new_incarnation,
)

__all__ = ["Life", "LifeOptions"]

LAG_TICKS = 4
"""How often in an interval the event loop shows that it runs."""

BEATS_IN_TIMEOUT = 2
"""At least so many heartbeats belong into a timeout."""


class HowToAnnounce(TypedDict, total=False):
    """The fields of :class:`LifeOptions`, as keywords."""

    interval_secs: float | None
    startup_budget_secs: float | None
    progress_timeout_secs: float | None
    drain_timeout_secs: float
    on_superseded: Callable[[ModelInstance], object] | None
    any_address: bool
    sender: Literal["thread", "process"]


@dataclass(frozen=True, slots=True)
class LifeOptions:
    """How an instance is announced.

    Attributes:
        interval_secs: From one heartbeat to the next; ``None``: a third of its timeout.
        startup_budget_secs: Not ready after this long: it is marked as failed, with an event;
            ``None``: never.
        progress_timeout_secs: No progress for this long with work in flight: it is marked as
            wedged, until it goes on; ``None``: never.
        drain_timeout_secs: How long leaving waits for work in flight.
        on_superseded: Called, in a thread of its own, when a newer life lives at the address.
        any_address: Don't refuse an address that others can't reach.
        sender: Who beats: a thread, or a child process, for work that holds the GIL for long.
    """

    interval_secs: float | None = None
    startup_budget_secs: float | None = None
    progress_timeout_secs: float | None = None
    drain_timeout_secs: float = 30.0
    on_superseded: Callable[[ModelInstance], object] | None = None
    any_address: bool = False
    sender: Literal["thread", "process"] = "thread"


@dataclass(eq=False)
class Life:
    """What the worker says, from any thread; what the sender reads.

    Attributes:
        instance: Who it is, its incarnation included.
        interval_secs: From one heartbeat to the next.
        options: How it is announced.
        due: When its next heartbeat is due, by the monotonic clock.
        failures: Attempts in a row that failed.
        registered: Done when it is known to the registry, or can't be.
        gone: Done when it was deregistered, or that was given up.
        told: The readiness and reason that the registry knows.
        written: The further names on record; ``None``: no record was written yet.
        leaving: It is to be deregistered.
        forgotten: It is to be removed, not left listed as unhealthy.
        leave_by: Until when that is tried, by the monotonic clock.
        renameable: Its incarnation was made here, so another one may be.
        superseded: A newer life lives at its address.
        version: Grows with each readiness that the worker asks for.
        error: Why nothing more will be said, where that is not goodbye.
        begun: Its block was entered.
        attempted: A registration was sent; whether it arrived, nobody may know.
        pace_secs: From one heartbeat to the next as things are: the registry may advise a
            longer time.
    """

    instance: ModelInstance
    interval_secs: float
    options: LifeOptions
    due: float = 0.0
    failures: int = 0
    registered: Future[None] = field(default_factory=Future[None])
    gone: Future[None] = field(default_factory=Future[None])
    told: tuple[Readiness, str] | None = None
    written: list[str] | None = None
    leaving: bool = False
    forgotten: bool = False
    leave_by: float = 0.0
    renameable: bool = False
    superseded: bool = False
    version: int = 0
    error: RegistryError | None = None
    begun: bool = False
    attempted: bool = False
    pace_secs: float = 0.0

    def __post_init__(self) -> None:
        now = time.monotonic()
        self.pace_secs = self.interval_secs
        self._again = 0.0
        self._lock = threading.Lock()
        self._began = self._progressed = now
        self._wanted = (self.instance.readiness, self.instance.reason or "")
        self._load = Load()
        self._tick_due: float | None = None
        self._idle: list[Future[None]] = []
        self._untold: list[tuple[int, Future[None]]] = []
        self._said: (
            tuple[tuple[Readiness, str], ModelInstance, ModelInstance] | None
        ) = None

    @classmethod
    def of(
        cls, instance: ModelInstance, interval_secs: float, how: HowToAnnounce
    ) -> Life:
        """A new life: a new incarnation unless one was given, starting unless said otherwise."""
        update: dict[str, object] = {}
        if instance.incarnation is None:
            update["incarnation"] = new_incarnation()
        if "readiness" not in instance.model_fields_set:
            update["readiness"] = Readiness.STARTING
        return cls(
            instance.model_copy(update=update),
            interval_secs,
            LifeOptions(**how),
            renameable="incarnation" in update,
        )

    def to_wire(self) -> dict[str, object]:
        """All that another process needs to speak for it."""
        return {
            "instance": self.instance.model_dump(mode="json"),
            "interval_secs": self.interval_secs,
            "startup_budget_secs": self.options.startup_budget_secs,
            "progress_timeout_secs": self.options.progress_timeout_secs,
            "renameable": self.renameable and not self.registered.done(),
            "began": self._began,
        }

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Life:
        """The life that another process speaks for."""
        options = LifeOptions(
            startup_budget_secs=wire["startup_budget_secs"],
            progress_timeout_secs=wire["progress_timeout_secs"],
        )
        life = cls(
            ModelInstance.model_validate(wire["instance"]),
            wire["interval_secs"],
            options,
            renameable=wire["renameable"],
        )
        life._began = wire["began"]  # one monotonic clock for all processes of a host
        return life

    def said_to_wire(self) -> dict[str, object]:
        """What the worker has said up to now."""
        with self._lock:
            return {
                "wanted": self._wanted,
                "serves": self.instance.serves,
                "version": self.version,
                "load": self._load.model_dump(mode="json"),
                "progressed": self._progressed,
                "tick_due": self._tick_due,
                "leaving": self.leaving,
                "forgotten": self.forgotten,
                "leave_by": self.leave_by,
            }

    def take_wire(self, said: dict[str, Any]) -> Future[None] | None:
        """Take over what the worker said; a future, as of :meth:`want`, if that has changed."""
        asked: Future[None] | None = None
        readiness, reason = said["wanted"]
        if said["serves"] != self.instance.serves:
            self._replace(serves=said["serves"])
        if said["version"] > self.version:
            self.version = said["version"] - 1
            asked = self.want(Readiness(readiness), reason)
        elif not self.version:
            self._wanted = (Readiness(readiness), reason)
        self._load = Load.model_validate(said["load"])
        self._progressed, self._tick_due = said["progressed"], said["tick_due"]
        self.forgotten, self.leave_by = said["forgotten"], said["leave_by"]
        self.leaving = said["leaving"]
        return asked

    @property
    def wanted(self) -> tuple[Readiness, str]:
        """The readiness and reason that the worker itself asked for."""
        return self._wanted

    def want(self, readiness: Readiness, reason: str) -> Future[None]:
        """Set the readiness; the future is done when the registry knows."""
        with self._lock:
            if not self.gone.done():
                self._wanted = (readiness, reason)
                self._progressed = time.monotonic()
            return self._next_version()

    def serve(self, names: list[str]) -> Future[None]:
        """Serve these further names; the future is done when the registry knows."""
        with self._lock:
            if not self.gone.done():
                self._replace(serves=names)
            return self._next_version()

    def _replace(self, **fields: object) -> None:
        self.instance = self.instance.model_copy(update=fields)

    def _next_version(self) -> Future[None]:
        """There is more to tell, at once; done when it is told. Needs the lock."""
        future: Future[None] = Future()
        if self.gone.done():
            future.set_exception(self.error or _over())
            return future
        self._again = 0.0
        self.version += 1
        self._untold.append((self.version, future))
        return future

    def tell_done(self, said: tuple[Readiness, str], version: int) -> None:
        """The registry knows what was said as of a version."""
        self.told = said
        with self._lock:
            done = [future for at, future in self._untold if at <= version]
            self._untold = [item for item in self._untold if item[0] > version]
        for future in done:
            future.set_result(None)

    def told_otherwise(self, taken: tuple[Readiness, str]) -> None:
        """The registry has something else on record; it is told again with the next heartbeat."""
        self.told = taken
        self._again = time.monotonic() + self.pace_secs

    def follow(self, advised_secs: float | None) -> None:
        """Beat as seldom as advised, as far as its timeout and its own interval allow."""
        most = (self.instance.heartbeat_timeout_secs or 0.0) / BEATS_IN_TIMEOUT
        self.pace_secs = max(self.interval_secs, min(advised_secs or 0.0, most))

    def end(self, error: RegistryError | None) -> None:
        """Nothing more will be said: those who wait are told."""
        with self._lock:
            if self.gone.done():
                return
            self.error = error
            self.gone.set_result(None)
            waiting = [future for _, future in self._untold]
            self._untold = []
            # Who was superseded still has work in flight; for the others nobody waits.
            idle = [] if isinstance(error, Superseded) else self._idle
        if not self.registered.done():
            waiting.append(self.registered)
        for future in waiting:
            future.set_exception(error or _over())
        for future in idle:
            future.set_result(None)

    def begin(self) -> None:
        """Its time runs from now on.

        Raises:
            RegistryClosed: It has begun before: each announcement is one life.
        """
        if self.begun:
            msg = "this announcement was used before: call announce() again for a new life"
            raise RegistryClosed(msg)
        self.begun = True
        self._began = self._progressed = time.monotonic()

    def age(self, now: float) -> float:
        """Seconds since it began."""
        return now - self._began

    def progress(self) -> None:
        """Show that work gets done."""
        self._progressed = time.monotonic()

    def tick(self, next_due: float) -> None:
        """Show that the event loop runs, and when it will show it again, by the monotonic clock."""
        self._tick_due = next_due

    def report(self, load: Load) -> None:
        """Replace what is said of the work; another number in flight counts as progress."""
        with self._lock:
            if load.in_flight != self._load.in_flight:
                self._progressed = time.monotonic()
            self._load = load
            waiting, self._idle = (
                (self._idle, []) if not load.in_flight else ([], self._idle)
            )
        for future in waiting:
            future.set_result(None)

    def idle(self) -> Future[None]:
        """Done when nothing is in flight any more."""
        future: Future[None] = Future()
        with self._lock:
            if self._load.in_flight:
                self._idle.append(future)
                return future
        future.set_result(None)
        return future

    def judged(self, now: float) -> tuple[Readiness, str]:
        """Readiness and reason to tell: the worker's word, unless the evidence is against it."""
        readiness, reason = self._wanted
        budget, patience = (
            self.options.startup_budget_secs,
            self.options.progress_timeout_secs,
        )
        if (
            readiness is Readiness.STARTING
            and budget is not None
            and now - self._began > budget
        ):
            return Readiness.FAILED, f"not ready within {budget:g} s"
        if readiness is Readiness.READY and patience is not None:
            stuck = now - self._progressed
            if self._load.in_flight and stuck > patience:
                return Readiness.WEDGED, (
                    f"{self._load.in_flight} in flight, no progress for over {patience:g} s"
                )
        return readiness, reason

    def news(self, now: float) -> bool:
        """Whether the registry doesn't know yet what is to be said."""
        if now < self._again:
            return False
        return self.judged(now) != self.told or bool(self._untold)

    def next_judgement(self, now: float) -> float:
        """When the evidence may turn against its word, by the monotonic clock."""
        moments = [float("inf"), self._again]
        if (budget := self.options.startup_budget_secs) is not None:
            moments.append(self._began + budget)
        if (patience := self.options.progress_timeout_secs) is not None:
            moments.append(self._progressed + patience)
        return min((at for at in moments if at > now), default=float("inf"))

    def evidence(self, now: float) -> Load:
        """The report to send with a heartbeat."""
        load = self._load
        more: dict[str, float] = {}
        if self._tick_due is not None:
            more["loop_lag_secs"] = round(max(now - self._tick_due, 0.0), 3)
        if load.in_flight is not None:
            more["progress_secs"] = round(now - self._progressed, 3)
        return load.model_copy(update=more) if more else load

    def saying(self, said: tuple[Readiness, str]) -> ModelInstance:
        """The instance as it is to be registered with that readiness and reason."""
        made, instance = self._said, self.instance
        if made is None or made[0] != said or made[1] is not instance:
            readiness, reason = said
            update = {"readiness": readiness, "reason": reason or None}
            made = self._said = said, instance, instance.model_copy(update=update)
        return made[2]

    def rename_after(self, other: str | None) -> bool:
        """Take a name greater than another life's; ``False``: that one is not of our making."""
        if not self.renameable or other is None:
            return False
        name = incarnation_after(other)
        if name is None:
            return False
        with self._lock:
            self._replace(incarnation=name)
        return True

    def leave(self, within_secs: float) -> None:
        """Ask to be deregistered; while the registry is away, for so long."""
        self.leave_by = time.monotonic() + within_secs
        self.leaving = True


def _over() -> RegistryClosed:
    return RegistryClosed(
        "this announcement has ended: call announce() again for a new life"
    )
