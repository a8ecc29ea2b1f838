"""What callers were told, and how things ended: I7, I10, I12 and I13 of the fault plan, S1, W1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.chaos.judge.history import Chain, History
from tests.chaos.notebook import Note
from tests.chaos.spans import length_within

__all__ = ["ANSWERS", "done_since", "duties"]

DOES = {
    "worker": {"report", "heartbeat"},
    "controller": {"read", "sweep"},
    "router": {"read", "has picked", "has reserved"},
}
"""What each role does again and again."""

HAS = {"pick": "has picked", "reserve": "has reserved"}
"""Notes that are also written when nothing was got."""

SLACK_SECS = 0.6
"""A call's end is noticed, and noted, a little after its deadline."""


def there_is_something_to_judge(history: History) -> Iterator[str]:
    """A run in which nothing was seen proves nothing."""
    seen = {
        "heartbeat": any(note.get("beats") for _, note in history.notes("call")),
        "term": any(note.get("token") for _, note in history.notes("call")),
        "acknowledged write": any(
            note.get("revision", 0) > 0 for _, note in history.notes("call")
        ),
        "read": any(note["states"] for _, note in history.notes("read")),
        "pick": any(note["picked"] for _, note in history.notes("pick")),
        "event of a watch": any(True for _ in history.notes("event")),
    }
    for partition in range(history.partitions):
        seen[f"entry of partition {partition}"] = partition in history.chains
    for what, there in seen.items():
        if not there:
            yield f"no {what} was seen"


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
        if "epoch" not in note:  # of one that came later it can't have been told
            found = [entry for entry in found if entry.after <= note["at"]]
        if any(e.event.subject == note["identity"] for e in found):
            continue
        # With two primaries the other one may have used the same revision.
        elsewhere = "epoch" not in note and history.split(note["begun"], note["at"])
        if (elsewhere or not found) and _may_be_lost(history, chain, note):
            continue
        yield (
            f"{person.name} was told revision {rev} for its {note['script']} of "
            f"{note['identity']}; that is about {sorted({e.event.subject for e in found})}"
        )


def _may_be_lost(history: History, chain: Chain, note: Note) -> bool:
    """Whether it may have been written and lost between two rounds of the auditor.

    Then an epoch has begun since; or a server that was replaced meanwhile took it.
    """
    newest = chain.order[-1]
    begun = chain.epochs[newest][chain.first[newest]].at
    return history.topology != "standalone" or begun >= note["begun"]


def calls_end_at_their_deadline(history: History) -> Iterator[str]:
    """S: no call takes longer than its deadline, whatever Redis does."""
    for person, note in history.notes("call"):
        begun, ended = note["begun"], note["at"]
        stood = length_within(person.off(), begun, ended)
        # A deadline of 0 means: one attempt, which may wait for one answer.
        most = note["deadline_secs"] or history.settings["socket_timeout_secs"]
        if ended - begun > most + SLACK_SECS + stood:
            yield (
                f"{note['script']} of {person.name} took {ended - begun:.2f} s, its deadline was "
                f"{note['deadline_secs']:g} s"
            )


def nothing_dies_quietly(history: History) -> Iterator[str]:
    """S1: no loop ended by itself, nobody got stuck, everybody left in order."""
    for person, note in history.notes("dead loop"):
        yield f"{person.name}: {note['why']}"
    refused = {person.name for person, _ in history.notes("refused")}
    for note in history.stage:
        if note["what"] == "stuck":
            yield f"{note['player']} did not leave when it was asked to"
        elif note["what"] == "gone" and note["code"] and note["player"] not in refused:
            yield f"{note['player']} left with code {note['code']}"
        elif note["what"] == "ended by itself" and note["player"] not in refused:
            yield f"{note['player']} ended by itself, with code {note['code']}"
        elif note["what"] == "broken plot":
            yield note["why"]


def duties(role: str, *, served: bool) -> set[str]:
    """What a role must do again and again; ``served``: there is a worker that can be picked."""
    return DOES[role] if served else DOES[role] - set(HAS.values())


def done_since(notes: Iterable[Note], moment: float) -> set[str]:
    """What a process has done after a moment: kinds of notes, and scripts that were answered."""
    found: set[str] = set()
    for note in notes:
        if note["at"] > moment:
            answered = note["what"] == "call" and "error" not in note
            found.add(note["script"] if answered else note["what"])
            if note["what"] in HAS and note.get("picked") and not note.get("error"):
                found.add(HAS[note["what"]])
    return found


def loops_go_on(history: History) -> Iterator[str]:
    """S1: after the last fault every loop of every process succeeds again."""
    last = [note["at"] for note in history.stage if note["what"] == "truth"]
    if not last:
        return
    served = any(worker.ended > last[-1] for worker in history.of_role("worker"))
    for person in history.persons.values():
        if person.ended < last[-1] or person.born > history.calm:
            continue
        missing = duties(person.role, served=served)
        missing = missing - done_since(person.notes, history.calm)
        if missing:
            yield f"{person.name} has done no {sorted(missing)} after {history.calm:.3f}"


def redis_holds_no_rest(history: History) -> Iterator[str]:
    """W1, I12: hash, index, deadlines and counters agree in the end."""
    for note in history.stage:
        if note["what"] == "contents" and note["wrong"]:
            yield f"port {note['port']}, partition {note['partition']}: {note['wrong']}"


ANSWERS = (
    there_is_something_to_judge,
    what_was_acknowledged_is_written,
    calls_end_at_their_deadline,
    nothing_dies_quietly,
    loops_go_on,
    redis_holds_no_rest,
)
