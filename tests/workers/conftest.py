"""What the tests of announcing share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from redis_registry import ModelInstance, RedisModelRegistry
from tests.conftest import Server

QUICK: dict[str, Any] = {"heartbeat_timeout_secs": 0.6, "heartbeat_interval_secs": 0.1}


@pytest.fixture
async def worker_side(server: Server) -> AsyncIterator[RedisModelRegistry]:
    """As a worker has it: no checker."""
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **QUICK
    ) as registry:
        yield registry


async def only(registry: RedisModelRegistry) -> ModelInstance:
    (found,) = await registry.get_all_instances("glm@llm")
    return found


def children() -> list[int]:
    """Pids of this process's senders."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            words = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == os.getpid() and "sender_program" in words:
            found.append(int(stat.parent.name))
    return found
