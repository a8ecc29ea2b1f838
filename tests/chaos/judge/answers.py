"""What callers were told, and how things ended: I7, I10, I12 and I13 of the fault plan, S1, W1."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.judge.history import History
from tests.chaos.spans import length_within

__all__ = ["ANSWERS"]

SLACK_SECS = 0.6
"""A call's end is noticed, and noted, a little after its deadline."""


def what_was_acknowledged_is_written(history: History) -> Iterator[str]:
    """W1, R1: the revision that a writer was told is that of an event about its instance."""
    for person, note in history.notes("call"):
        if note["script"] not in {"register", "ready", "deregister"}:
            continue
        rev, chain = note.get("revision", 0), history.chains.get(note["partition"])
        if rev <= 0 or chain is None:
            continue
        epochs = [note["epoch"]] if "epoch" in note else chain.order
        found = [entry for epoch in epochs if (entry := chain.find(epoch, rev))]
        if found and not any(e.event.subject == note["identity"] for e in found):
            subjects = sorted({entry.event.subject for entry in found})
            yield (
                f"{person.name} was told revision {rev} for its {note['script']} of "
                f"{note['identity']}; that is about {subjects}"
            )


def calls_end_at_their_deadline(history: History) -> Iterator[str]:
    """S: no call takes longer than its deadline, whatever Redis does."""
    for person, note in history.notes("call"):
        begun, ended = note["begun"], note["at"]
        stood = length_within(person.off(), begun, ended)
        # A deadline of 0 means: one attempt, which may wait for one answer.
        most = max(note["deadline_secs"], history.settings["socket_timeout_secs"])
        if ended - begun > most + SLACK_SECS + stood:
            yield (
                f"{note['script']} of {person.name} took {ended - begun:.2f} s, its deadline was "
                f"{note['deadline_secs']:g} s"
            )


def nothing_dies_quietly(history: History) -> Iterator[str]:
    """S1: no loop ended by itself, nobody got stuck, everybody left in order."""
    for person, note in history.notes("dead loop"):
        yield f"{person.name}: {note['why']}"
    for note in history.stage:
        if note["what"] == "stuck":
            yield f"{note['player']} did not leave when it was asked to"
        elif note["what"] == "gone" and note["code"]:
            yield f"{note['player']} left with code {note['code']}"
        elif note["what"] == "broken plot":
            yield note["why"]


def loops_go_on(history: History) -> Iterator[str]:
    """S1: after the last fault every loop of every process succeeds again."""
    last = [note["at"] for note in history.stage if note["what"] == "truth"]
    if not last:
        return
    does = {"worker": "call", "controller": "read", "router": "pick"}
    for person in history.persons.values():
        if person.ended < last[-1] or person.born > history.calm:
            continue
        scripts = {
            note["script"]
            for note in person.notes
            if note["what"] == "call"
            and "error" not in note
            and note["at"] > history.calm
        }
        done = {note["what"] for note in person.notes if note["at"] > history.calm}
        if does.get(person.role) not in done:
            yield f"{person.name}: no {does[person.role]} after {history.calm:.3f}"
        if person.role == "controller" and "sweep" not in scripts:
            yield f"{person.name}: its checker has not swept after {history.calm:.3f}"
        if person.role == "router" and "reserve" not in scripts:
            yield f"{person.name}: no reservation after {history.calm:.3f}"


def redis_holds_no_rest(history: History) -> Iterator[str]:
    """W1, I12: hash, index, deadlines and counters agree in the end."""
    for note in history.stage:
        if note["what"] == "contents" and note["wrong"]:
            yield f"port {note['port']}, partition {note['partition']}: {note['wrong']}"


ANSWERS = (
    what_was_acknowledged_is_written,
    calls_end_at_their_deadline,
    nothing_dies_quietly,
    loops_go_on,
    redis_holds_no_rest,
)
