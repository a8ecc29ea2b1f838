"""The native worker API: what ``announce`` says, by HTTP, for workers that don't reach Redis."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from redis_registry.errors import Superseded
from redis_registry.http.app import SCHEMA_REF, Reply, Request, Route, invalid
from redis_registry.model import (
    MAX_REASON,
    Beat,
    Load,
    ModelInstance,
    Readiness,
    incarnation_after,
    new_incarnation,
)
from redis_registry.registry import RedisModelRegistry
from redis_registry.wire.workers import (
    PATH,
    Answer,
    Answers,
    Beats,
    Leaving,
    Readying,
    Registering,
)

__all__ = ["body_of", "reply_of", "worker_routes"]

B = TypeVar("B", bound=BaseModel)

_log = logging.getLogger(__name__)


async def body_of(request: Request, kind: type[B]) -> B:
    """The body as ``kind``.

    Raises:
        HTTPError: It is not acceptable (422).
    """
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error, "body") from error


def reply_of(answer: BaseModel) -> Reply:
    """An answer as JSON, without what is not said."""
    return Reply(answer.model_dump_json(exclude_none=True).encode())


class _Workers:
    def __init__(self, registry: RedisModelRegistry) -> None:
        self._registry = registry
        self._boot = secrets.token_hex(4)

    async def register(self, request: Request) -> Reply:
        """One without an incarnation is given one."""
        asked = await body_of(request, Registering)
        instance = asked.instance
        readiness, reason = await self._seen(
            instance, instance.readiness, instance.reason or ""
        )
        instance = instance.model_copy(
            update={
                "incarnation": instance.incarnation or new_incarnation(),
                "readiness": readiness,
                "reason": reason or None,
            }
        )
        try:
            await self._register(instance, asked)
        except Superseded as error:
            name = error.by and incarnation_after(error.by)
            if asked.instance.incarnation or not name:
                raise
            # The name was made here, and the host that made the one on record is ahead.
            instance = instance.model_copy(update={"incarnation": name})
            await self._register(instance, asked)
        return reply_of(
            Answer(
                answer=Beat.TAKEN,
                incarnation=instance.incarnation,
                readiness=readiness,
                reason=reason,
                boot=self._boot,
            )
        )

    async def _register(self, instance: ModelInstance, asked: Registering) -> None:
        await self._registry.register_instance(
            instance, order=asked.order, deadline_secs=asked.patience_secs
        )

    async def ready(self, request: Request) -> Reply:
        """Any readiness; ``ready`` where none is said."""
        return await self._say(await body_of(request, Readying))

    async def drain(self, request: Request) -> Reply:
        """As ``ready`` with the readiness ``draining``."""
        asked = await body_of(request, Readying)
        return await self._say(
            asked.model_copy(update={"readiness": Readiness.DRAINING})
        )

    async def _say(self, asked: Readying) -> Reply:
        readiness, reason = await self._seen(
            asked.instance, asked.readiness, asked.reason
        )
        known = await self._registry.set_readiness(
            asked.instance,
            readiness,
            reason,
            order=asked.order,
            deadline_secs=asked.patience_secs,
        )
        if not known:
            return reply_of(Answer(answer=Beat.REREGISTER))
        return reply_of(Answer(answer=Beat.TAKEN, readiness=readiness, reason=reason))

    async def heartbeats(self, request: Request) -> Reply:
        """In one call to Redis, or two: those with a load, and those without."""
        asked = await body_of(request, Beats)
        answers = [Beat.TAKEN] * len(asked.beats)
        for loaded in (True, False):
            places = [
                place
                for place, beat in enumerate(asked.beats)
                if (beat.load is not None) is loaded
            ]
            if not places:
                continue
            loads = [asked.beats[place].load or Load() for place in places]
            beats = await self._registry.send_heartbeats(
                [asked.beats[place].instance for place in places],
                loads if loaded else (),
                whole=False,
                deadline_secs=asked.patience_secs,
            )
            for place, beat in zip(places, beats, strict=True):
                answers[place] = beat
        advised = self._registry.settings.advised_interval_secs
        return reply_of(
            Answers(answers=answers, advised_interval_secs=advised, boot=self._boot)
        )

    async def deregister(self, request: Request) -> Reply:
        """It stays listed as unhealthy, or is removed where that is asked."""
        asked = await body_of(request, Leaving)
        leaving = asked.instance.model_copy(
            update={"remove_from_registry": asked.remove}
        )
        await self._registry.deregister_instance(
            leaving, deadline_secs=asked.patience_secs
        )
        return reply_of(Answer(answer=Beat.TAKEN))

    async def _seen(
        self, instance: ModelInstance, readiness: Readiness, reason: str
    ) -> tuple[Readiness, str]:
        """What may be said of it: nobody is ready whom we can't connect to, if we are to check."""
        secs = self._registry.settings.reverse_check_secs
        if secs is None or readiness is not Readiness.READY:
            return readiness, reason
        why = await _unreachable(instance.host, instance.port, secs)
        if why is None:
            return readiness, reason
        told = f"no connection from {self._registry.name} to {instance.host}:{instance.port}: {why}"
        _log.warning(
            "an instance that can't be connected to is kept from being ready",
            extra={"instance": str(instance.identity), "why": why},
        )
        return Readiness.NOT_READY, told[:MAX_REASON]


async def _unreachable(host: str, port: int, secs: float) -> str | None:
    """Why a connection can't be had; ``None``: it can."""
    try:
        async with asyncio.timeout(secs):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"nothing within {secs:g} s"
    except (OSError, UnicodeError) as error:
        return str(error)
    writer.close()
    return None


def worker_routes(registry: RedisModelRegistry) -> list[Route]:
    """``/v1/workers/…``: register, heartbeats, ready, drain, deregister."""
    workers = _Workers(registry)

    def post(
        name: str, handler: Any, summary: str, body: type[BaseModel], reply: Any
    ) -> Route:
        return Route(
            "POST",
            f"{PATH}/{name}",
            handler,
            summary,
            body.model_json_schema(ref_template=SCHEMA_REF),
            reply=reply.model_json_schema(ref_template=SCHEMA_REF),
        )

    return [
        post(
            "register",
            workers.register,
            "Register a new life of an instance, or register it again",
            Registering,
            Answer,
        ),
        post(
            "heartbeats",
            workers.heartbeats,
            "Say that instances are alive, and how loaded",
            Beats,
            Answers,
        ),
        post(
            "ready",
            workers.ready,
            "Say that an instance wants work, or any other readiness",
            Readying,
            Answer,
        ),
        post(
            "drain",
            workers.drain,
            "Say that it finishes what it has and takes nothing new",
            Readying,
            Answer,
        ),
        post("deregister", workers.deregister, "Say goodbye", Leaving, Answer),
    ]
