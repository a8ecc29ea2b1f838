"""What a bystander knows who saw every call and its answer: the measure for what Redis holds.

It is told in the words of the promises (docs/explanation/promises.md), not of the scripts: when
an instance was last heard, what was granted to it, who holds which term.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "History",
    "Known",
    "Recovery",
    "Times",
    "arrive",
    "heard",
    "standing",
    "unswept",
    "verdict",
]


class Times(NamedTuple):
    """Lengths in µs.

    Attributes:
        timeout: Silence after which an instance is dead.
        lease: Of a checker's term.
        gap: Absence of calls, or of sweeps, that counts as an outage.
        forget: After which the unhealthy go.
    """

    timeout: int
    lease: int
    gap: int
    forget: int


class Known(NamedTuple):
    """What is known of one identity.

    Attributes:
        life: Its incarnation; empty: it has none.
        health: ``1`` healthy, ``x`` expired, ``d`` deregistered, ``g`` said goodbye.
        deadline: A timeout after it was last heard.
        granted: Outages of the registry give it at least until then; 0: nothing.
        bound: No chain of outages protects it beyond this; 0: no outage does.
        down: Since when it is not healthy.
        timeout: Its own, in µs.
    """

    life: str
    health: str
    deadline: int
    granted: int = 0
    bound: int = 0
    down: int = 0
    timeout: int = 0


class Recovery(NamedTuple):
    """The wait after an outage: when it began, and its end as it stands now."""

    first: int
    ends: int


class Held(NamedTuple):
    """The newest term: who, its token, the server process that granted it, its end."""

    holder: str
    token: int
    run: int
    until: int


class History(NamedTuple):
    """All that matters of what happened so far.

    Attributes:
        known: By identity.
        called: When the registry was last called.
        run: The server process that took that call.
        swept: When a sweep last ran; 0: never.
        recovery: The newest one, until it ends.
        term: The newest term.
    """

    known: tuple[Known | None, ...]
    called: int
    run: int
    swept: int = 0
    recovery: Recovery | None = None
    term: Held | None = None

    def with_known(self, place: int, known: Known | None) -> History:
        """With something new of one identity."""
        all_known = list(self.known)
        all_known[place] = known
        return self._replace(known=tuple(all_known))


def _granted(
    history: History, since: int, now: int, times: Times, *, hard: bool
) -> History:
    """An outage from ``since`` to ``now`` gives everybody who lived before it time to beat again.

    A restart during a recovery gives a full timeout also to those who lived by its grace. A mere
    silence during a recovery stretches that one by its own length, and never beyond a timeout
    more than it had; one that is noticed after its end gives nothing to those.
    """
    first, ends = now, now + times.timeout
    recovery = history.recovery
    stretches = not hard and recovery is not None and recovery.ends > now
    if stretches:
        assert recovery is not None
        first = recovery.first
        ends = min(recovery.ends + now - since, first + 2 * times.timeout, ends)
    found = list(history.known)
    for place, known in enumerate(found):
        if known is None or known.health != "1":
            continue
        ends_here = ends - times.timeout + known.timeout
        if known.deadline > since or (hard and recovery and known.granted > since):
            found[place] = known._replace(
                granted=max(known.granted, ends_here),
                bound=max(known.bound, first + times.timeout + known.timeout),
            )
        elif stretches and known.granted > since:
            longer = min(ends_here, known.bound)
            found[place] = known._replace(granted=max(known.granted, longer))
    return history._replace(known=tuple(found), recovery=Recovery(first, ends))


def arrive(history: History, now: int, run: int, times: Times) -> History:
    """A call arrives: was the registry away before it?"""
    if run != history.run:
        history = _granted(history, history.called, now, times, hard=True)
    elif now - history.called > times.gap:
        history = _granted(history, history.called, now, times, hard=False)
    if history.recovery is not None and history.recovery.ends <= now:
        history = history._replace(recovery=None)
    return history._replace(called=now, run=run)


def unswept(history: History, now: int, times: Times) -> History:
    """A sweep begins: had nobody swept before it?"""
    recovering = history.recovery is not None and history.recovery.ends > now
    if history.swept and now - history.swept > times.gap and not recovering:
        history = _granted(history, history.swept, now, times, hard=False)
    return history._replace(swept=now)


def standing(life: str, known: Known) -> str:
    """How a call of a life stands to what is known: current, older or newer."""
    if not life or (life == known.life and known.health != "g"):
        return "current"
    return "newer" if life > known.life else "older"


def verdict(kind: str, life: str, known: Known | None) -> str:
    """How a worker's call must be answered: accepted, missed, unknown, nothing or superseded."""
    if known is None:
        given = {"beat": "missed", "revive": "unknown"}
        return given.get(
            kind, "nothing" if kind in {"goodbye", "remove"} else "accepted"
        )
    if kind == "beat":
        fits = known.health == "1" and known.life == life
        return "accepted" if fits else "missed"
    stands = standing(life, known)
    if kind in {"goodbye", "remove"}:
        if life and life != known.life:
            return "nothing" if stands == "newer" else "superseded"
        health = "g" if life else "d"
        done = known.health == health or (known.health != "1" and health == "d")
        return "nothing" if kind == "goodbye" and done else "accepted"
    if stands == "older":
        return "superseded"
    return "unknown" if kind == "revive" and stands == "newer" else "accepted"


def heard(
    kind: str, life: str, known: Known | None, now: int, timeout: int
) -> Known | None:
    """What is known after a worker's call was accepted."""
    if kind == "remove":
        return None
    if kind == "goodbye":
        assert known is not None
        health = "g" if life else "d"
        return Known(known.life, health, known.deadline, down=now, timeout=timeout)
    life = life or (known.life if known else "")
    return Known(life, "1", now + timeout, timeout=timeout)
