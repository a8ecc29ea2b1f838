"""Who lives and who is dead: L2, L3, L4 and R4, or I1, I2, I9 and I11 of the fault plan."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator

from redis_registry import Kind, ModelInstance
from tests.chaos.judge.history import Entry, History, Life, Person, timelines
from tests.chaos.spans import Span, length_within

__all__ = ["LIVENESS"]

SLACK_SECS = 1.0
"""For what nobody promises: processes that wait for the processor, the auditor's rounds."""

VIEW_SECS = 1.3
"""A view asks Redis once a second whose deadline has passed."""


def _beats(history: History) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """For each life of an identity: when its heartbeats had ended, and the latest beginning by then."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _, note in history.notes("call"):
        for member in note.get("beats", ()):
            identity, _, incarnation = member.rsplit(":", 2)
            found[identity, incarnation].append((note["at"], note["begun"]))
    for beats in found.values():
        beats.sort()
        latest = 0.0
        for place, (ended, begun) in enumerate(beats):
            latest = max(latest, begun)
            beats[place] = (ended, latest)
    return found


def _flips(history: History) -> Iterator[tuple[Entry, ModelInstance]]:
    for entry in history.entries():
        if entry.event.kind is Kind.UNHEALTHY and entry.event.instance is not None:
            yield entry, entry.event.instance


def nobody_who_has_beaten_is_flipped(history: History) -> Iterator[str]:
    """L2: a heartbeat that was answered before the flip was made a whole timeout before it."""
    beats = _beats(history)
    for entry, instance in _flips(history):
        identity = entry.event.subject
        if history.split(entry.after - 2 * history.timeout, entry.at):
            continue  # it may have been heard by the one whose writes are lost
        ended = beats.get((identity, instance.incarnation or ""), [])
        place = bisect_right(ended, (entry.after, float("inf")))
        if not place:
            continue
        begun = ended[place - 1][1]
        late = entry.at - begun + history.gained(begun, entry.at)
        if late < history.timeout:
            yield (
                f"{identity} was flipped at {entry.at:.3f} (revision {entry.rev}), at most "
                f"{late:.3f} s after it began a heartbeat that was answered"
            )


def _outages(
    history: History, partition: int, begun: float, ended: float
) -> list[Span]:
    return [(b, e) for b, e in history.away[partition] if e >= begun and b <= ended]


def _beats_in_vain(history: History, life: Life, begun: float, ended: float) -> bool:
    """Whether what a process said for its lives was lost on the way, again and again."""
    failed = [
        note
        for person, note in history.notes("call")
        if person is life.person
        and note["script"] in {"report", "heartbeat"}
        and note.get("error") == "RegistryUnavailable"
        and note["begun"] >= begun
        and note["at"] <= ended
    ]
    return len(failed) > 1


def nobody_who_could_beat_is_flipped(history: History) -> Iterator[str]:
    """L4: a worker that ran all the time is not flipped, whatever Redis went through.

    But for one outage after the other within its timeouts: that would delay real deaths for ever.
    The network of a worker may have one too, when Redis is back: its beats are not answered.
    """
    timeout = history.timeout
    for entry, instance in _flips(history):
        identity, away = entry.event.subject, history.away[entry.partition]
        recent = entry.after - 2 * timeout
        # While Redis served nobody, time stood still: who was silent before may have been dead.
        recent -= length_within(away, recent, entry.after)
        if history.split(recent, entry.at):
            continue
        life = history.life_of(identity, instance.incarnation, entry.after)
        if life is None or not life.could_beat(recent, entry.at, timeout):
            continue
        outages = _outages(history, entry.partition, recent - timeout, entry.at)
        back = max((ended for _, ended in outages), default=recent - timeout)
        if len(outages) + _beats_in_vain(history, life, back, entry.after) > 1:
            continue
        yield (
            f"{identity} was flipped at {entry.at:.3f} (revision {entry.rev}), and "
            f"{life.person.name} ran all the time"
        )


def _silences(history: History) -> Iterator[tuple[Life, float, float]]:
    """Lives whose process was killed, or stood still, and from when to when."""
    for life in history.lives:
        person = life.person
        # Only who has no incarnation beats in the event loop.
        silent = [
            *person.stood,
            *person.away,
            *(() if life.incarnation else person.blocked),
        ]
        if person.killed:
            silent.append((person.ended, history.end))
        ends = [history.end]
        ends += [
            other.begun
            for other in history.lives
            if (other.identity, other.incarnation) == (life.identity, life.incarnation)
            and other.begun > life.begun
        ]
        for begun, ended in silent:
            if begun >= life.begun:
                yield life, begun, min(ended, *ends)


def _dead_by(history: History, partition: int, begun: float) -> float:
    """Until when who is silent from a moment on must be unhealthy to every reader.

    A timeout; one more from each change of Redis's process on; one more in all for whatever else has
    upset the registry; while Redis served nobody, time stands still.
    """
    by = begun + history.timeout
    upset = False
    for at, hard in history.upsets(partition):
        # It is noticed late; and what a failover loses may be a flip, which then comes anew.
        latest = by + (history.timeout if hard else SLACK_SECS)
        if begun - 2 * history.timeout <= at <= latest:
            if hard:
                by = max(by, at + history.timeout)
            elif not upset:
                upset, by = True, by + history.timeout
    for away, back in history.away[partition]:
        if back >= begun and away <= by:
            by = max(by, back) + history.timeout + min(back - max(away, begun), 5.0)
    return by + SLACK_SECS


def _protected_again(
    history: History, partition: int, since: float, moment: float
) -> bool:
    """Whether nobody swept for a while, and that has just ended: all who fell silent get time again.

    Workers that speak through controllers could not beat meanwhile (L4).
    """
    for at, _ in history.upsets(partition):
        near = (
            at - SLACK_SECS <= moment <= at + history.timeout + VIEW_SECS + SLACK_SECS
        )
        if (
            near
            and length_within(history.leaderless(), since, at) > history.timeout / 4
        ):
            return True
    return False


def _flipped_by(history: History, partition: int, begun: float) -> float:
    """Until when who is silent from a moment on must be flipped."""
    lease = max(history.timeout / 6, 0.2)
    by = _dead_by(history, partition, begun) + 3 * lease
    for away, back in history.leaderless():
        if away <= by and back >= begun and back - away > lease:
            # Whoever sweeps next gives everybody one timeout first.
            by = max(by, back + 2 * history.timeout + SLACK_SECS)
    for at, hard in history.upsets(partition):
        if hard and begun <= at <= by:  # once more
            by = max(by, at + history.timeout + SLACK_SECS + 3 * lease)
    return by


def the_silent_are_flipped(history: History) -> Iterator[str]:
    """L3: within a timeout and a sweep, and a lease if the one who sweeps has died too."""
    lines = {p: timelines(chain) for p, chain in history.chains.items()}
    for life, begun, ended in _silences(history):
        partition = history.partition_of(life.identity)
        by = _flipped_by(history, partition, begun)
        if by > ended or partition not in lines:
            continue
        found = lines[partition].get(life.identity)
        state = found.at(by) if found else None
        if state is None or not state.healthy:
            continue
        if (state.incarnation or "") != life.incarnation:
            continue
        yield (
            f"{life.identity} of {life.person.name}, silent from {begun:.3f} on, is still healthy "
            f"at {by:.3f}"
        )


def _killed(history: History) -> dict[tuple[str, str], tuple[Person, float]]:
    """When each life ended whose process was killed; one without incarnation may have come back."""
    found: dict[tuple[str, str], tuple[Person, float]] = {}
    for life in sorted(history.lives, key=lambda life: life.begun):
        key = (life.identity, life.incarnation)
        if life.person.killed:
            found[key] = (life.person, life.person.ended)
        else:
            found.pop(key, None)
    return found


def nobody_is_sent_to_the_dead(history: History) -> Iterator[str]:
    """L3: no view picks who is dead, as soon as Redis has been asked after the deadline."""
    killed = _killed(history)
    for person, note in history.notes("pick"):
        if not note["picked"]:
            continue
        found = killed.get(tuple(note["picked"]))
        if found is None:
            continue
        identity = note["picked"][0]
        partition = history.partition_of(identity)
        by = _dead_by(history, partition, found[1]) + VIEW_SECS
        asked = note["at"] - note["age"]
        if _protected_again(history, partition, found[1], note["at"]):
            continue
        if asked > by and person.well(by - VIEW_SECS, note["at"], SLACK_SECS):
            yield (
                f"{person.name} picked {identity} at {note['at']:.3f}, whose process was killed at "
                f"{found[1]:.3f}; its view was confirmed at {asked:.3f}"
            )


def reads_do_not_serve_the_dead(history: History) -> Iterator[str]:
    """L3: a read judges the deadline itself."""
    killed = _killed(history)
    for person, note in history.notes("read"):
        for identity, (incarnation, _, healthy) in note["states"].items():
            found = killed.get((identity, incarnation))
            if found is None or not healthy:
                continue
            partition = history.partition_of(identity)
            by = _dead_by(history, partition, found[1])
            if _protected_again(history, partition, found[1], note["begun"]):
                continue
            if note["begun"] > by:
                yield (
                    f"{person.name} read {identity} as healthy at {note['begun']:.3f}; it was "
                    f"killed at {found[1]:.3f}"
                )


def reads_do_not_bury_the_living(history: History) -> Iterator[str]:
    """L2, L4: who runs is told to be healthy, once it has had the time to register."""
    for person, note in history.notes("read"):
        for identity, (incarnation, state, healthy) in note["states"].items():
            life = (
                None
                if healthy
                else history.life_of(identity, incarnation, note["begun"])
            )
            if life is not None and _ran(history, life, note["begun"], note["at"]):
                yield (
                    f"{person.name} read {identity} as {state} at {note['begun']:.3f}, and "
                    f"{life.person.name} ran all the time"
                )


def reads_leave_nobody_out(history: History) -> Iterator[str]:
    """R1, L6: who runs and was ready is listed, but for a heartbeat or two after data was lost."""
    ready = _ready_since(history)
    upsets = {p: history.upsets(p) for p in range(history.partitions)}
    for person, note in history.notes("read"):
        begun = note["begun"]
        for life in history.lives:
            since = ready.get((life.identity, life.incarnation), begun)
            told = life.identity in note["states"]
            if told or life.identity.split(":", 1)[0] != note["model"]:
                continue
            partition = history.partition_of(life.identity)
            lost = any(
                hard and at - SLACK_SECS <= note["at"] and begun <= at + history.timeout
                for at, hard in upsets[partition]
            )
            known = since <= begun - 3 * history.timeout and not lost
            if known and _ran(history, life, begun, note["at"]):
                yield (
                    f"{person.name} read {note['model']} at {begun:.3f} without "
                    f"{life.identity}, and {life.person.name} ran all the time"
                )


def _ran(history: History, life: Life, begun: float, ended: float) -> bool:
    """Whether a life had, for three timeouts, all that it needs to be known as healthy.

    It had them before an outage, if there was one: who was away until then could not come back.
    """
    needed, partition = 3 * history.timeout, history.partition_of(life.identity)
    since = begun - needed
    outages = _outages(history, partition, since, ended)
    since = min([since, *(gone - needed for gone, _ in outages)])
    return (
        not history.split(since, ended)
        and life.could_beat(since, ended, history.timeout)
        and len(outages) <= 1
    )


def _ready_since(history: History) -> dict[tuple[str, str], float]:
    """When each life was first known to be ready."""
    found: dict[tuple[str, str], float] = {}
    for _, note in history.notes("call"):
        if note["script"] not in {"ready", "register"} or note.get("readiness") != "r":
            continue
        if note.get("revision", -1) >= 0:
            found.setdefault((note["identity"], note["incarnation"]), note["at"])
    return found


def views_keep_somebody(history: History) -> Iterator[str]:
    """R4: while a worker that was ready runs, a view picks somebody, whatever Redis went through."""
    slack, ready = history.timeout / 5, _ready_since(history)
    shown: dict[tuple[str, str, str], float] = {}
    for person, note in history.notes("pick"):
        now, begun = note["at"], note["at"] - 4 * history.timeout
        if note["picked"]:
            shown[person.name, *note["picked"]] = now
            continue
        for life in history.lives:
            key = (life.identity, life.incarnation)
            if life.identity.split(":", 1)[0] != note["model"]:
                continue
            # Whom this view has picked in this life it knows; else it is given the time to learn of it.
            known = shown.get((person.name, *key), 0.0) > life.begun
            first = max(begun, life.begun) if known else begun
            there = known or ready.get(key, now) <= begun
            there = there and person.well(first, now, slack)
            if there and life.could_beat(first, now, history.timeout):
                yield (
                    f"{person.name} found nobody for {note['model']} at {now:.3f}, and "
                    f"{life.person.name} ran all the time"
                )
                break


LIVENESS = (
    nobody_who_has_beaten_is_flipped,
    nobody_who_could_beat_is_flipped,
    the_silent_are_flipped,
    nobody_is_sent_to_the_dead,
    reads_do_not_serve_the_dead,
    reads_do_not_bury_the_living,
    reads_leave_nobody_out,
    views_keep_somebody,
)
