"""Asks the controllers over HTTP, as any reader would, and compares with what is true."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection, HTTPException

from pydantic import BaseModel, TypeAdapter

from examples.pause import pause
from examples.stage import Controller, Worker
from redis_registry import ModelInstance

__all__ = ["Answer", "Condition", "Watcher", "Wrong", "ask", "summary"]

POLL_SECS = 0.1
PATIENCE_SECS = 5.0

_instances = TypeAdapter(list[ModelInstance])


class _Partition(BaseModel):
    now: datetime
    unhealthy: int
    lease_holder: str | None
    recovering_until: datetime | None


class _Status(BaseModel):
    name: str
    partitions: list[_Partition]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one controller says at one moment.

    Attributes:
        instances: By port.
        now: Redis's clock, read after the instances.
        flipped: How many instances a sweep or a goodbye has made unhealthy.
        leads: Whether this controller holds the lease.
        recovering: Whether the registry gives everybody time, having been away itself.
    """

    instances: dict[int, ModelInstance]
    now: datetime
    flipped: int
    leads: bool
    recovering: bool

    def healthy(self, worker: Worker) -> bool:
        """Whether a worker is listed as healthy."""
        instance = self.instances.get(worker.port)
        return instance is not None and bool(instance.healthy)

    def silence(self, worker: Worker) -> float:
        """Seconds since a worker's last heartbeat, by Redis's clock."""
        instance = self.instances.get(worker.port)
        beat = instance.last_heartbeat if instance else None
        return (self.now - beat).total_seconds() if beat else 0.0

    @property
    def states(self) -> dict[int, bool]:
        """By port: listed as healthy."""
        return {port: bool(item.healthy) for port, item in self.instances.items()}


Condition = Callable[[Sequence[Answer]], bool]


def _get(controller: Controller, path: str) -> bytes:
    link = HTTPConnection("127.0.0.1", controller.port, timeout=PATIENCE_SECS)
    try:
        link.request("GET", path)
        reply = link.getresponse()
        body = reply.read()
    finally:
        link.close()
    if reply.status != 200:  # noqa: PLR2004
        raise HTTPException(f"{reply.status} {body.decode()}")
    return body


def ask(controller: Controller) -> Answer:
    """Ask one controller for everything.

    Raises:
        OSError: It can't be reached.
        HTTPException: It does not do it.
    """
    instances = _instances.validate_json(_get(controller, "/api/controller/models"))
    status = _Status.model_validate_json(_get(controller, "/api/status"))
    partition = status.partitions[0]
    return Answer(
        instances={instance.port: instance for instance in instances},
        now=partition.now,
        flipped=partition.unhealthy,
        leads=partition.lease_holder == status.name,
        recovering=partition.recovering_until is not None,
    )


Wrong = tuple[float, str]
"""When, in seconds since the start, an answer was wrong, and how."""


def summary(wrong: Sequence[Wrong]) -> str:
    """What was wrong how often, for a person; nothing when nothing was."""
    first = {what: secs for secs, what in reversed(wrong)}
    counts = Counter(what for _, what in wrong)
    return "; ".join(
        f"{what} at {first[what]:.1f} s, {count} times in all"
        for what, count in counts.items()
    )


class Watcher:
    """Polls all controllers that run, and notes every answer that isn't true.

    Attributes:
        up: Controllers that must answer.
        alive: Workers that every answer must show healthy.
        answers: The newest ones, by controller.
        polls: How many answers were compared so far.
        wrong: What was wrong with them.
        recovering: Whether a recovery was seen since :meth:`begin`.
    """

    def __init__(self) -> None:
        self.up: list[Controller] = []
        self.alive: set[Worker] = set()
        self.answers: dict[Controller, Answer] = {}
        self.polls = 0
        self.wrong: list[Wrong] = []
        self.recovering = False
        self._start = time.monotonic()
        self._mark = (0, 0)

    @property
    def seen(self) -> Sequence[Answer]:
        """The newest answer of each controller."""
        return list(self.answers.values())

    def __str__(self) -> str:
        """The newest answers, for a person."""
        told: list[str] = []
        for controller, answer in self.answers.items():
            states = ", ".join(
                f":{port} {'healthy' if healthy else 'unhealthy'}"
                for port, healthy in answer.states.items()
            )
            role = "leads" if answer.leads else "follows"
            told.append(f"{controller.letter} ({role}) says {states or 'nobody'}")
        return "; ".join(told) or "no answer"

    def begin(self) -> None:
        """A new act: count from here."""
        self._mark = (self.polls, len(self.wrong))
        self.recovering = False

    @property
    def act(self) -> tuple[int, list[Wrong]]:
        """Answers compared since :meth:`begin`, and what was wrong with them."""
        polls, wrong = self._mark
        return self.polls - polls, self.wrong[wrong:]

    def poll(self) -> None:
        """Ask every controller that is up, once."""
        self.answers = {}
        for controller in self.up:
            self.polls += 1
            try:
                answer = ask(controller)
            except (OSError, HTTPException, ValueError) as error:
                self._wrong(f"{controller.name} gave no answer: {error!r}")
                continue
            self.answers[controller] = answer
            self.recovering |= answer.recovering
            for worker in self.alive:
                if not answer.healthy(worker):
                    self._wrong(f"{controller.name} shows {worker.name} dead")

    def _wrong(self, what: str) -> None:
        self.wrong.append((time.monotonic() - self._start, what))

    def until(self, condition: Condition, within_secs: float) -> bool:
        """Poll until all controllers answer and the answers meet a condition in time."""
        end = time.monotonic() + within_secs
        while True:
            self.poll()
            if len(self.answers) == len(self.up) and condition(self.seen):
                return True
            if time.monotonic() > end:
                return False
            pause(POLL_SECS)

    def watch(self, secs: float) -> None:
        """Only poll, for a while."""
        end = time.monotonic() + secs
        while time.monotonic() < end:
            self.poll()
            pause(POLL_SECS)
