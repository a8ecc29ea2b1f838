"""Records put into Redis behind the registry's back."""

from __future__ import annotations

from typing import Any

import redis

from redis_registry import ModelInstance, SyncModelRegistry
from redis_registry.integrations.dbgpt import DBGPTModelRegistry
from redis_registry.wire.codec import member_of
from redis_registry.wire.keys import PartitionKeys


class Storage:
    """What DB-GPT's tests do to their registry's storage, done to Redis behind its back."""

    def __init__(self, registry: DBGPTModelRegistry) -> None:
        self._settings = registry.settings

    def save(self, item: Any) -> None:
        """Plant a record as DB-GPT's storage would: with the health and heartbeat given."""
        fields = {
            name: value
            for name, value in vars(item).items()
            if name in ModelInstance.model_fields
        }
        instance = ModelInstance.of(**fields)
        timeout = self._settings.heartbeat_timeout_secs
        member = member_of(instance, round(timeout * 1000))
        keys = PartitionKeys.of(self._settings.prefix, self._settings.namespace, 0)
        deadline = round((item.last_heartbeat.timestamp() + timeout) * 1_000_000)
        with SyncModelRegistry(settings=self._settings) as registry:
            registry.register_instance(instance)
            with redis.Redis.from_url(self._settings.url) as client:
                moved = client.zadd(
                    keys.named("deadlines"), {member: deadline}, xx=True, ch=True
                )
                assert moved == 1, (
                    "planted nothing: is the member still built that way?"
                )
            if not item.healthy:
                registry.deregister_instance(instance)
