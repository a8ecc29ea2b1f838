"""Leaving for good: removed instead of staying listed."""

from __future__ import annotations

from typing import Literal

import pytest

from redis_registry import RedisModelRegistry, SyncModelRegistry
from tests.conftest import Server
from tests.helpers import instance


@pytest.mark.parametrize("sender", ["thread", "process"])
async def test_a_forgotten_instance_is_removed_at_the_end(
    server: Server,
    worker_side: RedisModelRegistry,
    sender: Literal["thread", "process"],
) -> None:
    async with worker_side.announce(instance(), sender=sender) as announced:
        announced.forget()
        assert len(await worker_side.get_all_instances("glm@llm")) == 1
    assert await worker_side.get_all_instances("glm@llm") == []
    assert server.store.kinds(instance())[-1] == "removed"


def test_on_the_sync_face_too(sync_registry: SyncModelRegistry) -> None:
    with sync_registry.announce(instance()) as announced:
        announced.forget()
    assert sync_registry.get_all_instances("glm@llm") == []
