"""DB-GPT's controller API, as its workers and API servers speak it (0.8.2)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from redis_registry.http.app import SCHEMA_REF, Reply, Request, Route, invalid
from redis_registry.model import ModelInstance
from redis_registry.registry import RedisModelRegistry

__all__ = ["dbgpt_routes"]

_TRUE = Reply(b"true")
_DELETE_FIELDS = ("model_name", "host", "port", "remove_from_registry")
_PER_TURN = 500
"""Instances written before other requests get their turn."""

_boolean = TypeAdapter(bool)


def _public(instance: ModelInstance) -> dict[str, Any]:
    """DB-GPT's ten fields in its order; its clients refuse any other."""
    beat = instance.last_heartbeat
    local = beat.astimezone().replace(tzinfo=None) if beat else None
    return {
        "model_name": instance.model_name,
        "host": instance.host,
        "port": instance.port,
        "weight": instance.weight,
        "check_healthy": instance.check_healthy,
        "healthy": instance.healthy,
        "enabled": instance.enabled,
        "prompt_template": instance.prompt_template,
        "last_heartbeat": local.isoformat(timespec="microseconds") if local else None,
        "remove_from_registry": bool(instance.remove_from_registry),
    }


async def _instance(request: Request) -> ModelInstance:
    body = await request.body()
    try:
        return ModelInstance.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error, "body") from error


class _Door:
    def __init__(self, registry: RedisModelRegistry) -> None:
        self._registry = registry

    async def register(self, request: Request) -> Reply:
        await self._registry.register_instance(await _instance(request))
        return _TRUE

    async def heartbeat(self, request: Request) -> Reply:
        await self._registry.send_heartbeat(await _instance(request))
        return _TRUE

    async def deregister(self, request: Request) -> Reply:
        query = request.query()
        try:
            instance = ModelInstance.model_validate(
                {name: query[name] for name in _DELETE_FIELDS if name in query}
            )
        except ValidationError as error:
            raise invalid(error, "query") from error
        await self._registry.deregister_instance(instance)
        return _TRUE

    async def models(self, request: Request) -> Reply:
        query = request.query()
        try:
            healthy_only = _boolean.validate_python(query.get("healthy_only", "false"))
        except ValidationError as error:
            raise invalid(error, "query", "healthy_only") from error
        name = query.get("model_name")
        if name:
            found = await self._registry.get_all_instances(
                name, healthy_only=healthy_only
            )
        else:
            found = await self._registry.get_all_model_instances(
                healthy_only=healthy_only
            )
        if healthy_only:  # DB-GPT's clients choose, and know no readiness or weight
            found = [item for item in found if item.ready and item.weight != 0]
        parts: list[str] = []
        for first in range(0, len(found), _PER_TURN):
            if first:
                await asyncio.sleep(0)
            listed = [_public(item) for item in found[first : first + _PER_TURN]]
            text = json.dumps(listed, ensure_ascii=False, separators=(",", ":"))
            parts.append(text[1:-1])
        return Reply(f"[{','.join(parts)}]".encode())


def dbgpt_routes(registry: RedisModelRegistry) -> list[Route]:
    """The four routes of DB-GPT's controller; ``/api/health`` is the application's own."""
    door = _Door(registry)
    models = "/api/controller/models"
    body = ModelInstance.model_json_schema(ref_template=SCHEMA_REF)
    removing = {name: name != "remove_from_registry" for name in _DELETE_FIELDS}
    reading = {"model_name": False, "healthy_only": False}
    return [
        Route("POST", models, door.register, "Register an instance", body),
        Route("DELETE", models, door.deregister, "Deregister one", query=removing),
        Route("GET", models, door.models, "List instances", query=reading),
        Route(
            "POST",
            "/api/controller/heartbeat",
            door.heartbeat,
            "Send a heartbeat",
            body,
        ),
    ]
