"""A replica's application, without the process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from redis_registry import RedisModelRegistry
from redis_registry.http.server import application
from tests.conftest import SLOW, Server


@pytest.fixture
async def web(server: Server, no_tasks_left: None) -> AsyncIterator[httpx.AsyncClient]:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, operation_timeout_secs=0.5, **SLOW
    ) as registry:
        transport = httpx.ASGITransport(application(registry))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://c"
        ) as client:
            yield client
