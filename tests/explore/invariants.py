"""What must be true: each a function of its own that answers what is wrong, or nothing.

``OF_STEPS`` are judged on every transition, ``OF_STATES`` on every state that is new, with the
transition that led to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from redis_registry.store.operations import Term
from tests.explore.history import Known, verdict
from tests.explore.store import Contents, Refused, Scores, Store, Stream
from tests.explore.world import Action, Seen, Step, run_id

__all__ = ["OF_STATES", "OF_STEPS", "judge_state", "judge_step"]

Wrong = str | None
FENCED = {"flip", "forget", "rebase", "release"}


def _named(step: Step, contents: Contents, name: str) -> Any:
    key = step.world.operations.keys(0).named(name).encode()
    return contents.get(key) or {}


def _record(step: Step, contents: Contents, place: int) -> dict[bytes, bytes]:
    identity = step.world.identities[place]
    key = step.world.operations.keys(0).instance(identity).encode()
    return contents.get(key) or {}


def _shown(record: dict[bytes, bytes]) -> tuple[bytes, ...] | None:
    """What of a record is told by events: all but the deadline, which heartbeats move."""
    if not record:
        return None
    parts = record.get(b"life", b"").split(b"|")
    parts[2:3] = []
    rest = (record.get(name, b"") for name in (b"terms", b"spec", b"why", b"out"))
    return (*parts, *rest)


# --- of steps --------------------------------------------------------------------------------


def answers_fit(step: Step) -> Wrong:
    """W2, W3: each worker's call is answered by what is known of the address."""
    action = step.action
    if action.kind not in step.world.calls:
        return None
    known = step.arrived.known[action.who]
    expected = verdict(action.kind, action.life, known)
    given = step.world.answer(step)
    return f"answered {given}, must be {expected}" if given != expected else None


def nobody_living_is_flipped(step: Step) -> Wrong:
    """L2, L4: a flip needs silence for a whole timeout, and no grant of an outage."""
    now = step.before.now
    for _, kind, _, about in step.events:
        if kind != "unhealthy":
            continue
        identity = about.split("|")[0]
        known = step.arrived.known[step.world.identities.index(identity)]
        if known is None or known.health != "1":
            return f"{identity} was flipped, and was not healthy"
        if now < known.deadline:
            return f"{identity} was flipped, and has beaten within its timeout"
        if now < known.granted:
            return f"{identity} was flipped in the time that an outage had given it"
    return None


def only_the_newest_term_writes(step: Step) -> Wrong:
    """W5: a checker's write is taken if and only if its term is the newest."""
    action, term = step.action, step.arrived.term
    if action.kind not in FENCED:
        return f"refused: {step.refused}" if step.refused else None
    seen = step.before.seen[action.who]
    assert seen is not None
    newest = (
        term is not None
        and (term.holder, term.token) == (f"c{action.who}", seen.token)
        and term.run == step.before.run
    )
    if newest == step.refused.startswith("RRFENCED"):
        return "the newest term was refused" if newest else "an older term was taken"
    return None


def one_lease_at_a_time(step: Step) -> Wrong:
    """W5: nobody gets the lease before it ends; each term has a greater token."""
    action, now = step.action, step.before.now
    if not action.kind.startswith("sweep") or step.refused:
        return None
    assert step.ran is not None
    term, token = step.arrived.term, int(step.ran.reply[0])
    if term is None:
        return None if token == 1 else f"the first token is {token}"
    valid = now < term.until and term.run == step.before.run
    mine = term.holder == f"c{action.who}"
    if valid and not mine:
        return "two hold the lease" if token else None
    expected = term.token if valid and mine else term.token + 1
    return f"token {token}, must be {expected}" if token != expected else None


def every_change_is_one_event(step: Step) -> Wrong:
    """R1: what an event tells is what the record is, and nothing else has changed."""
    told: Counter[str] = Counter()
    rows: dict[str, list[str]] = {}
    for _, kind, _, about in step.events:
        if kind in {"opened", "recovery", "lease", "guard"}:
            continue
        row = about.split("|", 12)
        told[row[0]] += 1
        rows[row[0]] = row if kind not in {"removed", "forgotten"} else []
    for place, identity in enumerate(step.world.identities):
        old = _shown(_record(step, step.before.contents, place))
        record = _record(step, step.after.contents, place)
        new = _shown(record)
        if told[identity] != int(old != new):
            return f"{identity}: {told[identity]} events, the record went from {old} to {new}"
        if told[identity] and _row(rows[identity], record) != new:
            return f"{identity}: the event tells {rows[identity]}, the record is {new}"
    return None


def _row(row: list[str], record: dict[bytes, bytes]) -> tuple[bytes, ...] | None:
    """An event's row in the terms of :func:`_shown`; the spec is told as text here."""
    if not row:
        return None
    life = (row[4], row[5], row[7])
    spec = record.get(b"spec", b"")
    if row[12] != spec.decode(errors="replace"):
        spec = row[12].encode()
    whole = (*life, f"{row[1]}|{row[2]}")
    return (*(part.encode() for part in whole), spec, row[9].encode(), row[11].encode())


def revisions_have_no_gaps(step: Step) -> Wrong:
    """R1: each event has the next revision, and the partition stands at the last one."""
    if step.ran is None:
        return None
    events = step.world.operations.keys(0).named("events").encode()
    before: Stream = step.before.contents.get(events) or Stream(0, 0)
    after: Stream = step.after.contents.get(events) or Stream(0, 0)
    numbers = [number for number, *_ in step.events]
    if numbers != list(range(before.last + 1, before.last + 1 + len(numbers))):
        return f"revisions {numbers} after {before.last}"
    rev = int(_named(step, step.after.contents, "meta").get(b"rev", 0))
    return f"at revision {rev}, last event {after.last}" if rev != after.last else None


def no_life_comes_back(step: Step) -> Wrong:
    """W2: an older incarnation never overwrites a newer; a goodbye is final for who said it."""
    if step.action.life == "" and step.action.kind in step.world.calls:
        return None  # acts on whatever is there
    for place, identity in enumerate(step.world.identities):
        old = _record(step, step.before.contents, place)
        new = _record(step, step.after.contents, place)
        if not old or not new:
            continue
        before, after = (r.get(b"terms", b"").rsplit(b":", 1)[-1] for r in (old, new))
        if after < before:
            return f"{identity}: life {after.decode()} after life {before.decode()}"
        gone = old.get(b"life", b"").startswith(b"g")
        if gone and after == before and not new.get(b"life", b"").startswith(b"g"):
            return f"{identity}: life {after.decode()} is back after its goodbye"
    return None


def nobody_is_forgotten_early(step: Step) -> Wrong:
    """L6: the unhealthy stay listed for their time, the healthy always."""
    for _, kind, _, about in step.events:
        if kind != "forgotten":
            continue
        known = step.arrived.known[step.world.identities.index(about)]
        if known is None or known.health == "1":
            return f"{about} was forgotten, and is not unhealthy"
        if step.before.now - known.down < step.world.times.forget:
            return f"{about} was forgotten too early"
    return None


def a_mass_expiry_is_held(step: Step) -> Wrong:
    """L5: many at once go only when the guard has held them for long enough."""
    guard = step.world.guard
    flips = sum(kind == "unhealthy" for _, kind, _, _ in step.events)
    if not guard.enabled or flips < guard.min_instances:
        return None
    entries = _named(step, step.after.contents, "guard").values()
    let_go = any(entry.startswith(b"open") for entry in entries)
    return None if let_go else f"{flips} were flipped at once"


def no_hold_outlasts_its_time(step: Step) -> Wrong:
    """L5: the first flip after the longest time of a hold ends it."""
    if step.action.kind != "flip" or step.refused:
        return None
    most = round((step.world.settings.guard.max_hold_secs or 0) * 1_000_000)
    for entry in _named(step, step.after.contents, "guard").values():
        state, since, *_ = entry.split(b"|")
        if state == b"held" and step.before.now - int(since) >= most:
            return f"held since {since.decode()}, at most for {most}"
    return None


# --- of states -------------------------------------------------------------------------------


def parts_agree(step: Step, _store: Store) -> Wrong:
    """W1: hash, index, deadline, counters change together or not at all."""
    contents, world = step.after.contents, step.world
    records = {
        identity: record
        for place, identity in enumerate(world.identities)
        if (record := _record(step, contents, place))
    }
    if any(not {b"terms", b"life", b"spec"} <= set(r) for r in records.values()):
        return f"half a record: {records}"
    index: Scores = (
        contents.get(world.operations.keys(0).index("m").encode()) or Scores()
    )
    if {f"m:{address.decode()}" for address in index} != set(records):
        return f"index {sorted(index)}, records {sorted(records)}"
    due = {
        f"{identity}:{record[b'terms'].decode().split('|')[1]}".encode()
        for identity, record in records.items()
        if record[b"life"].startswith(b"1|")
    }
    wanted = {
        "deadlines": due,
        "down": {
            identity.encode()
            for identity, record in records.items()
            if not record[b"life"].startswith(b"1|")
        },
        "models": {b"m"} if records else set[bytes](),
    }
    for name, members in wanted.items():
        found = set(_named(step, contents, name))
        if found != members:
            return f"{name}: {sorted(found)}, must be {sorted(members)}"
    living = _named(step, contents, "living")
    counted = {b"m": b"%d" % len(due)} if due else {}
    return f"living {living}, must be {counted}" if living != counted else None


def record_is_as_told(step: Step, _store: Store) -> Wrong:
    """W1, W2, R1: Redis holds what a bystander knows who saw calls, answers and events."""
    contents = step.after.contents
    deadlines = _named(step, contents, "deadlines")
    down = _named(step, contents, "down")
    for place, known in enumerate(step.after.history.known):
        identity = step.world.identities[place]
        record = _record(step, contents, place)
        found: Known | None = None
        if record:
            tail = record.get(b"terms", b"|:").split(b"|")[1]
            health = record.get(b"life", b"")[:1].decode()
            life = tail.split(b":")[1].decode()
            member = identity.encode() + b":" + tail
            found = Known(life, health, deadlines.get(member, -1))
            since = down.get(identity.encode(), 0)
            if known is not None and health != "1" and since != known.down:
                return f"{identity}: unhealthy since {since}, was told {known.down}"
        if known is None or found is None:
            if known is not None or found is not None:
                return f"{identity}: the record is {found}, was told {known}"
            continue
        if (found.life, found.health) != (known.life, known.health):
            return f"{identity}: the record is {found}, was told {known}"
        if known.health == "1" and found.deadline != known.deadline:
            return f"{identity}: its deadline is {found.deadline}, was told {known}"
    return None


def _look(step: Step, store: Store) -> Step:
    """A reader reads at this moment."""
    world = step.world
    return world.step(store, step.after, Action("read", call=world.read))


def reads_tell_the_truth(step: Step, store: Store) -> Wrong:
    """L2, L3, L4: never the living as dead, never the dead as living, with or without a sweep."""
    look = _look(step, store)
    assert look.ran is not None
    if look.refused:
        return look.refused
    rows = {
        row.decode(errors="replace").split("|")[0]: row for row in look.ran.reply[9:]
    }
    held = any(
        entry.startswith(b"held")
        for entry in _named(step, look.after.contents, "guard").values()
    )
    for place, known in enumerate(look.arrived.known):
        row = rows.pop(step.world.identities[place], None)
        if (row is None) != (known is None):
            return f"read {row}, was told {known}"
        if row is None or known is None:
            continue
        state = row.decode(errors="replace").split("|")[3]
        if state not in _states(known, look.before.now, held=held):
            return f"read as {state} at {look.before.now}: {known}"
    return f"read {rows} of nobody" if rows else None


def _states(known: Known, now: int, *, held: bool) -> set[str]:
    """What a reader may be told."""
    if known.health != "1":
        return {known.health}
    if now < known.deadline:
        return {"1"}
    if now < known.granted:
        return {"protected"}
    if now < known.bound or held:
        return {"protected", "overdue"}
    return {"overdue"}


def views_and_reads_agree(step: Step, store: Store) -> Wrong:
    """L3: those whom a read calls overdue are those that a view takes out by itself."""
    state = step.after
    run = run_id(state.run)
    asked = store.run(state.contents, state.now, run, step.world.overdue)
    if isinstance(asked.reply, Refused):
        return asked.reply.message
    members = {member.rsplit(b":", 2)[0] for member in asked.reply[7]}
    read = store.run(state.contents, state.now, run, step.world.read)
    rows = [row.split(b"|", 12) for row in read.reply[9:]]
    overdue = {row[0] for row in rows if row[3] == b"overdue"}
    return (
        f"overdue to views {members}, to reads {overdue}"
        if members != overdue
        else None
    )


def twice_is_once(step: Step, store: Store) -> Wrong:
    """S: a call whose answer was lost and that is repeated has the effect of one."""
    call, state = step.action.call, step.after
    if call is None or step.refused:
        return None
    again = store.run(state.contents, state.now, run_id(state.run), call)
    if again.events:
        return f"the second time there are events: {again.events}"
    if again.contents != state.contents:
        return "the second time something else changes"
    return None


def the_dead_can_be_flipped(step: Step, store: Store) -> Wrong:
    """L3, L4: whoever is silent beyond every grant is flipped by the next sweep."""
    world, state = step.world, step.after
    if world.guard.enabled or not world.checkers:
        return None
    term = state.history.term
    leads = term is not None and state.now < term.until and term.run == state.run
    place = int(term.holder[1:]) if term is not None and leads else 0
    swept = world.step(store, state, world.sweep(place))
    seen = swept.after.seen[place]
    if not isinstance(seen, Seen):
        return f"checker {place + 1} can't sweep: {swept.ran}"
    known = swept.after.history.known
    lost = {
        identity
        for identity, one in zip(world.identities, known, strict=True)
        if one and one.health == "1" and state.now >= max(one.deadline, one.bound)
    }
    held = Term(0, f"c{place}", seen.token, seen.epoch)
    action = Action("flip", place, call=world.flip(held, seen))
    flipped = world.step(store, swept.after, action) if seen.members else swept
    gone = {
        about.split("|")[0]
        for _, kind, _, about in flipped.events
        if kind == "unhealthy"
    }
    return f"{sorted(lost - gone)} stay healthy" if lost - gone else None


OF_STEPS: tuple[Callable[[Step], Wrong], ...] = (
    nobody_living_is_flipped,
    only_the_newest_term_writes,
    one_lease_at_a_time,
    answers_fit,
    every_change_is_one_event,
    revisions_have_no_gaps,
    no_life_comes_back,
    nobody_is_forgotten_early,
    a_mass_expiry_is_held,
    no_hold_outlasts_its_time,
)
OF_STATES: tuple[Callable[[Step, Store], Wrong], ...] = (
    parts_agree,
    record_is_as_told,
    reads_tell_the_truth,
    views_and_reads_agree,
    twice_is_once,
    the_dead_can_be_flipped,
)


def judge_step(step: Step) -> str | None:
    """The first invariant of steps that is broken, and how."""
    if step.ran is None:
        return None
    for invariant in OF_STEPS:
        wrong = invariant(step)
        if wrong:
            return f"{invariant.__name__}: {wrong}"
    return None


def judge_state(step: Step, store: Store) -> str | None:
    """The first invariant of states that is broken, and how."""
    for invariant in OF_STATES:
        wrong = invariant(step, store)
        if wrong:
            return f"{invariant.__name__}: {wrong}"
    return None
