"""Makes explanations of what Redis knows: pure, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote

from redis_registry.core.because import Case, span, words_of
from redis_registry.core.events import OF_OVERRIDES, Event, Kind, decode_event
from redis_registry.core.explanation import (
    Explanation,
    ModelExplanation,
    Penalties,
    Protection,
    Transition,
)
from redis_registry.core.inputs import readable
from redis_registry.errors import FormatMismatch, InvalidInstance
from redis_registry.model import EPOCH, Health, Identity, ModelInstance
from redis_registry.selection import Reason, why_not
from redis_registry.settings import RegistrySettings
from redis_registry.store.explaining import MOST_TRANSITIONS, Entry, Found, row_of
from redis_registry.store.reserving import capacity_of
from redis_registry.wire.codec import UNREADABLE, decode_rows, marked
from redis_registry.wire.in_force import means

__all__ = ["asked_for", "explained_instance", "explained_model"]

MOST_INSTANCES = 1000
"""Most instances that an explanation of a model holds."""

_HELD_OUT = (Reason.FAILURES, Reason.FLAPPING)
_UNREADABLE = (
    "its record can't be read, so no read shows it",
    "registering it again, or deregistering it with remove_from_registry",
)
_GONE = {Kind.REMOVED: "removed", Kind.FORGOTTEN: "forgotten"}


def asked_for(what: object) -> tuple[str, Identity | None]:
    """The name, and the instance, that is to be explained.

    Raises:
        InvalidInstance: It is neither, or nothing of that name can be stored.
    """
    if isinstance(what, ModelInstance):
        return what.model_name, what.identity
    if isinstance(what, Identity):
        fields = what._asdict()
        identity = ModelInstance.of(**fields).identity
        return identity.model_name, identity
    name = readable(what)
    if name is None:
        msg = f"model_name: there can't be a model of the name {what!r:.60}"
        raise InvalidInstance(msg)
    return name, None


def explained_instance(found: Found, settings: RegistrySettings) -> Explanation:
    """Why the instance that was asked for may, or may not, receive new work."""
    identity = found.identity
    assert identity is not None  # noqa: S101  as the operation was called
    known = _Knowledge(found, settings)
    row = row_of(found.rows, identity)
    member = next((m for m in known.members if m.said.identity == identity), None)
    transitions = known.transitions(member.said if member else None)
    more: dict[str, Any] = {
        "transitions": transitions,
        "penalties": known.penalties(row),
        "looked_back_to": known.looked_back_to,
    }
    if member is not None:
        reasons = _unless_shadowed(found, known.reasons())
        return known.instance(member, reasons, **more)
    because, remedy = _UNREADABLE if row else known.unknown("it", transitions)
    return Explanation(
        **identity._asdict(),
        **known.common,
        **more,
        selectable=False,
        reason=Reason.UNKNOWN,
        because=because,
        remedy=remedy,
        in_flight=found.in_flight.get(identity, 0),
    )


def explained_model(found: Found, settings: RegistrySettings) -> ModelExplanation:
    """Why instances of the model that was asked for do, or don't, receive new work."""
    known = _Knowledge(found, settings)
    transitions = known.transitions(None)
    reasons = known.reasons()
    # Those that may not come first, each group in order of registration; only these are explained.
    members = sorted(known.members, key=lambda m: reasons[m.said.identity] is None)
    shown = [known.instance(m, reasons) for m in members[:MOST_INSTANCES]]
    counts = Counter(filter(None, reasons.values()))
    able = len(members) - sum(counts.values())
    resort = not able and any(counts[reason] for reason in _HELD_OUT)
    because, remedy = _of_all(len(members), counts, resort=resort), ""
    if not shown:
        because, remedy = known.unknown("no instance of it", transitions)
    elif not able:
        wanted = Counter(one.remedy for one in shown)
        remedy = "; ".join(f"for {n}: {what}" for what, n in wanted.most_common(3))
    return ModelExplanation(
        **known.common,
        model_name=found.model_name,
        known=bool(shown),
        selectable=able,
        reasons=dict(counts.most_common()),
        protected=sum(m.seen.state is Health.PROTECTED for m in members),
        last_resort=resort,
        instances=tuple(shown),
        because=because,
        remedy=remedy,
        transitions=transitions,
        looked_back_to=known.looked_back_to,
    )


def _of_all(size: int, counts: Counter[Reason], *, resort: bool) -> str:
    out = sum(counts.values())
    parts = ", ".join(
        f"{n} {reason.replace('_', ' ')}" for reason, n in counts.most_common()
    )
    if not out:
        return (
            f"all {size} may receive work" if size > 1 else "its one may receive work"
        )
    if out < size:
        return f"{size - out} of {size} may receive work, {out} may not: {parts}"
    why = f"none of {size} may receive work: {parts}"
    if resort:
        why += "; those that are only held out are chosen all the same, for there is nobody else"
    return why


def _unless_shadowed(
    found: Found, reasons: dict[Identity, Reason | None]
) -> dict[Identity, Reason | None]:
    """An alias takes the place of the instances of its own name."""
    if found.alias is None or found.alias.alias != found.model_name:
        return reasons
    return {
        who: Reason.SHADOWED if why in (None, *_HELD_OUT) else why
        for who, why in reasons.items()
    }


class _Member(NamedTuple):
    """One of the model: its row, as it says it is, and as operators want it seen."""

    row: bytes
    said: ModelInstance
    seen: ModelInstance


class _Knowledge:
    """What was found, read as an explanation needs it."""

    def __init__(self, found: Found, settings: RegistrySettings) -> None:
        self._found = found
        self._settings = settings
        self._now_us = found.page.now_us
        self.now = EPOCH + timedelta(microseconds=self._now_us)
        self._overrides = {one.name: one for one in found.page.orders.overrides}
        apply = found.page.orders.overrides.apply
        self.members = [
            _Member(row, said, apply(said, self._now_us))
            for row in found.rows
            for said in decode_rows([row])
        ]
        self.protections = tuple(self._protections())
        self.common: dict[str, Any] = {
            "now": self.now,
            "alias": found.alias,
            "protections": self.protections,
        }
        oldest = found.looked_back_to
        self.looked_back_to = oldest and oldest.at

    def reasons(self) -> dict[Identity, Reason | None]:
        """Why each of the model may not receive work."""
        return {member.said.identity: why_not(member.seen) for member in self.members}

    def _protections(self) -> list[Protection]:
        models = {member.said.model_name for member in self.members}
        scopes = {"*", self._found.model_name} | models
        found = [
            Protection(
                by="guard",
                scope=hold.scope,
                cause=f"too many would die at once; held since {span((self.now - hold.since).total_seconds())}",
                until=hold.since + timedelta(seconds=self._settings.guard_max_hold),
            )
            for status in self._found.statuses
            for hold in status.holds
            if hold.scope in scopes
        ]
        for status in self._found.statuses:
            if status.recovering_until is None:
                continue
            cause = f"the registry itself was away ({status.recovery_cause})"
            recovery = Protection(
                by="recovery", scope="*", cause=cause, until=status.recovering_until
            )
            found.insert(0, recovery)
        return found

    def transitions(self, said: ModelInstance | None) -> tuple[Transition, ...]:
        """The last changes; decisions only where they mean the instance as it is."""
        found: list[Transition] = []
        for event in filter(None, map(_readable, self._found.entries)):
            address = None
            if event.kind not in OF_OVERRIDES:
                host, port = event.subject.split(":")[1:]
                address = f"{unquote(host)}:{port}"
            elif said is None or not (event.override and means(event.override, said)):
                continue
            found.append(Transition.of(event, self.now, address))
        return tuple(found[:MOST_TRANSITIONS])

    def unknown(self, who: str, transitions: Sequence[Transition]) -> tuple[str, str]:
        """Words for what the registry doesn't have, as far as its last changes tell."""
        no = "not " if who == "it" else ""
        last = next((one for one in transitions if one.kind in _GONE), None)
        if last is not None:
            how = f"{_GONE[last.kind]} {span(last.secs_ago)} ago"
            past = f"any more; {last.address} was {how}"
        elif self.looked_back_to is not None:
            past = "and was not of late"
        else:
            past = "and never was, as far as events are kept"
        return f"{who} is {no}registered{' ' if last else ', '}{past}", "registering it"

    def penalties(self, row: bytes | None) -> Penalties:
        """What is held against an instance; counts only of the one that was asked for."""
        rules, marks = self._settings.outliers, self._found.marks
        more: dict[str, Any] = {}
        if row:
            more["ejections_in_a_row"] = marked(row).ejections
        if marks.flaps:
            value, at = marks.flaps.split(b":")
            more["flapping"] = self._decayed(value, at, rules.flap_half_life_secs)
        if marks.calls:
            in_a_row, at, well, failed = marks.calls.split(b":")
            lost = self._decayed(failed, at, rules.window_secs)
            more |= {
                "failures_in_a_row": int(in_a_row),
                "failed": lost,
                "calls": round(lost + self._decayed(well, at, rules.window_secs), 2),
            }
        return Penalties(**more)

    def _decayed(self, value: bytes, at_us: bytes, half_life_secs: float) -> float:
        secs = max(self._now_us - int(at_us), 0) / 1_000_000
        return round(float(value) * 0.5 ** (secs / half_life_secs), 2)

    def instance(
        self,
        member: _Member,
        reasons: dict[Identity, Reason | None],
        *,
        transitions: tuple[Transition, ...] = (),
        penalties: Penalties | None = None,
        looked_back_to: datetime | None = None,
    ) -> Explanation:
        """What explains one that is registered; ``reasons`` are those of the whole model."""
        row, said, seen = member
        reason = reasons[said.identity]
        penalties = penalties or self.penalties(row)
        ejected = [one.cause for one in transitions if one.kind is Kind.EJECTED][:1]
        case = Case(
            seen=seen,
            said=said,
            marked=marked(row),
            overrides=[self._overrides[name] for name in seen.overrides],
            now=self.now,
            ejected=f" ({ejected[0]})" if ejected else "",
            flapping=penalties.flapping,
        )
        resort = reason in _HELD_OUT and None not in reasons.values()
        because, remedy = self._words(case, reason, resort=resort)
        in_flight = self._found.in_flight.get(said.identity, 0)
        capacity = capacity_of(seen)
        if reason is None and capacity is not None and in_flight >= capacity:
            because += (
                f"; but it is full: {in_flight} of {capacity} places are reserved"
            )
        common: dict[str, Any] = {
            **self.common,
            "protections": tuple(self._protecting(said)),
        }
        return Explanation(
            **said.identity._asdict(),
            **common,
            transitions=transitions,
            penalties=penalties,
            looked_back_to=looked_back_to,
            selectable=reason is None,
            reason=reason,
            last_resort=resort,
            because=because,
            remedy=remedy,
            instance=seen,
            beat_secs_ago=case.beat_secs_ago,
            deadline_in_secs=case.deadline_in_secs,
            overrides=tuple(case.overrides),
            in_flight=in_flight,
            capacity=capacity,
        )

    def _words(
        self, case: Case, reason: Reason | None, *, resort: bool
    ) -> tuple[str, str]:
        alias = self._found.alias
        if reason is Reason.SHADOWED and alias is not None:
            because = (
                f"{alias.author} has made its model's name an alias of {alias.model_name!r} "
                f"{case.ago(alias.at)}, and reads of it are answered with that model"
            )
            return because, f"remove_alias({alias.alias!r})"
        because, remedy = words_of(case, reason)
        if resort:
            because += (
                "; it is chosen all the same, for nobody else of its model can work"
            )
        if reason is None and case.said.state is Health.PROTECTED:
            because += f" ({'; '.join(self._protected_by(case))})"
        return because, remedy

    def _protecting(self, said: ModelInstance) -> list[Protection]:
        return [one for one in self.protections if one.scope in ("*", said.model_name)]

    def _protected_by(self, case: Case) -> list[str]:
        return [
            f"{one.by}: {one.cause}, at most {span(-case.past_secs(one.until))} more"
            for one in self._protecting(case.said)
        ] or ["recovery: the registry itself was away"]


def _readable(entry: Entry) -> Event | None:
    """An event; ``None``: it tells of a record that can't be read."""
    try:
        return _event(entry)
    except FormatMismatch:
        raise
    except UNREADABLE:
        return None


def _event(entry: Entry) -> Event:
    return decode_event(
        b"%d-0" % entry.revision,
        {entry.head: entry.about},
        partition=entry.partition,
    )
