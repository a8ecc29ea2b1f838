"""The native worker API's bodies, as both ends of ``/v1/workers`` speak them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from redis_registry.model import (
    MAX_REASON,
    MAX_TIMEOUT_SECS,
    Beat,
    Load,
    ModelInstance,
    Readiness,
)

__all__ = [
    "IDENTIFYING",
    "MAX_BEATS",
    "PATH",
    "Answer",
    "Answers",
    "Beating",
    "Beats",
    "Leaving",
    "Readying",
    "Registering",
]

PATH = "/v1/workers"

MAX_BEATS = 500
"""Heartbeats that one request may carry."""

IDENTIFYING = {
    "model_name",
    "host",
    "port",
    "incarnation",
    "heartbeat_timeout_secs",
}
"""Fields of an instance that every call but ``register`` looks at."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    patience_secs: Annotated[float, Field(gt=0, le=60)] | None = None
    """How long the caller waits: what isn't done by then is not begun any more."""


class Registering(_Body):
    """``register``: the instance with all it has; ``order``: see ``Writers.ready``."""

    instance: ModelInstance
    order: Annotated[int, Field(ge=0)] = 0


class Readying(_Body):
    """``ready``, ``drain``: of the instance only what identifies it is looked at."""

    instance: ModelInstance
    readiness: Readiness = Readiness.READY
    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""
    order: Annotated[int, Field(ge=0)] = 0


class Leaving(_Body):
    """``deregister``: it stays listed as unhealthy unless it is to be removed."""

    instance: ModelInstance
    remove: bool = False


class Beating(BaseModel):
    """One heartbeat; of the instance only what identifies it is looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    instance: ModelInstance
    load: Load | None = None


class Beats(_Body):
    """``heartbeats``: of many instances at once."""

    beats: Annotated[list[Beating], Field(max_length=MAX_BEATS)]


class Answer(BaseModel):
    """What became of a call about one instance.

    Attributes:
        answer: ``taken``, or ``reregister`` where the registry has no such instance.
        incarnation: The life it was done for; a new one where ``register`` brought none.
        readiness: What is on record now; not always what was asked for: a controller that
            can't connect to an instance keeps it from being ready, and says so in ``reason``.
        reason: See there.
        boot: With ``register``; see :class:`Answers`.
    """

    answer: Beat
    incarnation: str | None = None
    readiness: Readiness | None = None
    reason: str = ""
    boot: str | None = None


class Answers(BaseModel):
    """What became of many heartbeats.

    Attributes:
        answers: One for each, in order.
        advised_interval_secs: Please beat this seldom; ``None``: as you like.
        boot: Tells one process that answers from another, which can't know whether Redis has lost
            what was said before: who meets another boot says all again. ``None``: a release that
            does not tell.
    """

    answers: list[Beat]
    advised_interval_secs: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECS)] | None = (
        None
    )
    boot: str | None = None
