"""What a controller replica tells of itself: health and status."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from redis_registry.errors import RegistryError
from redis_registry.http.app import Reply, Request, Route
from redis_registry.registry import RedisModelRegistry

__all__ = ["api_routes"]

HEALTH_SECS = 2.0
"""A health check answers within this time, whatever Redis does."""

_OK = Reply(b'{"status":"ok"}')


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, set):
        return sorted(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


def _fields(item: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(item)
    return {k: _plain(v) for k, v in fields.items() if not k.startswith("_")}


def api_routes(registry: RedisModelRegistry) -> list[Route]:
    """``/api/health`` (200 or 503 with the reason) and ``/api/status``."""

    async def health(_request: Request) -> Reply:
        try:
            await registry.status(deadline_secs=HEALTH_SECS)
        except RegistryError as error:
            return Reply.of({"status": "unavailable", "reason": str(error)}, 503)
        return _OK

    async def status(_request: Request) -> Reply:
        partitions = await registry.status(deadline_secs=HEALTH_SECS)
        checker = registry.checker
        told: dict[str, Any] = {
            "name": registry.name,
            "namespace": registry.settings.namespace,
            "partitions": [_fields(item) for item in partitions],
            "checker": None,
        }
        if checker is not None:
            told["checker"] = {**_fields(checker), "quiet_secs": checker.quiet_secs}
            del told["checker"]["last_success"]
        return Reply.of(told)

    return [
        Route("GET", "/api/health", health, "200 while Redis answers, else 503"),
        Route("GET", "/api/status", status, "Lease, recovery, guard and counts"),
    ]
