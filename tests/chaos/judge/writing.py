"""What was written: R1, W2, W5, or I3, I4, I5 and I8 of the fault plan."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from redis_registry import Kind, ModelInstance
from tests.chaos.judge.history import GONE, Entry, History

__all__ = ["WRITING"]

_Key = tuple[int, str]
"""A partition and an epoch."""


def revisions_name_one_event(history: History) -> Iterator[str]:
    """R1: no epoch and revision is ever used twice."""
    for partition, chain in history.chains.items():
        for entry in chain.twice:
            first = chain.epochs[entry.epoch].get(entry.rev)
            yield (
                f"partition {partition}, epoch {entry.epoch}: revision {entry.rev} is "
                f"{entry.event.kind} of {entry.event.subject} and {first and first.event.kind} "
                f"of {first and first.event.subject}"
            )


def revisions_have_no_gaps(history: History) -> Iterator[str]:
    """R1: within an epoch each revision follows the one before."""
    for partition, chain in history.chains.items():
        for epoch, entries in chain.epochs.items():
            numbers = sorted(entries)
            whole = range(numbers[0], numbers[-1] + 1)
            if missing := sorted(set(whole) - entries.keys()):
                yield f"partition {partition}, epoch {epoch}: no revisions {missing[:10]}"


def epochs_go_on(history: History) -> Iterator[str]:
    """R1: an epoch begins with the first revision, or goes on from one that was written."""
    for partition, chain in history.chains.items():
        for epoch in chain.order:
            if chain.first[epoch] > 1 and chain.before(epoch) is None:
                yield (
                    f"partition {partition}: epoch {epoch} begins with {chain.first[epoch]}; "
                    "no epoch has the revision before"
                )


def each_event_is_a_change(history: History) -> Iterator[str]:
    """R1: exactly one event for each change: nobody dies twice, comes back alive, or stays the same."""
    for chain in history.chains.values():
        for entry, states in chain.folded():
            if states is not None and entry.about_instance:
                wrong = _no_change(entry, states.get(entry.event.subject))
                if wrong:
                    yield f"{entry.event.kind} {entry.event.subject} (revision {entry.rev}): {wrong}"


def _no_change(entry: Entry, before: ModelInstance | None) -> str:
    kind, now = entry.event.kind, entry.event.instance
    if kind is Kind.UNHEALTHY and not (before and before.healthy):
        return "it was not healthy"
    if kind is Kind.HEALTHY and (before is None or before.healthy):
        return "it was healthy, or unknown"
    if kind in GONE and before is None:
        return "there was none"
    if kind is Kind.FORGOTTEN and before and before.healthy:
        return "it was healthy"
    if before and now and _lasting(before) == _lasting(now):
        return "nothing has changed"
    if before and now and _older(now, before):
        return f"life {now.incarnation} after {before.incarnation}"
    return ""


def _lasting(item: ModelInstance) -> dict[str, object]:
    return item.model_dump(
        exclude={"last_heartbeat", "load", "state", "since", "revision"}
    )


def _older(now: ModelInstance, before: ModelInstance) -> bool:
    """Whether a newer life was overwritten by an older one."""
    return bool(
        now.incarnation and before.incarnation and now.incarnation < before.incarnation
    )


def _terms(history: History) -> dict[_Key, list[tuple[int, str, Entry]]]:
    """The terms of each epoch: token, holder, and the entry that began it."""
    found: dict[_Key, list[tuple[int, str, Entry]]] = defaultdict(list)
    for entry in history.entries():
        if entry.event.kind is Kind.LEASE:
            token = int(entry.event.cause.rsplit(" ", 1)[1])
            found[entry.partition, entry.epoch].append(
                (token, entry.event.subject, entry)
            )
    return found


def tokens_grow(history: History) -> Iterator[str]:
    """W5: each term of an epoch has a greater token than the one before."""
    for (partition, epoch), terms in _terms(history).items():
        for (before, _, _), (token, holder, entry) in itertools.pairwise(terms):
            if token <= before:
                yield (
                    f"partition {partition}, epoch {epoch}: {holder} got token {token} after "
                    f"{before} (revision {entry.rev})"
                )


def a_token_has_one_holder(history: History) -> Iterator[str]:
    """W5: nobody else is ever told the same token of the same epoch."""
    holders: dict[tuple[int, str, int], str] = {}
    for person, note in history.notes("call"):
        if note["script"] == "sweep" and note.get("token"):
            key = (note["partition"], note["epoch"], note["token"])
            first = holders.setdefault(key, note["holder"])
            if first != note["holder"]:
                yield f"{key}: {first} and {note['holder']} ({person.name})"


def older_terms_are_refused(history: History) -> Iterator[str]:
    """W5: after a term has begun, no write of an earlier one is taken."""
    terms = _terms(history)
    for person, note in history.notes("call"):
        token = note.get("token")
        if not token or "error" in note:
            continue
        for newer, holder, entry in terms.get((note["partition"], note["epoch"]), ()):
            if newer > token and entry.at <= note["begun"]:
                yield (
                    f"{note['script']} of {person.name} with token {token} was taken at "
                    f"{note['begun']:.3f}; token {newer} of {holder} was there at {entry.at:.3f}"
                )
                break


def older_epochs_are_refused(history: History) -> Iterator[str]:
    """W5: after an epoch has begun, no write of a term of an earlier one is taken."""
    if history.topology != "standalone":
        return  # a server that was replaced may still answer for itself, for a moment
    for person, note in history.notes("call"):
        chain = history.chains.get(note["partition"])
        if not note.get("token") or "error" in note or chain is None:
            continue
        begun = [
            epoch
            for epoch, entries in chain.epochs.items()
            if entries[chain.first[epoch]].at <= note["begun"]
        ]
        if note["epoch"] in begun[:-1]:
            yield (
                f"{note['script']} of {person.name} with a term of epoch {note['epoch']} was "
                f"taken at {note['begun']:.3f}; epoch {begun[-1]} had begun"
            )


WRITING = (
    revisions_name_one_event,
    revisions_have_no_gaps,
    epochs_go_on,
    each_event_is_a_change,
    tokens_grow,
    a_token_has_one_holder,
    older_terms_are_refused,
    older_epochs_are_refused,
)
