"""Each reason in words: why exactly, and what would change it. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from redis_registry.model import Health, ModelInstance
from redis_registry.selection import Reason
from redis_registry.wire.codec import Marked
from redis_registry.wire.overrides import Override

__all__ = ["Case", "Words", "span", "words_of"]

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"))

Words = tuple[str, str]
"""Why, and what would change it."""


def span(secs: float) -> str:
    """A duration in the unit a person would choose; never negative."""
    for unit, name in _UNITS:
        if secs >= 2 * unit:
            return f"{secs / unit:.0f} {name}"
    return f"{max(secs, 0.0):.1f} s"


@dataclass(frozen=True)
class Case:
    """An instance, and what is known of it.

    Attributes:
        seen: As operators want it seen.
        said: As the worker and the deadlines say it.
        marked: What its row says besides.
        overrides: In force on it, the one that wins last.
        now: Redis's clock.
        ejected: Why calls failed, where the event that tells is at hand.
        flapping: Its penalty, where it is known.
    """

    seen: ModelInstance
    said: ModelInstance
    marked: Marked
    overrides: Sequence[Override]
    now: datetime
    ejected: str = ""
    flapping: float = 0.0

    def ago(self, then: datetime | None) -> str:
        """How long ago something was."""
        return "?" if then is None else f"{span(self.past_secs(then))} ago"

    def past_secs(self, then: datetime) -> float:
        """How long ago, in seconds; negative: it lies ahead."""
        return (self.now - then).total_seconds()

    @property
    def beat_secs_ago(self) -> float:
        """Age of its last heartbeat."""
        then = self.said.last_heartbeat
        return 0.0 if then is None else max(self.past_secs(then), 0.0)

    @property
    def timeout_secs(self) -> float:
        """The silence that makes it dead."""
        return self.said.heartbeat_timeout_secs or 0.0

    @property
    def deadline_in_secs(self) -> float | None:
        """When its deadline is; negative: it has passed; ``None``: it has none."""
        if self.marked.health != "1" or not self.said.check_healthy:
            return None
        return self.timeout_secs - self.beat_secs_ago

    def deciding(self, field: str) -> Override | None:
        """The override that says what a field is; ``None``: none does."""
        found = [item for item in self.overrides if item.says.get(field) is not None]
        return found[-1] if found else None

    def decided(self, override: Override, what: str) -> Words:
        """Words for what an operator wanted."""
        why = (
            f"{override.author} {what} {self.ago(override.at)}: {override.reason} "
            f"(override {override.name})"
        )
        remedy = f"clear_override({override.name!r})"
        if override.expires is not None:
            left = span(-self.past_secs(override.expires))
            remedy += f", or its end in {left}"
        return why, remedy

    def own_word(self) -> str:
        """Since when it is what it says, and why it says so."""
        since = (
            f" for {span(self.past_secs(self.said.since))}" if self.said.since else ""
        )
        return since + (f": {self.said.reason}" if self.said.reason else "")


def _forced(case: Case) -> Words:
    override = case.deciding("healthy")
    if override is None:  # its end and the row are of two moments
        return "an operator has forced it unhealthy", "overrides() tells which one"
    return case.decided(override, "forced it unhealthy")


def _unhealthy(case: Case) -> Words:
    gone, beat = case.ago(case.marked.since), span(case.beat_secs_ago)
    timeout = f"{case.timeout_secs:g}"
    if case.marked.health == "g":
        return (
            f"its worker said goodbye {gone}",
            "a new life of its worker at this address; this one is over",
        )
    if case.marked.health == "d":
        return (
            f"it was deregistered {gone}",
            "its next heartbeat, or registering it again",
        )
    return (
        f"its last heartbeat was {beat} ago, its timeout is {timeout} s, and a sweep flipped it {gone}",
        "its next heartbeat",
    )


def _overdue(case: Case) -> Words:
    late = span(case.beat_secs_ago - case.timeout_secs)
    why = (
        f"its deadline passed {late} ago (no heartbeat within its timeout of "
        f"{case.timeout_secs:g} s), and no sweep has flipped it yet"
    )
    return why, "its next heartbeat"


def _disabled(case: Case) -> Words:
    if override := case.deciding("enabled"):
        return case.decided(override, "disabled it")
    return (
        "it registered as disabled",
        "a new incarnation that registers as enabled, or override(enabled=True)",
    )


def _draining(case: Case) -> Words:
    override = case.deciding("draining")
    if override is not None and override.draining:
        return case.decided(override, "set it draining")
    return f"it has been draining{case.own_word()}", "ready() of its worker"


def _failed(case: Case) -> Words:
    return (
        f"it was not ready within its startup budget, and has failed{case.own_word()}",
        "a new life of its worker, or its ready()",
    )


def _starting(case: Case) -> Words:
    return f"it has been starting{case.own_word()}", "ready() of its worker"


def _wedged(case: Case) -> Words:
    return (
        f"its heartbeats go on, but its work has been stuck{case.own_word()}",
        "progress of its work, and ready() of its worker",
    )


def _not_ready(case: Case) -> Words:
    return f"it has said not to be ready{case.own_word()}", "ready() of its worker"


def _no_weight(case: Case) -> Words:
    if override := case.deciding("weight"):
        return case.decided(override, "set its weight to 0")
    return (
        "it registered with weight 0",
        "registering again with a weight above 0, or override(weight=1)",
    )


def _failures(case: Case) -> Words:
    held = case.seen.held_out
    why = f"calls to it failed{case.ejected}"
    if held is None or held.half_open:
        return (
            f"{why}; its time out is over, and no probe has succeeded since",
            "one call to it that succeeds: the next select may send it as a probe",
        )
    left = f"{span(-case.past_secs(held.until))}"
    if case.marked.probing:
        return (
            f"{why}; its one probe is under way",
            f"the success of that probe; another may be claimed in {left}",
        )
    times = case.marked.ejections
    row = f", {times} times in a row" if times > 1 else ""
    return (
        f"{why}: it is held out{row}, for {left} more",
        f"one call to it that succeeds, as a probe in {left} at the earliest",
    )


def _flapping(case: Case) -> Words:
    held = case.seen.held_out
    left = span(-case.past_secs(held.until)) if held else "0 s"
    penalty = f" (penalty {case.flapping:.1f})" if case.flapping else ""
    return (
        f"it came back from the dead too often{penalty}: it is held out for {left} more",
        f"staying alive: it comes back by itself in {left}",
    )


_WORDS: dict[Reason, Callable[[Case], Words]] = {
    Reason.FORCED: _forced,
    Reason.UNHEALTHY: _unhealthy,
    Reason.OVERDUE: _overdue,
    Reason.DISABLED: _disabled,
    Reason.DRAINING: _draining,
    Reason.FAILED: _failed,
    Reason.STARTING: _starting,
    Reason.WEDGED: _wedged,
    Reason.NOT_READY: _not_ready,
    Reason.NO_WEIGHT: _no_weight,
    Reason.FAILURES: _failures,
    Reason.FLAPPING: _flapping,
}


def words_of(case: Case, reason: Reason | None) -> Words:
    """Why an instance is as it is, and what would change it.

    Args:
        case: The instance.
        reason: What :func:`~redis_registry.selection.why_not` says of it.
    """
    if reason is not None:
        return _WORDS[reason](case)
    beat = f"its last heartbeat was {span(case.beat_secs_ago)} ago"
    override = case.deciding("healthy")
    if override is not None and override.healthy and not case.said.healthy:
        why, remedy = case.decided(override, "forced it healthy")
        return f"it may receive work: {why}; {beat}", remedy
    if not case.said.check_healthy:
        beat += ", and silence never makes it unhealthy"
    elif case.said.state is Health.PROTECTED:
        late = span(case.beat_secs_ago - case.timeout_secs)
        beat = f"its deadline passed {late} ago, but it is not judged by that now"
    else:
        left = span(case.timeout_secs - case.beat_secs_ago)
        beat += f", its deadline is in {left}"
    return f"it may receive work: {beat}", ""
