"""Workers as processes of their own: the examples do what they say, and a killed one is dead."""

from __future__ import annotations

import asyncio
import sys

import pytest

from redis_registry import Kind, RedisModelRegistry
from tests.conftest import Server
from tests.helpers import instance, until


@pytest.mark.parametrize("name", ["announce", "announce_sync"])
async def test_a_worker_in_ten_lines(server: Server, name: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"examples.{name}", server.url),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, complaints = await process.communicate()

    assert (process.returncode, complaints) == (0, b"")
    events = server.store.of("llama3@llm").events()
    told = [event.kind for event in events if event.instance]
    assert told == [Kind.REGISTERED, Kind.READY, Kind.DRAINING, Kind.DEREGISTERED]


FOR_EVER = """
import asyncio, sys
from redis_registry import ModelInstance, RedisModelRegistry

async def main():
    instance = ModelInstance(model_name="glm@llm", host="10.0.0.1", port=8001)
    registry = RedisModelRegistry.from_url(
        sys.argv[1], run_checker=False, heartbeat_timeout_secs=0.6
    )
    async with registry, registry.announce(instance) as announced:
        await announced.ready()
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_worker_is_dead_to_readers_at_its_timeout(
    server: Server, no_tasks_left: None
) -> None:
    """kill -9: no thread, no child process, nothing goes on beating for it."""
    timeout = 0.6
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, heartbeat_timeout_secs=timeout
    ) as reader:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FOR_EVER, server.url)
        )

        async def ready() -> bool:
            return bool(await reader.select_one_health_instance("glm@llm"))

        await until(ready, "it is ready", within_secs=20)
        await asyncio.sleep(2 * timeout)
        assert await ready(), "kept alive"
        process.kill()
        await process.wait()
        (last,) = await reader.get_all_instances("glm@llm")

        async def dead() -> bool:
            return not await ready()

        await until(dead, "it is dead", within_secs=2)
        (found,) = await reader.get_all_instances("glm@llm")
        status = (await reader.status())[0]
        assert last.last_heartbeat == found.last_heartbeat
        assert found.last_heartbeat
        silent_secs = (status.now - found.last_heartbeat).total_seconds()
        assert timeout <= silent_secs < timeout + 0.1


FORKED = """
import os, sys, time
from redis_registry import ModelInstance, SyncModelRegistry

def instance(port):
    return ModelInstance(model_name="glm@llm", host="10.0.0.1", port=port)

registry = SyncModelRegistry.from_url(sys.argv[1], heartbeat_timeout_secs=0.6)
with registry.announce(instance(1), sender=sys.argv[2]) as announced:
    announced.ready()
    if os.fork() == 0:
        with registry.announce(instance(2), sender=sys.argv[2]) as forked:
            code = 0 if forked.ready() else 1
            time.sleep(1.5)
        os._exit(code)
    _, status = os.wait()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("sender", ["thread", "process"])
async def test_a_fork_announces_with_a_sender_of_its_own(
    server: Server, sender: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKED, server.url, sender)
    )
    async with asyncio.timeout(30):
        assert await process.wait() == 0
    assert Kind.UNHEALTHY not in [event.kind for event in server.store.events()]
    for port in (1, 2):
        told = server.store.kinds(instance(port))
        assert told == ["registered", "ready", "draining", "deregistered"]
