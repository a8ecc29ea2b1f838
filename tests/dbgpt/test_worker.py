"""DB-GPT's real worker manager against two replicas of ``redis-registry serve``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import redis
from conftest import Serve
from dbgpt.core import ModelMetadata, ModelOutput
from dbgpt.core.interface.parameter import LLMDeployModelParameters
from dbgpt.model.cluster.worker.manager import (
    LocalWorkerManager,
    _create_local_model_manager,
)
from dbgpt.model.cluster.worker_base import ModelWorker
from dbgpt.model.parameter import ModelWorkerParameters
from support import Controller, eventually

from redis_registry.embedded import EmbeddedServer, free_port

FAKE = "fake@llm"
MANAGER = "WorkerManager@service"


class FakeWorker(ModelWorker):
    """A worker without a model."""

    def load_worker(self, *args: Any, **kwargs: Any) -> None: ...

    def start(self, *args: Any) -> None: ...

    def stop(self) -> None: ...

    def generate_stream(self, params: dict[str, Any]) -> Iterator[ModelOutput]:
        yield self.generate(params)

    def generate(self, params: dict[str, Any]) -> ModelOutput:
        return ModelOutput(text="", error_code=0)

    def count_token(self, prompt: str) -> int:
        return len(prompt)

    def get_model_metadata(self, params: dict[str, Any]) -> ModelMetadata:
        return ModelMetadata(model="fake")

    def embeddings(self, params: dict[str, Any]) -> list[list[float]]:
        return []


class Watch:
    """Reads one instance through a replica, and remembers whether it was ever unhealthy."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.unhealthy = 0

    async def read(self, replica: Controller, name: str = FAKE) -> dict[str, Any]:
        url = f"{replica.url}/api/controller/models"
        answer = await self._http.get(url, params={"model_name": name})
        (instance,) = answer.raise_for_status().json()
        self.unhealthy += not instance["healthy"]
        return instance

    async def heartbeat(self, replica: Controller) -> datetime:
        return datetime.fromisoformat((await self.read(replica))["last_heartbeat"])

    async def beats(self, replica: Controller, secs: float, *, within: float) -> None:
        """Wait until the newest heartbeat is that much younger than it is now."""
        goal = await self.heartbeat(replica) + timedelta(seconds=secs)

        async def reached() -> bool:
            return await self.heartbeat(replica) >= goal

        await eventually(reached, f"heartbeats for {secs:g} s more", within=within)


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    async with httpx.AsyncClient(timeout=5) as http:
        yield Watch(http)


def worker(*replicas: Controller, interval: float) -> LocalWorkerManager:
    """A worker process as DB-GPT makes it, but for the model."""
    params = ModelWorkerParameters(
        host="127.0.0.1",
        port=free_port(),
        worker_type="llm",
        controller_addr=",".join(replica.url for replica in replicas),
        heartbeat_interval=interval,  # type: ignore[arg-type]
    )
    manager = _create_local_model_manager(params)
    deployed = LLMDeployModelParameters(name="fake", provider="fake")
    assert manager.add_worker(FakeWorker(), params, deployed, command_args=[])
    return manager


def client_of(manager: LocalWorkerManager) -> Any:
    """The ModelRegistryClient that DB-GPT hid in the manager's closures."""
    cells = dict(
        zip(
            manager.register_func.__code__.co_freevars,
            manager.register_func.__closure__,
            strict=True,
        )
    )
    return cells["client"].cell_contents


async def silence(manager: LocalWorkerManager, before: set[asyncio.Task[Any]]) -> None:
    """End what the manager runs on this loop.

    Before a stop too: a heartbeat of DB-GPT that is under way when it deregisters may arrive
    after it, and nothing in its protocol tells such a heartbeat from a real one.
    """
    tasks = asyncio.all_tasks() - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    client_of(manager)._heartbeat_stop_event.set()


async def test_a_worker_outlives_its_replicas(
    serve: Serve, watch: Watch, server: EmbeddedServer
) -> None:
    """It registers and beats through "a,b", whatever dies, and is never called unhealthy."""
    timeout = 4.0
    a, b = (serve(interval=0.2, timeout=timeout) for _ in range(2))
    before = asyncio.all_tasks()
    manager = worker(a, b, interval=0.3)
    await manager.start()
    for replica in (a, b):
        assert (await watch.read(replica))["port"] == manager.port
        assert (await watch.read(replica, MANAGER))["healthy"] is True
    await watch.beats(b, 0.3, within=5)

    b.kill()  # DB-GPT's client uses the first one that answers
    await watch.beats(a, timeout + 0.5, within=timeout + 5)

    at = await watch.heartbeat(a)
    a.kill()
    with redis.Redis.from_url(server.url) as raw:

        async def away_longer_than_a_timeout() -> bool:
            seconds, micros = raw.time()
            return seconds + micros / 1e6 > at.timestamp() + timeout + 0.5

        await eventually(away_longer_than_a_timeout, "time goes by", within=10)
    a.start()
    b.start()
    await watch.beats(b, timeout + 0.5, within=timeout + 10)
    assert watch.unhealthy == 0

    await silence(manager, before)
    await manager.stop()
    for replica in (a, b):
        assert (await watch.read(replica))["healthy"] is False
        assert (await watch.read(replica, MANAGER))["healthy"] is False


async def test_a_worker_moves_to_the_other_replica(serve: Serve, watch: Watch) -> None:
    """The replica in use dies: DB-GPT's client finds the other with its next health check."""
    a, b = (serve(interval=0.5, timeout=30) for _ in range(2))
    before = asyncio.all_tasks()
    manager = worker(a, b, interval=0.2)
    await manager.start()

    a.kill()
    await watch.beats(b, 0.5, within=15)
    assert watch.unhealthy == 0
    (instance,) = await client_of(manager).get_all_instances(FAKE, healthy_only=True)
    assert instance.port == manager.port

    await silence(manager, before)
    await manager.stop()
    assert (await watch.read(b))["healthy"] is False


async def test_a_worker_that_goes_silent_is_out(serve: Serve, watch: Watch) -> None:
    """Its tasks end, as with its process: it is out after one timeout, and stays listed."""
    timeout = 1.0
    replica = serve(interval=0.2, timeout=timeout)
    manager = worker(replica, interval=0.2)
    before = asyncio.all_tasks()
    await manager.start()
    await watch.beats(replica, 0.4, within=5)
    await silence(manager, before)

    async def out() -> bool:
        return not (await watch.read(replica))["healthy"]

    await eventually(out, "the silent worker is unhealthy", within=timeout + 2)
