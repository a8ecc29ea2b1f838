"""Small worlds: who is there, and which calls each of them might make next.

Every call is built by the real operations and may come at any time, late, twice, or in any
order with others: a worker's calls don't wait for each other's answers, and one whose answer was
lost and that is repeated is a call that comes twice. Only a checker acts on what it has seen,
however long ago.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from redis_registry import (
    GuardSettings,
    ModelInstance,
    OutlierSettings,
    RegistrySettings,
)
from redis_registry.roles.flipping import Flipping
from redis_registry.store.calls import Call, Operation
from redis_registry.store.operations import Operations, Term
from redis_registry.store.replies import Sweep, read_sweep
from redis_registry.wire.keys import identity_text
from tests.explore import history as told
from tests.explore.history import Held, History, Times
from tests.explore.store import Contents, Ran, Refused, Store

__all__ = ["Action", "Seen", "State", "Step", "World"]

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
MODEL = "m"
MOST_KNOWN = 2_000


class Seen(NamedTuple):
    """What a checker holds in its hands since its last sweep."""

    token: int
    epoch: str
    members: tuple[str, ...] = ()
    guarded: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    rebase: bool = False


class State(NamedTuple):
    """The world at one moment.

    Attributes:
        contents: What Redis holds.
        now: Its clock in µs.
        run: Which server process it is.
        restarts: How many more there may be.
        seen: What each checker holds.
        history: What a bystander knows.
    """

    contents: Contents
    now: int
    run: int
    restarts: int
    seen: tuple[Seen | None, ...]
    history: History


class Action(NamedTuple):
    """Something that may happen next.

    Attributes:
        kind: What.
        who: Number of the address or of the checker; -1: neither.
        life: Incarnation of the worker that calls.
        call: The call; ``None``: the clock moves, or the server restarts.
    """

    kind: str
    who: int = -1
    life: str = ""
    call: Call[Any] | None = None

    def __str__(self) -> str:
        match self.kind:
            case "tick" | "restart":
                return self.kind
            case "read":
                return "a reader reads"
            case (
                "sweep"
                | "sweep, answer lost"
                | "flip"
                | "forget"
                | "release"
                | "rebase"
            ):
                return f"checker {self.who + 1}: {self.kind}"
            case _:
                life = f", life {self.life}" if self.life else ""
                return f"worker {self.who + 1}{life}: {self.kind}"


class Step(NamedTuple):
    """One transition.

    Attributes:
        world: Where.
        before: The state it began in.
        action: What happened.
        ran: What the call did; ``None``: it was no call.
        arrived: What a bystander knew when the call arrived, outages noticed.
        after: The state it led to.
    """

    world: World
    before: State
    action: Action
    ran: Ran | None
    arrived: History
    after: State

    @property
    def events(self) -> list[tuple[int, str, str, str]]:
        """Revision, kind, cause and subject or row of each event."""
        found: list[tuple[int, str, str, str]] = []
        for number, head, about in self.ran.events if self.ran else ():
            _, kind, cause, _, _ = head.decode().split("|")
            found.append((number, kind, cause, about.decode(errors="replace")))
        return found

    @property
    def refused(self) -> str:
        """The error that the script answered, or nothing."""
        if self.ran is not None and isinstance(self.ran.reply, Refused):
            return self.ran.reply.message
        return ""


WORKERS = ("register", "beat", "revive", "absent", "goodbye", "remove")


@dataclass(frozen=True)
class World:
    """One small world.

    Attributes:
        name: What to call it.
        about: What it is for.
        lives: The incarnations at each address; an empty one: a worker without.
        checkers: How many.
        restarts: How often the server process may change.
        timeout: In seconds; the clock moves by one.
        lease, gap, forget: In seconds too.
        guard: Brakes on mass expiry.
        calls: What workers do.
        own: Timeouts of the workers' own in seconds, one for each address; empty: the registry's.
    """

    name: str
    about: str
    lives: tuple[tuple[str, ...], ...] = (("1", "2"), ("1", "2"))
    checkers: int = 2
    restarts: int = 1
    timeout: int = 3
    lease: float = 2
    gap: int = 3
    forget: int = 2
    guard: GuardSettings = field(default_factory=lambda: GuardSettings(enabled=False))
    calls: tuple[str, ...] = WORKERS
    own: tuple[int, ...] = ()

    @property
    def begin_us(self) -> int:
        """When its time begins."""
        return START

    @cached_property
    def settings(self) -> RegistrySettings:
        """The registry's, for the real operations."""
        return RegistrySettings(
            partitions=1,
            heartbeat_interval_secs=1,
            heartbeat_timeout_secs=self.timeout,
            lease_ttl_secs=self.lease,
            gap_secs=self.gap,
            forget_after_secs=self.forget,
            guard=self.guard,
            outliers=OutlierSettings(enabled=False),
        )

    @cached_property
    def times(self) -> Times:
        """Its lengths in µs."""
        lengths = (self.timeout, self.lease, self.gap, self.forget)
        return Times(*(round(secs * SECOND) for secs in lengths))

    def timeout_of(self, place: int) -> int:
        """The silence, in µs, after which a worker of this address is dead."""
        return (self.own[place] if self.own else self.timeout) * SECOND

    @cached_property
    def symmetric(self) -> bool:
        """Whether all addresses have the same lives."""
        return len(set(self.lives)) == 1 and len(set(self.own)) < 2

    @cached_property
    def operations(self) -> Operations:
        made = Operations(self.settings, actor="explorer")
        made._open(1)
        return made

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """The text of each address."""
        return tuple(
            identity_text(self._instance(place, "").identity)
            for place in range(len(self.lives))
        )

    def _instance(self, place: int, life: str) -> ModelInstance:
        return ModelInstance(
            model_name=MODEL,
            host="h",
            port=place + 1,
            incarnation=life or None,
            heartbeat_timeout_secs=self.own[place] if self.own else None,
        )

    @cached_property
    def _of_workers(self) -> list[Action]:
        found: list[Action] = []
        for place, lives in enumerate(self.lives):
            for life in lives:
                item = self._instance(place, life)
                made = self.operations
                missed = [made._believe(item)[1]]
                calls: dict[str, Call[Any]] = {
                    "register": _first(made.register(item)),
                    "beat": _first(made.heartbeats([item])),
                    "revive": _first(made.heartbeats([item]), missed),
                    "absent": _first(made.heartbeats([item]), missed, ["unknown"]),
                    "goodbye": _first(made.deregister(item, remove=False)),
                    "remove": _first(made.deregister(item, remove=True)),
                }
                found += [Action(kind, place, life, calls[kind]) for kind in self.calls]
        return found

    @cached_property
    def join(self) -> Call[Any]:
        """The first call of all."""
        return _first(Operations(self.settings, actor="explorer").join())

    @cached_property
    def read(self) -> Call[Any]:
        """A reader's call."""
        return _first(self.operations.read(None, healthy_only=False))

    @cached_property
    def overdue(self) -> Call[Any]:
        """A view's question."""
        return _first(self.operations.overdue(0))

    @cached_property
    def _sweeps(self) -> list[Call[Any]]:
        made = self.operations
        return [_first(made.sweep(0, f"c{place}")) for place in range(self.checkers)]

    def sweep(self, place: int) -> Action:
        """A checker's sweep."""
        return Action("sweep", place, call=self._sweeps[place])

    @cached_property
    def _known_actions(self) -> dict[tuple[int, Seen | None], list[Action]]:
        return {}

    def _checker_actions(self, place: int, seen: Seen | None) -> list[Action]:
        known = self._known_actions
        found = known.get((place, seen))
        if found is None:
            if len(known) >= MOST_KNOWN:
                known.clear()
            found = known[place, seen] = list(self._of_checker(place, seen))
        return found

    def _of_checker(self, place: int, seen: Seen | None) -> Iterator[Action]:
        yield self.sweep(place)
        if seen is None:
            return
        yield Action("sweep, answer lost", place, call=self._sweeps[place])
        made, term = self.operations, Term(0, f"c{place}", seen.token, seen.epoch)
        if seen.members or seen.guarded:
            yield Action("flip", place, call=self.flip(term, seen))
        if seen.forget:
            yield Action("forget", place, call=_first(made.forget(term, seen.forget)))
        if seen.rebase:
            yield Action("rebase", place, call=_first(made.rebase(term, 0)))
        yield Action("release", place, call=_first(made.release(term)))

    def flip(self, term: Term, seen: Seen) -> Call[Any]:
        """The call that the real checker would make of what it has seen."""
        found = self._flips.get((term, seen))
        if found is None:
            if len(self._flips) >= MOST_KNOWN:
                self._flips.clear()
            found = self._flips[term, seen] = self._flip(term, seen)
        return found

    @cached_property
    def _flips(self) -> dict[tuple[Term, Seen], Call[Any]]:
        return {}

    def _flip(self, term: Term, seen: Seen) -> Call[Any]:
        flipping = Flipping(
            term, seen.members, seen.guarded, operations=self.operations, ask=_never
        )
        scopes = flipping._scopes(seen.members)
        return _first(self.operations.flip(term, seen.members, scopes))

    def begin(self, store: Store) -> State:
        """The first state: the namespace was joined, and nothing else."""
        ran = store.run({}, START, run_id(0), self.join)
        known: tuple[None, ...] = (None,) * len(self.lives)
        seen: tuple[None, ...] = (None,) * self.checkers
        return State(
            ran.contents, START, 0, self.restarts, seen, History(known, START, 0)
        )

    def actions(self, state: State) -> list[Action]:
        """All that may happen next."""
        found = [Action("tick")]
        if state.restarts:
            found.append(Action("restart"))
        found += self._of_workers
        for place, seen in enumerate(state.seen):
            found += self._checker_actions(place, seen)
        found.append(Action("read", call=self.read))
        return found

    def step(self, store: Store, state: State, action: Action) -> Step:
        """Let something happen."""
        if action.call is None:
            if action.kind == "tick":
                after = state._replace(now=state.now + SECOND)
            else:
                after = state._replace(run=state.run + 1, restarts=state.restarts - 1)
            return Step(self, state, action, None, state.history, after)
        ran = store.run(state.contents, state.now, run_id(state.run), action.call)
        arrived = told.arrive(state.history, state.now, state.run, self.times)
        after = state._replace(contents=ran.contents)
        step = Step(self, state, action, ran, arrived, after)
        history, seen = self._learned(step)
        return step._replace(after=after._replace(history=history, seen=seen))

    def _learned(self, step: Step) -> tuple[History, tuple[Seen | None, ...]]:
        """What a bystander and the checkers know after a call."""
        history, action, seen = step.arrived, step.action, list(step.before.seen)
        now = step.before.now
        if step.refused:
            if action.kind in {"flip", "forget", "rebase", "release"}:
                seen[action.who] = None  # so does the real one: it has lost its lease
            return history, tuple(seen)
        if action.kind.startswith("sweep"):
            history, found = self._swept(step)
            if action.kind == "sweep":
                seen[action.who] = found
        elif action.kind == "release":
            assert history.term is not None
            history = history._replace(term=history.term._replace(until=0))
            seen[action.who] = None
        elif action.kind in self.calls and self.answer(step) == "accepted":
            known = history.known[action.who]
            timeout = self.timeout_of(action.who)
            new = told.heard(action.kind, action.life, known, now, timeout)
            history = history.with_known(action.who, new)
        return self._told_by_events(history, step), tuple(seen)

    def _swept(self, step: Step) -> tuple[History, Seen | None]:
        assert step.ran is not None
        sweep: Sweep = read_sweep(step.ran.reply)
        history, now = step.arrived, step.before.now
        if not sweep.token:
            return history, None
        history = told.unswept(history, now, self.times)
        until = now + self.times.lease
        term = Held(sweep.holder, sweep.token, step.before.run, until)
        seen = Seen(
            sweep.token,
            sweep.epoch,
            tuple(sweep.members),
            tuple(sweep.guarded),
            tuple(sweep.forget),
            sweep.rebase,
        )
        return history._replace(term=term), seen

    def _told_by_events(self, history: History, step: Step) -> History:
        for _, kind, _, about in step.events:
            if kind not in {"unhealthy", "forgotten"}:
                continue
            identity = about.split("|")[0]
            if identity not in self.identities:
                continue
            place = self.identities.index(identity)
            known = history.known[place]
            if kind == "forgotten":
                history = history.with_known(place, None)
            elif known is not None:
                down = known._replace(
                    health="x", granted=0, bound=0, down=step.before.now
                )
                history = history.with_known(place, down)
        return history

    def answer(self, step: Step) -> str:
        """What a worker was told, in the words of :func:`history.verdict`."""
        action, ran = step.action, step.ran
        assert ran is not None
        if step.refused:
            return "refused"
        assert action.call is not None
        read: Any = action.call.read(ran.reply)
        match action.kind:
            case "register" | "absent":
                return "superseded" if read[0] < 0 else "accepted"
            case "beat":
                return "missed" if read else "accepted"
            case "revive":
                return read[0] if read[0] in {"unknown", "superseded"} else "accepted"
            case _:
                return {0: "nothing", -1: "superseded"}.get(read, "accepted")


async def _never(operation: Operation[str]) -> str:
    raise AssertionError(operation)


def run_id(run: int) -> str:
    """What a server process calls itself."""
    return f"{run + 1:08x}" * 5


def _first(operation: Operation[Any], *replies: Any) -> Call[Any]:
    """The call that an operation makes after these replies, each to one call."""
    calls = next(operation)
    for reply in replies:
        calls = operation.send([reply])
    found = calls[0]
    assert isinstance(found, Call)
    operation.close()
    return found
