"""An agent from the values of its command line."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from redis_registry.agent.agent import AgentOptions, run
from redis_registry.agent.checks import check_host
from redis_registry.agent.gauges import Gauges
from redis_registry.core.address import own_address
from redis_registry.model import ModelInstance
from redis_registry.registry import RedisModelRegistry
from redis_registry.remote_registry import RemoteRegistry

__all__ = ["agent_of"]


async def agent_of(
    *,
    url: str,
    namespace: str,
    controllers: list[str],
    heartbeat_timeout_secs: float,
    host: str | None,
    fields: dict[str, Any],
    command: list[str],
    health: str | None,
    in_flight_metric: str | None,
    queued_metric: str | None,
    **options: Any,
) -> int:
    """Run an agent from the values of its options.

    Raises:
        AgentError: It can't be done; it carries the exit code.
        RegistryError: An option is not acceptable.
    """
    places = controllers or [url]
    for place in places:
        where = "--controller" if controllers else "--url"
        await check_host(urlsplit(place.split(",", 1)[0]).hostname, where)
    instance = ModelInstance.of(
        host=host or own_address(places[0]),
        heartbeat_timeout_secs=heartbeat_timeout_secs,
        **fields,
    )
    shown = f"[{instance.host}]" if ":" in instance.host else instance.host
    how = AgentOptions(
        health=health or f"tcp://{shown}:{instance.port}",
        gauges=Gauges(in_flight_metric, queued_metric),
        **options,
    )
    if controllers:
        remote = RemoteRegistry(
            controllers, heartbeat_timeout_secs=heartbeat_timeout_secs
        )
        async with remote:
            return await run(remote, instance, command, how)
    registry = RedisModelRegistry.from_url(
        url,
        run_checker=False,
        namespace=namespace,
        heartbeat_timeout_secs=heartbeat_timeout_secs,
    )
    async with registry:
        return await run(registry, instance, command, how)
