"""The examples of workers do what they say, as processes of their own."""

from __future__ import annotations

import asyncio
import sys

import pytest

from redis_registry import Kind
from tests.conftest import Server


@pytest.mark.parametrize("name", ["announce", "announce_sync"])
async def test_a_worker_in_ten_lines(server: Server, name: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"examples.{name}", server.url),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, complaints = await process.communicate()

    assert (process.returncode, complaints) == (0, b"")
    told = [event.kind for event in server.store.events() if event.instance]
    assert told == [Kind.REGISTERED, Kind.READY, Kind.DRAINING, Kind.DEREGISTERED]
